"""LoRA training of the ACE-Step transformer, from cached features to checkpoints.

The assets are `feature_cache` and `lora_checkpoints`, with `settings`, `base_model`, `trained_on` and `report`. In the
order they are read: `config` (what a run is), `planning` (what it will take), `features` (everything frozen, computed
once), `trainer` (what a step sees, the model, its loss, the loop and what is seen and heard meanwhile), `checkpoints`
(what is saved, recorded and kept), `reproduction` (a checkpoint made again, and compared). `python -m
lofi_assets.training --config run.json` runs it, in as many processes as the run names (`launch`, `distributed`);
`ending` and `death` say how it ended.

What does not belong here: Dagster (`defs/`), the model (`backbones/`), scores (`metrics/`). `config`, `checkpoints`
and `launch` import without torch, so that an orchestrator can read them.
"""
