"""The backbone against tensors that upstream's code computed: `verify_reference` for a folder of such files.

The layout is that of the reference README: a JSON configuration beside each safetensors file with `weight.*`, `input.*`
and `output.*`. Modules are built from the JSON, so any sizes do. Upstream's behaviour is compared where the project
offers a better one beside it (padding, the Euler step's mean, the loss mask).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from safetensors.torch import load_file
from torch import Tensor, nn

from lofi_assets.backbones.ace_step_v1 import flow_matching as flow
from lofi_assets.backbones.ace_step_v1.mel import LogMel
from lofi_assets.backbones.ace_step_v1.music_dcae import MusicDCAE
from lofi_assets.backbones.ace_step_v1.sampler import Conditions, sample_latents
from lofi_assets.backbones.ace_step_v1.transformer import ACEStepTransformer2DModel, TransformerOutput
from lofi_assets.backbones.ace_step_v1.vocoder import ADaMoSHiFiGANV1
from lofi_assets.lyrics.tokenizer import LyricTokenizer

APG_SCALE = 15.0
SAMPLER_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Comparison:
    """The largest error of one output.

    Attributes:
        error: largest absolute difference, divided by the reference's standard deviation if `relative`; infinite when
            there is nothing to compare, and then `problem` says why.
    """

    file: str
    output: str
    error: float
    tolerance: float
    relative: bool
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Within the tolerance; a NaN never is."""
        return not self.problem and self.error <= self.tolerance


@dataclass(frozen=True)
class _Part:
    """One file: what its tolerance is, and how to compute each of its outputs from its tensors and configuration."""

    name: str
    tolerance: float
    relative: bool
    compute: Callable[[_Folder], Iterator[tuple[str, Tensor]]]
    inputs: str = r"(weight|input)\."
    tolerances: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Folder:
    directory: Path

    def tensors(self, name: str) -> dict[str, Tensor]:
        return load_file(self.directory / f"{name}.safetensors")

    def config(self, name: str) -> dict[str, Any]:
        config: dict[str, Any] = json.loads((self.directory / f"{name}.json").read_text(encoding="utf-8"))
        return config


def verify_reference(directory: Path) -> list[Comparison]:
    """Compare every output of every file in a reference folder.

    An output that is absent, or that this module does not know, is a failed comparison, as is a file that is missing or
    whose weights do not fit its configuration.
    """
    folder = _Folder(directory)
    results: list[Comparison] = []
    for part in PARTS:
        results += _compare_file(part, folder)
    return results + _compare_lyrics(directory)


def format_comparisons(comparisons: list[Comparison]) -> str:
    """A table, one output a line, and a last line that counts the failures."""
    width = max((len(item.output) for item in comparisons), default=0)
    lines = [_format_line(item, width) for item in comparisons]
    failed = sum(not item.passed for item in comparisons)
    return "\n".join([*lines, f"{len(comparisons)} outputs compared, {failed} outside the tolerance"])


def _format_line(item: Comparison, width: int) -> str:
    verdict = "ok  " if item.passed else "FAIL"
    kind = "of std" if item.relative else "absolute"
    line = f"{verdict} {item.file:<26} {item.output:<{width}} {item.error:9.2e} (limit {item.tolerance:.0e} {kind})"
    return f"{line}  {item.problem}" if item.problem else line


@torch.no_grad()
def _compare_file(part: _Part, folder: _Folder) -> list[Comparison]:
    file = f"{part.name}.safetensors"
    try:
        wanted = {
            name.removeprefix("output."): tensor
            for name, tensor in folder.tensors(part.name).items()
            if not re.match(part.inputs, name)
        }
        computed = dict(part.compute(folder))
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        reason = f"cannot be computed: {type(error).__name__}: {error}"
        return [Comparison(file, "*", math.inf, part.tolerance, part.relative, reason)]
    results = []
    for name in sorted(wanted.keys() | computed.keys()):
        tolerance = next((limit for start, limit in part.tolerances.items() if name.startswith(start)), part.tolerance)
        results.append(_compare(file, name, wanted.get(name), computed.get(name), tolerance, part.relative))
    return results


