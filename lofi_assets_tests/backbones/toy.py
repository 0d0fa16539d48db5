"""A model family of a few thousand parameters that is like ACE-Step v1 in nothing but the Protocol.

Latents are (T, 4) at 5 Hz with the frames first; the model is told the share of noise itself, not 1,000 times it; there
is one condition, a learned vector stands for it where it is dropped, and everything is dropped at once.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from lofi_assets.audio.decode import Decoded
from lofi_assets.backbones import BackboneError, BaseModelError
from lofi_assets.backbones.export import Exportable, ExportLayout, Probe, ProtectedPart, ReleaseRuntime, Runtime
from lofi_assets.backbones.features import LATENTS, Conditions, FeatureJob, FeatureKind, LatentShape, content_key
from lofi_assets.backbones.sampling import FLOAT32, Precision
from lofi_assets.backbones.sizes import Amount, ModelSize, StepShape
from lofi_assets.backbones.training import Item, ObjectiveSettings

RATE, FRAME, CHANNELS = 48_000, 9_600, 4
WORD, WIDTH, BLOCKS = 8, 32, 2
WEIGHTS = "toy.safetensors"


def words_of(prompt: str) -> np.ndarray:
    """(words, 8) float32, each word by its hash."""
    digests = [hashlib.sha256(word.encode()).digest()[:WORD] for word in prompt.split()]
    return np.array([list(digest) for digest in digests], dtype=np.float32) / 128 - 1


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_v = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, states: Tensor, context: Tensor) -> Tensor:
        return states + self.to_v(torch.tanh(self.to_q(states) + context))


class ToyModel(nn.Module):
    """Captions, denoiser and decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.caption = nn.Linear(WORD, WIDTH)
        self.null = nn.Parameter(torch.zeros(WIDTH))
        self.proj_in, self.time = nn.Linear(CHANNELS, WIDTH), nn.Linear(1, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.proj_out = nn.Linear(WIDTH, CHANNELS)
        self.decode = nn.Linear(CHANNELS, FRAME, bias=False)
        self.recompute = False

    def context(self, captions: Tensor, mask: Tensor) -> Tensor:
        """(B, words, 8) and their mask -> (B, width); without a word the learned vector."""
        count = mask.sum(dim=1, keepdim=True)
        mean = (self.caption(captions) * mask[..., None]).sum(dim=1) / count.clamp(min=1)
        return torch.where(count > 0, mean, self.null.to(mean.dtype))

    def forward(self, noisy: Tensor, context: Tensor, sigma: Tensor) -> Tensor:
        """(B, T, 4), (B, width), (B,) -> velocity."""
        states = self.proj_in(noisy) + self.time(sigma[:, None])[:, None]
        for block in self.blocks:
            if self.recompute and torch.is_grad_enabled():
                states = checkpoint(block, states, context[:, None], use_reentrant=False)
            else:
                states = block(states, context[:, None])
        return self.proj_out(states)


class Trained(nn.Module):
    """What the objective calls."""

    def __init__(self, model: ToyModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, noisy: Tensor, sigma: Tensor, captions: Tensor, mask: Tensor) -> Tensor:
        return self.model(noisy, self.model.context(captions, mask), sigma)


class Captions(nn.Module):
    def __init__(self, model: ToyModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, captions: Tensor, mask: Tensor) -> Tensor:
        kept = self.model.caption.weight.dtype
        return self.model.context(captions.to(kept), mask.to(kept)).float()


class Denoiser(Captions):
    def forward(self, noisy: Tensor, context: Tensor, sigma: Tensor) -> Tensor:  # type: ignore[override]
        kept = self.model.caption.weight.dtype
        return self.model(noisy.to(kept), context.to(kept), sigma.to(kept)).float()


class Decoder(Captions):
    def forward(self, latents: Tensor) -> Tensor:  # type: ignore[override]
        return self.model.decode(latents.to(self.model.caption.weight.dtype)).flatten(1).float()


def load(base: Path) -> ToyModel:
    if not (base / WEIGHTS).is_file():
        raise BaseModelError(f"{base}: no {WEIGHTS}")
    model = ToyModel()
    model.load_state_dict(load_file(base / WEIGHTS))
    return model.eval()


@dataclass(frozen=True)
class ToyEncoders:
    base: Path
    fingerprint: str

    def keys(self, jobs: Sequence[FeatureJob]) -> list[dict[str, str]]:
        return [
            {
                LATENTS: content_key(LATENTS, self.fingerprint, job.audio_sha256),
                "caption": content_key("caption", job.caption),
            }
            for job in jobs
        ]

    def listen(self, audio: Decoded, kinds: Collection[str]) -> dict[str, np.ndarray]:
        mono = torch.from_numpy(audio.samples).mean(dim=0)
        frames = mono[: len(mono) // FRAME * FRAME].view(-1, FRAME)
        with torch.no_grad():
            return {kind: (frames @ load(self.base).decode.weight).numpy() for kind in kinds}

    def read(self, kind: str, job: FeatureJob) -> tuple[np.ndarray, Mapping[str, str]]:
        return words_of(job.caption), {}


@dataclass(frozen=True)
class ToyObjective:
    model: Callable[..., Any]
    device: torch.device

    def losses(self, items: Sequence[Item]) -> Tensor:
        sigma = torch.tensor([item.sigma for item in items])
        clean, noise = (pad_sequence(list(part), batch_first=True) for part in zip(*map(_pair, items), strict=True))
        captions = pad_sequence([item.conditions["caption"] for item in items], batch_first=True)
        mask = pad_sequence([item.conditions["mask"] for item in items], batch_first=True)
        share = sigma[:, None, None]
        error = (self.model(share * noise + (1 - share) * clean, sigma, captions, mask) - (noise - clean)).square()
        frames = torch.tensor([len(item.latents) for item in items])
        real = (torch.arange(clean.shape[1])[None] < frames[:, None])[..., None]
        return (error * real).sum(dim=(1, 2)) / (frames * CHANNELS)


def _pair(item: Item) -> tuple[Tensor, Tensor]:
    return item.latents, item.noise


@dataclass(frozen=True)
class ToySize:
    latents: LatentShape
    parts: Mapping[str, int]
    adapter: int
    rank: int
    decoder: int = CHANNELS * FRAME
    layers: int = BLOCKS
    largest_block: int = 2 * WIDTH * (WIDTH + 1)
    download_bytes: int = 0

    @property
    def adapter_evened(self) -> int:
        return self.adapter

    def decoding(self, seconds: float, *, on_gpu: bool) -> Amount:
        return Amount(4.0 * seconds * RATE, "samples")

    def block_activations(self, step: StepShape) -> Amount:
        return Amount(4.0 * step.frames * step.batch_size * 3 * WIDTH, "three states")

    def block_inputs(self, step: StepShape) -> Amount:
        return Amount(4.0 * step.frames * step.batch_size * WIDTH * BLOCKS, "one state a block")

    def other_activations(self, step: StepShape) -> Amount:
        return Amount(4.0 * step.tokens["caption"] * step.batch_size * WIDTH, "captions")

    def gradients_under_way(self, step: StepShape) -> float:
        return 4.0 * step.frames * step.batch_size * WIDTH

    def operations(self, step: StepShape, *, recomputed: bool) -> float:
        return (8.0 if recomputed else 6.0) * BLOCKS * self.largest_block * step.frames * step.batch_size

    def cached_conditions(self, tokens: Mapping[str, int]) -> Amount:
        return Amount(4.0 * tokens["caption"] * WORD, "words")


@dataclass(frozen=True)
class ToySampler:
    model: ToyModel

    @contextmanager
    def adapted(self, weights: Path) -> Iterator[None]:
        before = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        with safe_open(weights, framework="pt") as file:
            for name in (name for name in file.keys() if ".lora_A." in name):  # noqa: SIM118
                down, up = file.get_tensor(name), file.get_tensor(name.replace(".lora_A.", ".lora_B."))
                target = self.model.get_submodule(name.removeprefix("model.").partition(".lora_A.")[0])
                assert isinstance(target, nn.Linear)
                target.weight.data += up @ down
        try:
            yield
        finally:
            self.model.load_state_dict(before)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        lyrics: Sequence[str],
        seconds: float,
        seeds: Sequence[int],
        steps: int,
        guidance_scale: float,
    ) -> np.ndarray:
        captions, mask = _padded(prompts)
        with torch.no_grad():
            context = self.model.context(torch.from_numpy(captions), torch.from_numpy(mask))
            made = [
                integrate(self.model, context[index, None], frames=TOY.frames(seconds), seed=seed, steps=steps)
                for index, seed in enumerate(seeds)
            ]
            audio = self.model.decode(torch.cat(made)).flatten(1).clamp(-1, 1)
        return stereo(audio.numpy(), seconds)


def integrate(model: ToyModel, context: Tensor, *, frames: int, seed: int, steps: int) -> Tensor:
    """Euler from noise to latents (1, T, 4)."""
    sample = torch.from_numpy(noise(seed, frames))[None]
    for now, later in sigmas(steps):
        sample = sample + (later - now) * model(sample, context, torch.tensor([now]))
    return sample


def sigmas(steps: int) -> list[tuple[float, float]]:
    table = np.linspace(1, 0, steps + 1).tolist()
    return list(pairwise(table))


def noise(seed: int, frames: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((frames, CHANNELS)).astype(np.float32)


def stereo(audio: np.ndarray, seconds: float) -> np.ndarray:
    """(B, n) -> (B, 2, seconds), zeros behind what was made."""
    wanted = round(seconds * RATE)
    return np.repeat(np.pad(audio, ((0, 0), (0, max(0, wanted - audio.shape[1]))))[:, None, :wanted], 2, axis=1)


def _padded(prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    words = [words_of(prompt) for prompt in prompts]
    captions = np.zeros((len(words), max(map(len, words)), WORD), np.float32)
    mask = np.zeros(captions.shape[:2], np.float32)
    for row, found in enumerate(words):
        captions[row, : len(found)], mask[row, : len(found)] = found, 1
    return captions, mask


@dataclass(frozen=True)
class ToyRuntime:
    folder: Path
    cpu_profile: bool

    def session(self, component: str) -> Any:
        import onnxruntime

        own = self.folder / f"{component}.cpu.onnx"
        path = own if self.cpu_profile and own.is_file() else self.folder / f"{component}.onnx"
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def generate(
        self,
        prompts: Sequence[str],
        *,
        seconds: float,
        seeds: Sequence[int],
        lyrics: Sequence[str],
        steps: int,
        guidance_scale: float,
    ) -> np.ndarray:
        captions, mask = _padded(prompts)
        (context,) = self.session("captions").run(None, {"captions": captions, "mask": mask})
        sample, denoiser = np.stack([noise(seed, TOY.frames(seconds)) for seed in seeds]), self.session("denoiser")
        for now, later in sigmas(steps):
            given = {"noisy": sample, "context": context, "sigma": np.full(len(sample), now, np.float32)}
            sample = sample + np.float32(later - now) * denoiser.run(None, given)[0]
        (audio,) = self.session("decoder").run(None, {"latents": sample})
        return stereo(np.clip(audio, -1, 1), seconds)


class Toy:
    architecture = "toy"
    title = "a toy"
    hub_tag = "toy"
    latents = LatentShape((None, CHANNELS), frames_per_second=RATE / FRAME, deviation=0.07)
    feature_kinds: Mapping[str, FeatureKind] = {
        LATENTS: FeatureKind((None, CHANNELS), "latents", heard=True),
        "caption": FeatureKind((None, WORD), "condition"),
    }
    longest_tokens: Mapping[str, int] = {"caption": 64}
    layout = ExportLayout(
        floors={"captions": 8, "denoiser": 4, "decoder": 16},
        denoiser="denoiser",
        protected={
            "decoder": ProtectedPart("decoder", "", 16),
            "caption": ProtectedPart("captions", r"caption\b", 8),
        },
        kept_in_float=r"(proj_in|proj_out|time)\b",
        block=r"blocks\.(\d+)\.",
    )

    def write_tiny(self, folder: Path) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = ToyModel()
        basis, _ = torch.linalg.qr(model.decode.weight.detach())
        model.decode.weight.data = basis.contiguous()
        folder.mkdir(parents=True, exist_ok=True)
        save_file(model.state_dict(), folder / WEIGHTS)

    def base_directory(self, path_or_repo: str, *, revision: str | None) -> Path:
        raise BackboneError("a toy has no place on the Hub")

    def downloaded(self, repo: str, *, revision: str | None) -> Path | None:
        return None

    def fingerprint(self, base: Path) -> str:
        return hashlib.sha256((base / WEIGHTS).read_bytes()).hexdigest()

    def lyric_vocabulary(self, source: str, *, sha256: str, root: Path, downloads: Path) -> Path:
        raise BackboneError("a toy does not sing")

    def encoders(self, base: Path, *, fingerprint: str, **_: Any) -> ToyEncoders:
        return ToyEncoders(base, fingerprint)

    def conditions(self, features: Mapping[str, Tensor]) -> Conditions:
        return {"caption": features["caption"], "mask": torch.ones(len(features["caption"]))}

    def token_counts(self, features: Mapping[str, Tensor]) -> dict[str, int]:
        return {"caption": len(features["caption"])}

    def dropout(self, settings: ObjectiveSettings) -> dict[str, float]:
        return {"all": settings.text_dropout}

    def without(self, conditions: Conditions, groups: Collection[str]) -> Conditions:
        return {**conditions, "mask": conditions["mask"] * 0} if groups else conditions

    def draw_sigma(self, settings: ObjectiveSettings, random: torch.Generator) -> float:
        return float(torch.rand(2, generator=random).max())

    def validation_sigmas(self, settings: ObjectiveSettings, *, levels: int) -> dict[int, float]:
        return {level: (level + 0.5) / levels for level in range(levels)}

    def trainable(
        self, base: Path, settings: ObjectiveSettings, *, dtype: Literal["float32", "bfloat16"], device: str
    ) -> nn.Module:
        trained = Trained(load(base))
        trained.model.recompute = settings.gradient_checkpointing
        return trained.to(device, getattr(torch, dtype))

    def blocks(self, model: nn.Module) -> Sequence[nn.Module]:
        return list(model.get_submodule("model.blocks").children())

    def quantizable(self, name: str) -> bool:
        return ".blocks." in name

    def objective(
        self, model: Callable[..., Any], settings: ObjectiveSettings, *, dtype: torch.dtype, device: torch.device
    ) -> ToyObjective:
        return ToyObjective(model, device)

    def size(self, base: Path | None, *, rank: int, adapt: Callable[[nn.Module], int]) -> ModelSize:
        with torch.device("meta"):
            model = Trained(ToyModel())
        parts = {"attention": 0, "other": 0}
        for name, tensor in model.named_parameters():
            parts["attention" if ".blocks." in name else "other"] += prod(tensor.shape)
        return ToySize(self.latents, parts, adapt(model), rank)

    def frames(self, seconds: float) -> int:
        return int(seconds * RATE) // FRAME

    def decoder(self, base: Path, *, device: str) -> Callable[[Tensor], np.ndarray]:
        model = load(base)

        def decode(latents: Tensor) -> np.ndarray:
            with torch.no_grad():
                return np.repeat(model.decode(latents).reshape(1, -1).clamp(-1, 1).numpy(), 2, axis=0)

        return decode

    def sample_latents(
        self, model: Any, conditions: Conditions, *, frames: int, seed: int, steps: int, guidance_scale: float, **_: Any
    ) -> Tensor:
        context = model.model.context(conditions["caption"][None], conditions["mask"][None])
        return integrate(model.model, context, frames=frames, seed=seed, steps=steps)[0]

    def sampler(
        self,
        base: Path,
        *,
        device: str,
        vocabulary: Path | None = None,
        precision: Precision = FLOAT32,
        cuda_graphs: bool = False,
    ) -> ToySampler:
        assert precision == FLOAT32 and not cuda_graphs
        return ToySampler(load(base))

    def mergeable(self, base: Path) -> nn.Module:
        return Trained(load(base))

    def velocity_probe(self, model: nn.Module) -> Callable[[nn.Module], Tensor]:
        random = torch.Generator().manual_seed(0)
        inputs = [torch.randn(size, generator=random) for size in ((2, 9, CHANNELS), (2,), (2, 3, WORD))]

        def velocity(changed: nn.Module) -> Tensor:
            with torch.no_grad():
                found: Tensor = changed(*inputs, torch.ones(2, 3))
            return found

        return velocity

    def write_merged(self, model: nn.Module, base: Path, folder: Path, *, vocabulary: Path | None) -> None:
        merged: Any = model
        save_file(merged.model.state_dict(), folder / WEIGHTS)

    def exportable(self, component: str, merged: Path) -> Exportable:
        model, batch, frames = load(merged).requires_grad_(False), {0: "batch"}, {0: "batch", 1: "frames"}
        words, context = {0: "batch", 1: "words"}, torch.zeros(2, WIDTH)
        latents, mask, captions = torch.zeros(2, 7, CHANNELS), torch.ones(2, 3), torch.zeros(2, 3, WORD)
        if component == "captions":
            free = {"captions": words, "mask": words}
            return Exportable(Captions(model), {"captions": captions, "mask": mask}, ("context",), free)
        if component == "decoder":
            return Exportable(Decoder(model), {"latents": latents}, ("audio",), {"latents": frames})
        inputs = {"noisy": latents, "context": context, "sigma": torch.ones(2)}
        return Exportable(Denoiser(model), inputs, ("velocity",), {"noisy": frames, "context": batch, "sigma": batch})

    def unadapted_files(self, component: str, merged: Path) -> tuple[Path, ...]:
        return ()

    def tokenizers(self, merged: Path) -> dict[str, Path]:
        return {}

    def runtime(
        self, folder: Path, *, cpu_profile: bool = True, device: str = "cpu", threads: int | None = None
    ) -> ToyRuntime:
        return ToyRuntime(folder, cpu_profile)

    def release_runtime(self) -> ReleaseRuntime:
        raise BackboneError("a toy is not released")

    def probes(self, runtime: Runtime) -> list[Probe]:
        captions, mask = _padded(["lofi rain", "piano"])
        asked: list[tuple[str, dict[str, np.ndarray]]] = [("captions", {"captions": captions, "mask": mask})]
        latents = np.stack([noise(seed, 12) for seed in range(2)])
        context = runtime.session("captions").run(None, asked[0][1])[0]
        for sigma in (0.9, 0.4):
            given = {"noisy": latents, "context": context, "sigma": np.full(2, sigma, np.float32)}
            asked.append(("denoiser", given))
        asked.append(("decoder", {"latents": latents}))
        return [Probe(name, given, runtime.session(name).run(None, given)[0]) for name, given in asked]

    def stress(self, runtime: Runtime) -> list[Probe]:
        made = []
        for probe in self.probes(runtime):
            large = {name: 2 * value if name in ("noisy", "latents") else value for name, value in probe.inputs.items()}
            made.append(Probe(probe.component, large, runtime.session(probe.component).run(None, large)[0]))
        return made


TOY = Toy()
