"""LoRA training of the ACE-Step transformer, from cached features to checkpoints.

In the order they are read: `config` (what a run is), `features` (everything frozen, computed once), `batches` (which
part of which track a step sees), `loop` (the optimiser), `adapters` and `resume` (what is saved), `checkpoints`
(manifest, retention, runs), `provenance` (where it ran), `log`, `curves`, `pace` and `preview` (what is seen and heard
meanwhile), `ending` (how it ended). Before a start: `model_size`, `estimate`, `plan` (what it will take).
`python -m lofi_assets.training --config run.json` runs it.

What does not belong here: Dagster (`defs/`), the model (`ace_step/`), scores (`metrics/`). `config` and `checkpoints`
import without torch, so that an orchestrator can read them.
"""
