"""A data root with two measured checkpoints and the base, by hand: a clip each, and text that would be markup."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from lofi_assets.evaluation.measured import Marks, Measured, write_measured
from lofi_assets.evaluation.samples import BASE, Clip, ModelSamples
from lofi_assets.files.documents import write_json
from lofi_assets.metrics.encoders import content_of
from lofi_assets.metrics.results import Evaluation, NoiseDistances
from lofi_assets.records import Checkpoint, QualityMetrics
from lofi_assets.store import Store
from lofi_assets.training.checkpoints.manifest import write_manifest
from lofi_assets_tests.dataset.stand_in_version import deliver, track_record
from lofi_assets_tests.evaluation.test_sample_gates import checks
from lofi_assets_tests.metrics.stand_in_results import CLAP, evaluation

RATE = 48_000
NASTY = '<script>alert("x")</script>\' onerror=y'
PROMPT = f"lofi, 80 bpm, {NASTY}"
NAMES = ("epoch=0-step=80_lora", "epoch=0-step=160_lora")
TRACK = "rain_01"


def sound(path: Path, *, pitch: float, seconds: float = 12.0) -> None:
    t = np.arange(round(seconds * RATE)) / RATE
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.stack([0.2 * np.sin(2 * np.pi * pitch * t)] * 2, axis=1), RATE, format="MP3")


def checkpoint(name: str, step: int, fad: float | None) -> Checkpoint:
    return Checkpoint(
        checkpoint_id=name,
        step=step,
        path=f"checkpoints/{name}",
        timestamp=datetime(2026, 1, 1, tzinfo=UTC),
        fad_score=fad,
        is_valid=True,
        config_hash="c" * 64,
        dataset_hash="d" * 64,
    )


def checked(file: str, **changes: Any) -> Evaluation:
    """Of one clip, whose nearest real track is played beside it."""
    found = checks()
    clip = replace(found.clips[0], file=file, bpm_confidence=0.41, loudness_lufs=-14.2, **changes)
    return replace(evaluation(clap=CLAP, problems={}), checks=replace(found, clips=(clip,)))


def put_evaluated(store: Store) -> Store:
    """Two checkpoints and the base with a clip each, of a dataset with one validation track."""
    audio = deliver(store, "ds-1", [track_record(TRACK, split="validation")]) / "audio"
    sound(audio / f"{TRACK}.mp3", pitch=220.0, seconds=24.0)
    records = [checkpoint(NAMES[0], 80, 28.85), checkpoint(NAMES[1], 160, 20.0)]
    write_manifest(store.checkpoints, records)
    file, measured = f"000_{TRACK}.mp3", {}
    for index, name in enumerate((BASE, *NAMES)):
        path = store.samples / name / file
        sound(path, pitch=300.0 + 50 * index)
        ModelSamples("0" * 64, (Clip(store.relative(path), PROMPT, "CORE-01", 7000, ()),)).write(path.parent)
        key = f"{'a' * 64}.{content_of([path])}"
        if name == BASE:
            Marks(key, checked(file), NoiseDistances(fad=261.9, kad=150.7)).write(store)
            continue
        about = QualityMetrics(checkpoint_id=name, evaluation_date=datetime(2026, 1, 2, tzinfo=UTC), fad_score=28.85)
        measured[name] = Measured(key, about, checked(file))
    write_measured(store, measured)
    source = {"source_id": "source_001", "track_ids": [TRACK], "source_type": "creative_commons", "provider": NASTY}
    terms = {"license_type": "CC BY 4.0", "date_acquired": "2025-01-01", "attribution": f"Tracks by {NASTY}"}
    write_json(store.metadata("sources.json"), [source | terms])
    return store
