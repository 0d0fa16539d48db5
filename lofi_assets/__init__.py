"""Licensed lofi tracks -> a released, gated LoRA of a music model (ACE-Step v1), as Dagster assets.

The lineage, which is also the order of files, groups, docs and tests:

    licensed_sources -> style_taxonomy -> processed_tracks -> prompts -> dataset_manifest -> feature_cache
    -> lora_checkpoints -> generated_samples -> quality_metrics -> human_evaluation -> merged_model
    -> quantized_tiers -> onnx_artifacts -> model_card -> hub_release

`defs/`, `definitions.py` and `demo/run.py` know Dagster, and `training/__main__.py` Dagster Pipes; every other module
is domain code that runs without it. What definitions import stays light: torch, transformers, diffusers, onnxruntime
and librosa are imported where the work is done. Model families stand behind a Protocol (`backbones/`), gates are data
(`config/constitution.yaml`), files are laid out by `store.py`, sizes come from `profiles.py`.
"""

import logging

# bitsandbytes, which peft and diffusers import, warns on CPUs with AVX512-BF16 of kernels that nothing here asks for.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
