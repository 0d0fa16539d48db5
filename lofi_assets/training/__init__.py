"""LoRA training of the ACE-Step transformer, from cached features to checkpoints.

In the order they are read: `config` (what a run is), `features` (everything frozen, computed once, by `encoders`,
`ssl_encoders` and `speakers` into `feature_files`), `batches` (which part of which track a step sees), `backbone` (the
model: `quantized_base`, `adapters`, `distributed`), `objective` (its loss), `optimizer` and `averaging`, `loop` (a
step, and the rhythm of checkpoints), `log`, `curves`, `pace` and `preview` (what is seen and heard meanwhile), `ending`
(how it ended), `adapters` and `resume` (what is saved), `checkpoints` (manifest, retention, runs), `position` and
`provenance` (what a checkpoint records), `reproduction` and `rerun` (a checkpoint made again, and compared). Before a
start: `model_size`, `estimate`, `plan` (what it will take). `python -m lofi_assets.training --config run.json` runs it,
in as many processes as the run names (`launch`).

What does not belong here: Dagster (`defs/`), the model (`backbones/`), scores (`metrics/`). `config`, `checkpoints`
and `launch` import without torch, so that an orchestrator can read them.
"""
