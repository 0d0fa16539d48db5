"""A tier's manifest as the release before wrote it, and as what it is read as."""

from typing import Any

from lofi_assets.files.typed import parsed
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


def tier_manifest(**changes: Any) -> TierManifest:
    """Of the INT8 tier; `changes` are of its JSON."""
    return parsed(TierManifest, MANIFEST | changes, where="test", remedy="mend the test")
