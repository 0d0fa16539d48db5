"""Budget: a step of the training loop is no slower than the bare transformer step (at least 0.95 of its speed)."""

import contextlib
import io
import statistics
import tempfile
import time
from pathlib import Path

import torch

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.backbones.ace_step_v1.flow_matching import add_noise, denoising_loss
from lofi_assets.backbones.ace_step_v1.identity import base_fingerprint
from lofi_assets.backbones.ace_step_v1.loading import load_base
from lofi_assets.backbones.ace_step_v1.tiny import write_tiny_base
from lofi_assets.backbones.features import FeatureJob
from lofi_assets.backbones.training import TIMESTEPS, Item
from lofi_assets.files.hashing import sha256_file
from lofi_assets.training.config import TrackFeatures, TrainingRun, TrainingSettings
from lofi_assets.training.lora_settings import LoraSettings
from lofi_assets.training.trainer import adapters
from lofi_assets.training.trainer.batches import Source
from lofi_assets.training.trainer.loop import train
from lofi_assets_tests.bench.material import write_song
from lofi_assets_tests.bench.report import Row
from lofi_assets_tests.feature_material import encoded, read

LEAST_RATIO = 0.95
STEPS, WARM_UP = 30, 6
TARGETS = ("speaker_embedder", "linear_q", "linear_k", "linear_v", "to_q", "to_k", "to_v", "to_out.0")


class BareStep:
    """Forward, backward, clip and optimiser on the items that the loop sees, prepared beforehand."""

    def __init__(self, run: TrainingRun) -> None:
        options = {"drop_dead_projections": True, "build_projectors": False}
        base = load_base(run.base, components=("transformer",), transformer_options=options)
        assert base.transformer is not None
        settings = run.training
        self.parameters = list(adapters.add_lora(base.transformer, run.lora, seed=settings.seed).values())
        if settings.gradient_checkpointing:
            base.transformer.recompute_blocks()
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
        )
        self.transformer = base.transformer
        source = Source(
            tracks=run.of_split("train"),
            settings=settings,
            backbone=ACE_STEP_V1,
            features=read(run.features_dir),
        )
        self.items: list[Item] = [source.item(position) for position in range(STEPS + 2)]
        self.clip = settings.gradient_clip

    def seconds(self, position: int, *, deterministic: bool) -> float:
        """Time of the step on item `position`."""
        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(deterministic)
        started = time.perf_counter()
        self._loss(self.items[position]).mean().backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        taken = time.perf_counter() - started
        torch.use_deterministic_algorithms(before)
        return taken

    def _loss(self, item: Item) -> torch.Tensor:
        conditions, clean = item.conditions, item.latents[None]
        context, mask = self.transformer.encode(
            text_hidden_states=conditions["text"][None],
            text_attention_mask=torch.ones(1, len(conditions["text"]), dtype=torch.long),
            speaker_embeds=conditions["speaker"][None],
            lyric_token_ids=conditions["lyric_ids"][None],
            lyric_mask=conditions["lyric_mask"][None],
        )
        sigmas = torch.tensor([item.sigma])
        noisy = add_noise(clean, item.noise[None], sigmas)
        velocity = self.transformer.decode(
            hidden_states=noisy,
            attention_mask=None,
            encoder_hidden_states=context,
            encoder_hidden_mask=mask,
            timestep=sigmas * TIMESTEPS,
        )
        return denoising_loss(velocity, noisy=noisy, clean=clean, sigmas=sigmas, mask=None)


class Watch:
    """Asked by the loop after every step whether to stop; times that step, then the bare ones on the same item."""

    def __init__(self, bare: BareStep) -> None:
        self.bare = bare
        self.loop: list[float] = []
        self.plain: list[float] = []
        self.fixed: list[float] = []
        self.calls = 0
        self.left = time.perf_counter()

    def __call__(self) -> bool:
        self.loop.append(time.perf_counter() - self.left)
        position = max(0, self.calls - 2)  # the loop asks twice before its first step
        self.plain.append(self.bare.seconds(position, deterministic=False))
        self.fixed.append(self.bare.seconds(position, deterministic=True))
        self.calls += 1
        self.left = time.perf_counter()
        return False


def rows() -> list[Row]:
    """The loop through its public door, `train`, and the bare step between its steps."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on busy cores two threads wait for each other more than they work
    try:
        with tempfile.TemporaryDirectory(prefix="lofi-bench-") as name:
            run = _run(Path(name))
            watch = Watch(BareStep(run))
            with contextlib.redirect_stderr(io.StringIO()):
                train(run, stop=watch, say=lambda _: None)
    finally:
        torch.set_num_threads(threads)
    loop, plain, fixed = (side[WARM_UP:] for side in (watch.loop, watch.plain, watch.fixed))
    told = (
        "loop {:.1f} ms with cache, noise, log and progress; bare {:.1f} ms; bare with deterministic kernels {:.1f} ms"
    )
    medians = [1e3 * statistics.median(side) for side in (loop, plain, fixed)]
    note = (
        f"tiny base, 120 s of latents, rank 8, float32, one thread; median ratio of {len(loop)} steps, each beside the "
        f"bare one on the same item: {told.format(*medians)}"
    )
    return [
        Row(
            "training step, speed of the loop over the bare step", _ratio(plain, loop), "x", LEAST_RATIO, "least", note
        ),
        Row("the same, bare step deterministic as well", _ratio(fixed, loop), "x", LEAST_RATIO, "least"),
    ]


def _ratio(bare: list[float], loop: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(bare, loop, strict=True))


def _run(root: Path) -> TrainingRun:
    with contextlib.redirect_stderr(io.StringIO()):
        write_tiny_base(root / "base")
    identity = base_fingerprint(root / "base")
    song = write_song(root / "song.wav", seconds=120.0)
    job = FeatureJob("song", song, sha256_file(song), "lofi hip hop, piano, vinyl crackle, rain, mellow, 82 bpm")
    with contextlib.redirect_stderr(io.StringIO()):
        (row,) = encoded([job], root / "base", root / "features", device="cpu")
    return TrainingRun(
        base=root / "base",
        base_fingerprint=identity,
        features_dir=root / "features",
        tracks=(TrackFeatures(track_id="song", key=row.key),),
        dataset_id="bench",
        dataset_hash="0" * 64,
        checkpoints_dir=root / "checkpoints",
        logs_dir=root / "logs",
        lora=LoraSettings(r=8, lora_alpha=8, target_modules=TARGETS),
        training=TrainingSettings(max_steps=STEPS, checkpoint_interval=STEPS + 1, precision="32", seed=1234),
        device="cpu",
    )
