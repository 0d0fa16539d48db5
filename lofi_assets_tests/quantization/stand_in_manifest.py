"""A merged model and a tier's manifest as the release before wrote them, and as what they are read as."""

from typing import Any

from lofi_assets.files.typed import parsed
from lofi_assets.quantization.merged_model import MergedModel
from lofi_assets.quantization.tier_manifest import TierManifest

MANIFEST: dict[str, Any] = {
    "tier": "int8",
    "opset": 17,
    "fingerprint": "3" * 64,
    "files": {"vocoder.onnx": {"sha256": "1" * 64, "bytes": 574}},
    "recipe": {"int8_layers": [r"\.to_v$"], "int8_edge_blocks": 1, "int4_block": 32},
    "provenance": {"checkpoint": "epoch=0-step=240_lora", "merge.rank": "32", "tool.onnx": "1.23.2"},
    "policy": {
        "tier": "int8",
        "opset": 17,
        "min_bits": {"dcae_decoder": 16, "vocoder": 16, "lyric_encoder": 8, "speaker_embedder": 8},
        "quantized_share": 1.0,
        "int4_share": 0.0,
        "size_bytes": 14306172,
        "size_ratio": 0.43,
        "violations": [],
        "components": [
            {
                "component": "text_encoder",
                "opset": 17,
                "domains": ["ai.onnx"],
                "elements_by_bits": {"8": 327680, "32": 907},
                "min_bits": 8,
                "quantized_share": 1.0,
                "int4_share": 0.0,
                "size_bytes": 575079,
                "size_ratio": 0.326,
                "violations": [],
            }
        ],
    },
    "snr_db": {"text_encoder": 32.9, "transformer.cpu": 30.1},
}


MERGE: dict[str, Any] = {
    "adapter_effect": 1.1568025713033019,
    "adapter_sha256": "f" * 64,
    "base_fingerprint": "5" * 64,
    "max_error": 3.354943520555924e-05,
    "modules": 36,
    "rank": 32,
    "scale": 5.656854249,
}


def merged_model(checkpoint_id: str, **changes: Any) -> MergedModel:
    """Of a checkpoint; `changes` are of its JSON."""
    data = {"checkpoint_id": checkpoint_id, **MERGE, **changes}
    return parsed(MergedModel, data, where="test", remedy="mend the test")


def tier_manifest(**changes: Any) -> TierManifest:
    """Of the INT8 tier; `changes` are of its JSON."""
    return parsed(TierManifest, MANIFEST | changes, where="test", remedy="mend the test")
