"""Budgets of the feature cache: a step on it against one that encodes each time, its size, how fast it fills."""

import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.backbones.ace_step_v1.conditions import conditions_of
from lofi_assets.backbones.ace_step_v1.features import Encoders
from lofi_assets.backbones.ace_step_v1.loading import load_base
from lofi_assets.backbones.ace_step_v1.objective import Objective
from lofi_assets.backbones.ace_step_v1.tiny import write_tiny_base
from lofi_assets.backbones.features import Conditions, FeatureJob
from lofi_assets.files.hashing import sha256_file
from lofi_assets.training.config import TrackFeatures, TrainingSettings
from lofi_assets.training.features.cache import FeatureRow, decode
from lofi_assets.training.lora_settings import LoraSettings
from lofi_assets.training.trainer import adapters
from lofi_assets.training.trainer.batches import Source
from lofi_assets_tests.bench.material import write_song
from lofi_assets_tests.bench.report import Row, interleaved
from lofi_assets_tests.feature_material import Given, encoded, read

SECONDS, TRACKS, REPEATS = 60.0, 4, 5
LATENT_BYTES_PER_MINUTE = 60 * 44_100 / 4_096 * 8 * 16 * 4
TEXT_BYTES = 256 * 768 * 4
SSL_BYTES_PER_MINUTE = 60 * 2 * (75 * 1024 + 50 * 768)
CROP = 128


def rows() -> list[Row]:
    """On the tiny base, one thread; sizes follow from the shapes and are those of the published model."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(prefix="lofi-bench-") as name, contextlib.redirect_stderr(io.StringIO()):
            return _rows(Path(name))
    finally:
        torch.set_num_threads(threads)


def _rows(root: Path) -> list[Row]:
    write_tiny_base(root / "base")
    jobs = _jobs(root)

    def fill() -> list[FeatureRow]:
        return encoded(jobs, root / "base", root / "features", device="cpu")

    started = time.perf_counter()
    made = fill()
    filled = time.perf_counter() - started
    started = time.perf_counter()
    fill()
    unchanged = time.perf_counter() - started
    cached, encoding = _steps(root, jobs, made)
    with_cache, encoding_each_time = interleaved(cached, encoding, repeats=REPEATS)
    minutes = TRACKS * SECONDS / 60
    latents = sum(row.files["latents"].stat().st_size for row in made) / minutes
    everything = sum(path.stat().st_size for row in made for path in row.files.values()) / minutes
    real = (
        f"published model: {LATENT_BYTES_PER_MINUTE / 1e6:.2f} MB of latents, at most {TEXT_BYTES / 1e6:.2f} MB of "
        f"text per track, {SSL_BYTES_PER_MINUTE / 1e6:.1f} MB of SSL targets if both are on"
    )
    return [
        Row(
            "training step, encoding audio and text each time over reading the cache",
            encoding_each_time / with_cache,
            "x",
            3.0,
            "least",
            f"tiny base, {SECONDS:.0f} s track, crop of {CROP} frames, one thread, median of {REPEATS}: encoding "
            f"{1e3 * encoding_each_time:.0f} ms, cached {1e3 * with_cache:.1f} ms. The tiny DCAE costs far less beside "
            "its transformer than the published one does, so this is a lower bound",
        ),
        Row(
            "cached latents, MB per minute of audio",
            latents / 1e6,
            "",
            1.02 * LATENT_BYTES_PER_MINUTE / 1e6,
            "most",
            f"{everything / 1e6:.2f} MB with text, lyrics and speaker of the tiny base, mapped, not held; {real}",
        ),
        Row(
            "hours of audio encoded per hour, tiny base",
            TRACKS * SECONDS / filled,
            "",
            note=f"{60 * TRACKS / filled:.0f} tracks of {SECONDS:.0f} s per minute, decoding, loading and checking "
            "included; says what surrounds the models costs, not how fast the published ones are",
        ),
        Row(
            "the same call again, nothing changed",
            unchanged / filled,
            "x",
            0.1,
            "most",
            f"{1e3 * unchanged:.0f} ms for {TRACKS} tracks; in this process the files were checked when written",
        ),
    ]


def _jobs(root: Path) -> list[FeatureJob]:
    jobs = []
    for index in range(TRACKS):
        song = write_song(root / f"song{index}.wav", seconds=SECONDS + index / 10)
        prompt = f"lofi hip hop, piano, vinyl crackle, rain, mellow, {80 + index} bpm"
        jobs.append(FeatureJob(song.stem, song, sha256_file(song), prompt, lyrics="[Language: en]\n[Verse]\nrain"))
    return jobs


def _steps(root: Path, jobs: list[FeatureJob], made: list[FeatureRow]) -> tuple[Callable[[], None], Callable[[], None]]:
    """The same optimiser step on features from the cache, and on features encoded for it."""
    transformer = load_base(root / "base", components=("transformer",)).transformer
    assert transformer is not None
    lora = LoraSettings(r=8, lora_alpha=8, target_modules=("to_q", "to_k", "to_v", "to_out.0"))
    optimizer = torch.optim.AdamW(adapters.add_lora(transformer, lora, seed=0).values())
    objective = Objective(transformer, torch.float32, torch.device("cpu"))
    encoders, by_key = Encoders(root / "base"), {row.key: job for row, job in zip(made, jobs, strict=True)}

    def encoded_latents(key: str) -> torch.Tensor:
        job = by_key[key]
        audio = decode(job.track_id, job.audio, sha256=job.audio_sha256)
        return torch.from_numpy(encoders.listen(audio, ["latents"])["latents"])

    def encoded_conditions(key: str) -> Conditions:
        job = by_key[key]
        ids = torch.from_numpy(encoders.lyrics(job.track_id, job.lyrics)[0])
        text, speaker = encoders.text(job.caption), encoders.speaker(job.track_id, None)
        return conditions_of(torch.from_numpy(text), ids, torch.from_numpy(speaker))

    tracks = tuple(TrackFeatures(track_id=row.track_id, key=row.key) for row in made)
    settings = TrainingSettings(crop_frames=CROP)

    def step(source: Source) -> Callable[[], None]:
        def run() -> None:
            objective.losses([source.item(0)]).mean().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return run

    each_time = Given(encoded_latents, encoded_conditions, lambda _: CROP)
    return (
        step(Source(tracks, settings, ACE_STEP_V1, read(root / "features"))),
        step(Source(tracks, settings, ACE_STEP_V1, each_time)),
    )
