"""From a trained adapter to deployable files: merge, ONNX export, three precision tiers, the proof that they keep the
policy.

The assets are `merged_model` and `quantized_tiers`. In lineage order: `merge` (adapter into base), `export` (torch to
ONNX, with `stable_names`), `opset` (down to 17, up to 21), `int8` and `int4` (weights, by `linear_weights`), `policy`
(Principle IV proven from the saved files by `weight_trace`), `signal_to_noise`, `build` (all of it, per directory).
`graph` holds what they share about ONNX files. Only `merge`, `export` and `build` need torch. What runs a tier is the
runtime of its backbone (`backbones.export.Runtime`); its quality (FAD) is measured in `lofi_assets.metrics`.
"""
