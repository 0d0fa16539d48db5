"""LoRA training of a backbone, from cached features to checkpoints.

The assets are `feature_cache` and `lora_checkpoints`, with `settings`, `base_model`, `trained_on`, `made_from`,
`track_losses` and `report`. In the order they are read: `config` (what a run is), `planning` (what it will take),
`features` (everything frozen, computed once), `trainer` (what a step sees, the model, the loop and what is seen and
heard meanwhile), `checkpoints` (what is saved, recorded and kept), `reproduction` (a checkpoint made again, and
compared). `python -m lofi_assets.training --config run.json` runs it, in as many processes as the run names (`launch`,
`distributed`); `ending` and `death` say how it ended.

The models and the loss are in `backbones/`. `config`, `checkpoints` and `launch` import without torch, so that an
orchestrator can read them.
"""
