"""From a trained adapter to deployable files: merge, ONNX export, three precision tiers, the proof that they keep the
policy.

The assets are `merged_model` and `quantized_tiers`. In lineage order: `merge` (adapter into base), `export` (torch to
ONNX, with `stable_names` and what `half_range` keeps in float32), `opset` (down to 17, up to 21), `int8` and `int4`
(weights, by `linear_weights`), `policy` (Principle IV proven from the saved files by `weight_trace`, `weight_values`
and `data_files`; `proof` runs it in a process of its own), `signal_to_noise` and `finite` (what the files answer),
`build` (all of it, per directory), `tier_tolerance` (how well a tier's FAD has to be known).

`graph` holds what they share about ONNX files. Numbers stay on disk while they are worked on: `spool` of graphs,
`mapped` of torch modules; `shards` says which data files they end in. Only `merge`, `export`, `half_range`, `mapped`
and `build` need torch. What runs a tier is the runtime of its backbone (`backbones.export.Runtime`); its quality (FAD)
is measured in `lofi_assets.metrics`.
"""
