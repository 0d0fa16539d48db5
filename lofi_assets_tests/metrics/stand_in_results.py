"""Results of the metrics as they stand in files, and the same as what they are read as."""

from typing import Any

from lofi_assets.files.typed import parsed
from lofi_assets.metrics.results import Evaluation, ListeningResult, TierFidelity

EVALUATION: dict[str, Any] = {
    "checkpoint_id": "epoch=0-step=80_lora",
    "encoder": "musicnn",
    "encoder_version": "msd-penultimate-hop1s-mono-lufs-23-soxr1",
    "encoder_weights_sha256": "5" * 64,
    "trained": True,
    "reference_sha256": "6" * 64,
    "fad": {
        "value": 28.85,
        "interval": [22.92, 36.5],
        "floor": 4.94,
        "over_floor": 5.84,
        "infinity": None,
        "infinity_note": "FAD-inf needs 32 clips on each side, got 8 and 8",
        "by_clip": {"007_vibraphone.mp3": 46.08, "000_rain.mp3": 31.97},
        "real_by_clip": [14.92, 39.6],
        "kad": 29.76,
        "kad_interval": [19.02, 40.5],
        "kad_floor": 2.25,
        "n_clips": 8,
        "n_windows": 232,
        "n_reference_clips": 8,
        "n_reference_windows": 342,
        "enough_windows": False,
        "note": "",
    },
    "clap": None,
    "clap_note": "no CLAP checkpoint is configured",
    "tag_alignment": {
        "auc": 0.41,
        "lower": 0.34,
        "reference_auc": 0.55,
        "n_clips": 8,
        "n_unmapped": 0,
        "note": "",
    },
    "style_coverage": {
        "styles": {"CORE-01": {"generated": True, "recognizable": False}},
        "top1": 0.25,
        "top1_lower": 0.05,
        "chance": 0.33,
        "without_reference": [],
    },
    "problems": {"000_rain.mp3": ["silent (RMS not above -50 dBFS)"]},
    "proof": None,
    "clap_proof": None,
    "checks": None,
    "aesthetics": None,
}
CLAP: dict[str, Any] = {
    "value": 0.8,
    "lower": 0.71,
    "raw_cosine": 0.4,
    "shuffled_cosine": 0.2,
    "real_cosine": 0.45,
    "real_shuffled_cosine": 0.2,
    "captions_p": 0.005,
    "recall": 0.75,
    "recall_chance": 0.3,
    "real_recall": 0.875,
    "real_recall_chance": 0.3,
    "n_generated": 8,
    "n_real": 8,
    "n_prompts": 8,
    "note": "",
}
FIDELITY: dict[str, Any] = {
    "ratio": 0.0015,
    "upper": 0.0017,
    "fad_fp32": 26.47,
    "fad_tier": 26.51,
    "fad_between": 0.002,
    "n_pairs": 16,
    "encoder": "musicnn",
    "encoder_version": "msd-penultimate-hop1s-mono-lufs-23-soxr1",
    "trained": True,
    "note": "",
}
LISTENING: dict[str, Any] = {
    "evaluator_count": 12,
    "n_trials": 240,
    "n_correct": 124,
    "accuracy": 0.5166666666666667,
    "accuracy_interval": [0.45, 0.58],
    "listener_interval": [0.46, 0.57],
    "p_value": 0.65,
    "equivalence_p": 0.01,
    "margin": 0.1,
    "verdict": "indistinguishable",
    "hit_rate": 0.5,
    "false_alarm_rate": 0.48,
    "d_prime": 0.05,
    "design_effect": 1.1,
    "effective_trials": 218,
    "trials_needed": 214,
    "trials_missing": 0,
    "listeners": ["Ann (also ann)", "Bo"],
    "excluded_listeners": [],
    "notes": [],
    "date": "2025-01-15",
}


def evaluation(**changes: Any) -> Evaluation:
    """Of a checkpoint; `changes` are of its JSON."""
    return parsed(Evaluation, EVALUATION | changes, where="test", remedy="mend the test")


def fidelity(**changes: Any) -> TierFidelity:
    """Of a tier."""
    return parsed(TierFidelity, FIDELITY | changes, where="test", remedy="mend the test")


def listening_result(**changes: Any) -> ListeningResult:
    """Of a test that listeners did not pass: they could not tell."""
    return parsed(ListeningResult, LISTENING | changes, where="test", remedy="mend the test")
