"""A workflow for ComfyUI, in the form that its API takes and its page opens: text to music with the released LoRA.

Nodes and inputs follow ComfyUI's text-to-music template for ACE-Step v1 (`comfy_extras/nodes_ace.py`), which could not
be read here: neither the inputs' names nor a run was seen. What a test asks is that every link leads to a node.
"""

import hashlib
import json
from typing import Any

from lofi_assets.training.checkpoints.files import COMFYUI_WEIGHTS

WORKFLOW = "comfyui_workflow.json"
BASE_CHECKPOINT = "ace_step_v1_3.5b.safetensors"
"""ComfyUI's single file of the base, from Comfy-Org/ACE-Step_ComfyUI_repackaged."""


def workflow() -> dict[str, Any]:
    """Node id -> its class and inputs; a link is the id of a node and the number of its output.

    The noise schedule is the model's own (shift 3, as trained), so there is no node that sets another.
    """
    tags = "lofi hip hop, mellow, rhodes, 74 bpm, vinyl crackle, instrumental"
    return {
        "1": _node("CheckpointLoaderSimple", ckpt_name=BASE_CHECKPOINT),
        "2": _node("LoraLoaderModelOnly", model=["1", 0], lora_name=COMFYUI_WEIGHTS, strength_model=1.0),
        "3": _node("TextEncodeAceStepAudio", clip=["1", 1], tags=tags, lyrics="[instrumental]", lyrics_strength=1.0),
        "4": _node("ConditioningZeroOut", conditioning=["3", 0]),
        "5": _node("EmptyAceStepLatentAudio", seconds=60.0, batch_size=1),
        "6": _node(
            "KSampler",
            model=["2", 0],
            positive=["3", 0],
            negative=["4", 0],
            latent_image=["5", 0],
            seed=7,
            steps=50,
            cfg=5.0,
            sampler_name="euler",
            scheduler="simple",
            denoise=1.0,
        ),
        "7": _node("VAEDecodeAudio", samples=["6", 0], vae=["1", 2]),
        "8": _node("SaveAudioMP3", audio=["7", 0], filename_prefix="audio/lofi", quality="V0"),
    }


def workflow_file() -> bytes:
    """The workflow as a release holds it."""
    return (json.dumps(workflow(), indent=2, ensure_ascii=False) + "\n").encode()


def workflow_sha256() -> str:
    """Of that file: no evidence names it, so a verifier compares it with what this code writes."""
    return hashlib.sha256(workflow_file()).hexdigest()


def _node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}
