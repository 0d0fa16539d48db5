"""From a trained adapter to deployable files: merge, ONNX export, three precision tiers, the proof that they keep the
policy.

In lineage order: `merge` (adapter into base), `export` (torch to ONNX), `opset` (down to 17, up to 21), `int8` and
`int4` (weight-only quantization), `policy` (Principle IV proven from the saved files), `tiers` (all of it, per
directory). What runs a tier is `lofi_assets.lofi_onnx`. `graph` holds what they share
about ONNX files. Only `merge`, `export` and `tiers` need torch. Quality of a tier (FAD) is measured in
`lofi_assets.metrics`, not here.
"""