def _compare(
    file: str, name: str, wanted: Tensor | None, computed: Tensor | None, tolerance: float, relative: bool
) -> Comparison:
    if wanted is None:
        return Comparison(file, name, math.inf, tolerance, relative, "the file lacks this output")
    relative = relative and wanted.is_floating_point()
    if computed is None:
        return Comparison(file, name, math.inf, tolerance, relative, "unknown output: nothing here computes it")
    if computed.squeeze().shape != wanted.squeeze().shape:
        shapes = f"shape {tuple(computed.shape)} instead of {tuple(wanted.shape)}"
        return Comparison(file, name, math.inf, tolerance, relative, shapes)
    error = (computed.reshape(wanted.shape).double() - wanted.double()).abs().max()
    scale = wanted.double().std() if relative else torch.tensor(1.0)
    return Comparison(file, name, float(error / scale), tolerance, relative)


def _load(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    weights = {name.removeprefix("weight."): value for name, value in tensors.items() if name.startswith("weight.")}
    module.load_state_dict(weights)
    module.eval()


class _Transformer:
    """The transformer file: its model and inputs, which the flow-matching file uses as well."""

    def __init__(self, folder: _Folder) -> None:
        self.tensors = folder.tensors("transformer")
        config = folder.config("transformer")
        lyric = config["lyric_encoder"]
        self.model = ACEStepTransformer2DModel(
            **config["transformer"],
            lyric_num_blocks=lyric["num_blocks"],
            lyric_attention_heads=lyric["attention_heads"],
            lyric_linear_units=lyric["linear_units"],
            lyric_output_size=lyric["output_size"],
            mask_aware_padding=False,
        )
        _load(self.model, self.tensors)
        self.conditions = Conditions(
            text_hidden_states=self["encoder_text_hidden_states"],
            text_attention_mask=self["text_attention_mask"],
            speaker_embeds=self["speaker_embeds"],
            lyric_token_ids=self["lyric_token_idx"],
            lyric_mask=self["lyric_mask"],
        )

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[f"input.{name}"]

    def run(self, latents: Tensor, timestep: Tensor) -> TransformerOutput:
        targets = {
            name: [self[f"ssl.{index}.{item}"] for item in range(len(latents))]
            for index, name in enumerate(self.model.config.ssl_names)
        }
        output: TransformerOutput = self.model(
            hidden_states=latents,
            attention_mask=self["attention_mask"],
            timestep=timestep,
            ssl_targets=targets,
            **vars(self.conditions),
        )
        return output


def _transformer_outputs(folder: _Folder) -> Iterator[tuple[str, Tensor]]:
    reference = _Transformer(folder)
    context, mask = reference.model.encode(**vars(reference.conditions))
    yield "encoder_hidden_states", context
    yield "encoder_hidden_mask", mask
    output = reference.run(reference["hidden_states"], reference["timestep"])
    yield "sample", output.sample
    for name, loss in output.projection_losses.items():
        yield f"proj_loss.{name}", loss


def _vocoder_outputs(folder: _Folder) -> Iterator[tuple[str, Tensor]]:
    tensors = folder.tensors("vocoder")
    vocoder = ADaMoSHiFiGANV1(**folder.config("vocoder"))
    _load(vocoder, tensors)
    yield "log_mel", vocoder.encode(tensors["input.wav_44k1"])
    yield "wav", vocoder.decode(tensors["output.log_mel"])


def _music_dcae_outputs(folder: _Folder) -> Iterator[tuple[str, Tensor]]:
    tensors, config = folder.tensors("music_dcae"), folder.config("music_dcae")
    dcae, vocoder = AutoencoderDC(**config.pop("dcae")), ADaMoSHiFiGANV1(**config.pop("vocoder"))
    model = MusicDCAE(dcae, vocoder, **config)
    _load(model, tensors)
    audio = tensors["input.audio_48k"]
    latents, lengths = model.encode(audio, sample_rate=48000)
    yield "latents", latents
    yield "latent_lengths", lengths
    samples = [audio.shape[-1]] * len(audio)
    yield "audio_48k", model.decode(tensors["output.latents"], sample_rate=48000, audio_lengths=samples)
    yield "log_mel_128", LogMel()(tensors["input.wav_44k1"])


def _flow_matching_outputs(folder: _Folder) -> Iterator[tuple[str, Tensor]]:
    tensors = folder.tensors("flow_matching")
    table = flow.training_schedule()
    yield "train_sigmas", table.sigmas
    yield "train_timesteps", table.timesteps
    for name, numbers in _named(tensors, r"(?:sigmas|timesteps)_(\d+)"):
        schedule = flow.inference_schedule(int(numbers[0]))
        yield name, schedule.sigmas if name.startswith("sigmas") else schedule.timesteps
    yield from _guidance_outputs(tensors)
    reference = _Transformer(folder)
    for name, (steps, scale, omega) in _named(tensors, r"sampler\.z_0_(\d+)steps_scale(\d+)_omega(\d+)"):
        yield (
            name,
            sample_latents(
                reference.model,
                reference.conditions,
                noise=tensors["sampler.z_T"],
                steps=int(steps),
                guidance_scale=float(scale),
                omega_scale=float(omega),
                guidance_interval=1.0,
                batch_mean=True,
            ),
        )
    yield from _loss_outputs(tensors, reference, table)


def _guidance_outputs(tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, (steps, omega) in _named(tensors, r"step\.prev_sample_(\d+)steps_first_omega(\d+)"):
        first, second = flow.inference_schedule(int(steps)).sigmas[:2].tolist()
        yield (
            name,
            flow.euler_step(
                tensors["step.sample"],
                tensors["step.model_output"],
                sigma=first,
                sigma_next=second,
                omega=float(omega),
                batch_mean=True,
            ),
        )
    buffer = flow.MomentumBuffer()
    last = 0
    for last in range(len(_named(tensors, r"apg\.cond\.(\d+)"))):
        pair = tensors[f"apg.cond.{last}"], tensors[f"apg.uncond.{last}"]
        yield f"apg.out.{last}", flow.apg(*pair, scale=APG_SCALE, buffer=buffer)
    for name, (step, scale) in _named(tensors, r"cfg_zero_star\.out_i(\d+)_scale(\d+)"):
        pair = tensors[f"apg.cond.{last}"], tensors[f"apg.uncond.{last}"]
        yield name, flow.cfg_zero_star(*pair, scale=float(scale), step=int(step))


def _loss_outputs(
    tensors: dict[str, Tensor], reference: _Transformer, table: flow.Schedule
) -> Iterator[tuple[str, Tensor]]:
    indices, clean = tensors["loss.timestep_indices"], tensors["loss.target_latents"]
    sigmas = table.sigmas[indices]
    noisy = flow.add_noise(clean, tensors["loss.noise"], sigmas)
    output = reference.run(noisy, table.timesteps[indices])
    denoising = flow.denoising_loss(
        output.sample,
        noisy=noisy,
        clean=clean,
        sigmas=sigmas,
        mask=reference["attention_mask"],
        upstream_masking=True,
    ).mean()
    projection = torch.stack(list(output.projection_losses.values())).mean()
    yield "loss.denoising", denoising
    yield "loss.ssl_projection_mean", projection
    yield "loss.total", denoising + projection


def _named(tensors: dict[str, Tensor], pattern: str) -> list[tuple[str, tuple[str, ...]]]:
    """Tensor names that fit a pattern, with the numbers that are written in them."""
    found = [(name, re.fullmatch(pattern, name)) for name in tensors]
    return [(name, match.groups()) for name, match in found if match]


def _compare_lyrics(directory: Path) -> list[Comparison]:
    cases = directory / "lyric_tokens.json"
    if not cases.is_file():
        return []
    vocabulary = directory / "lyric_vocab.json"
    try:
        tokenizer = LyricTokenizer(vocabulary)
        return [_compare_lyric(tokenizer, case) for case in json.loads(cases.read_text(encoding="utf-8"))]
    except Exception as error:
        # tokenizers raises a bare Exception for a vocabulary that is missing or broken
        return [Comparison(cases.name, "*", math.inf, 0.0, False, f"cannot be computed: {error}")]


def _compare_lyric(tokenizer: LyricTokenizer, case: dict[str, Any]) -> Comparison:
    wanted = case["token_ids"]
    computed = tokenizer.encode(case["lyrics"], language=tokenizer.language_of(wanted))
    wrong = sum(a != b for a, b in zip(computed, wanted, strict=False)) + abs(len(computed) - len(wanted))
    label = " / ".join(case["lyrics"].split("\n"))[:40] or "(empty)"
    return Comparison("lyric_tokens.json", label, float(wrong), 0.0, False)


PARTS = (
    _Part("transformer", 1e-4, False, _transformer_outputs),
    _Part("vocoder", 1e-4, True, _vocoder_outputs),
    _Part("music_dcae", 1e-3, True, _music_dcae_outputs),
    _Part(
        "flow_matching",
        1e-4,
        False,
        _flow_matching_outputs,
        inputs=r"(apg\.(un)?cond\.|step\.(sample|model_output)$|sampler\.z_T$|loss\.(noise|target|timestep))",
        tolerances={"sampler.": SAMPLER_TOLERANCE},
    ),
)
