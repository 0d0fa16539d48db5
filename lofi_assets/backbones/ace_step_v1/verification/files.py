"""Whether the weight files of a base model are what its config.json files say, and what was published.

Names, shapes, precisions, parameter counts and finite numbers are read tensor by tensor, so that 8 GB of weights need
no more memory than their largest tensor. No model is run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.filesize import decimal
from safetensors import SafetensorError, safe_open
from torch import nn

from lofi_assets.backbones.ace_step_v1.loading import DCAE, FOLDERS, TEXT_ENCODER, TRANSFORMER, VOCODER
from lofi_assets.backbones.ace_step_v1.transformer import DEAD_WEIGHTS, ACEStepTransformer2DModel
from lofi_assets.backbones.ace_step_v1.vocoder import ADaMoSHiFiGANV1

PUBLISHED_PARAMETERS = {
    TRANSFORMER: 3_305_659_264,
    DCAE: 156_812_426,
    VOCODER: 103_005_138,
    TEXT_ENCODER: 281_861_376,
}
"""Of ACE-Step/ACE-Step-v1-3.5B; the sizes of its files agree with them to 0.01 %."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
PRECISIONS = {"F64", "F32", "F16", "BF16"}
SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, in words that a person acts on."""

    component: str
    passed: bool
    text: str


@dataclass(frozen=True)
class WeightFiles:
    """A component's files, read as far as their headers."""

    component: str
    shapes: dict[str, tuple[int, ...]]
    """Tensor name -> shape, over all files."""
    precisions: dict[str, str]
    """Tensor name -> safetensors' name of its type."""
    places: dict[str, Path]
    """Tensor name -> file."""
    size: int
    """Bytes of all files."""


@dataclass(frozen=True)
class ComponentReport:
    """What was found in one folder."""

    component: str
    findings: tuple[Finding, ...]
    published: bool = False
    """config.json describes a model of the published size."""
    half: bool = False
    """Stored in 16 bits."""

    @property
    def passed(self) -> bool:
        """Nothing is wrong with it."""
        return all(finding.passed for finding in self.findings)


def check_component(directory: Path, component: str) -> ComponentReport:
    """Everything that can be said of a component without running it; the first fault ends it.

    Args:
        directory: base model in the Hub's layout.
        component: one of `backbones.ace_step_v1.loading.FOLDERS`.
    """
    folder = directory / component
    try:
        model = _described(folder)
        files = _read_headers(folder)
    except _Fault as fault:
        return ComponentReport(component, (Finding(component, False, str(fault)),))
    count = sum(parameter.numel() for parameter in model.parameters())
    published = count == PUBLISHED_PARAMETERS[component]
    findings = [_fits(model, files), _precision(files), _numbers(files)]
    if all(finding.passed for finding in findings):
        findings.append(_size(component, count))
    half = Counter(files.precisions.values()).most_common(1)[0][0] in ("F16", "BF16")
    return ComponentReport(component, tuple(findings), published, half)


class _Fault(ValueError):
    """A component that cannot be read at all."""


def _described(folder: Path) -> nn.Module:
    """The model that config.json describes, without memory for its tensors."""
    if not folder.is_dir():
        raise _Fault(f"the folder {folder} is missing; a base model has {', '.join(FOLDERS)}")
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
        with torch.device("meta"):
            return _BUILDERS[folder.name](folder)
    except OSError as error:
        raise _Fault(f"{folder / 'config.json'} cannot be read: {error}; fetch the folder again") from error
    except Exception as error:
        # Each library has its own errors for a value that makes no model.
        raise _Fault(
            f"{folder / 'config.json'} describes no model of this kind ({type(error).__name__}: {error}); "
            "fetch the folder again"
        ) from error


def _transformer(folder: Path) -> nn.Module:
    model: nn.Module = ACEStepTransformer2DModel.from_config(ACEStepTransformer2DModel.load_config(str(folder)))
    return model


def _dcae(folder: Path) -> nn.Module:
    from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC

    model: nn.Module = AutoencoderDC.from_config(AutoencoderDC.load_config(str(folder)))
    return model


def _vocoder(folder: Path) -> nn.Module:
    model: nn.Module = ADaMoSHiFiGANV1.from_config(ADaMoSHiFiGANV1.load_config(str(folder)))
    return model


def _text_encoder(folder: Path) -> nn.Module:
    from transformers import UMT5Config, UMT5EncoderModel

    encoder: nn.Module = UMT5EncoderModel(UMT5Config.from_pretrained(str(folder), local_files_only=True))
    return encoder


_BUILDERS: dict[str, Callable[[Path], nn.Module]] = {
    TRANSFORMER: _transformer,
    DCAE: _dcae,
    VOCODER: _vocoder,
    TEXT_ENCODER: _text_encoder,
}


def _read_headers(folder: Path) -> WeightFiles:
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        pickles = [path.name for path in sorted(folder.iterdir()) if path.suffix in PICKLES]
        found = f"only {', '.join(pickles)}, a pickle, which can run code and is never loaded" if pickles else "none"
        raise _Fault(f"{folder}: no weights in safetensors ({found}); fetch the .safetensors file")
    shapes: dict[str, tuple[int, ...]] = {}
    precisions: dict[str, str] = {}
    places: dict[str, Path] = {}
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (not a mapping)
                    part = file.get_slice(name)
                    shapes[name], precisions[name], places[name] = tuple(part.get_shape()), part.get_dtype(), path
        except (SafetensorError, OSError) as error:
            raise _Fault(f"{path} is damaged or cut short ({error}); fetch it again") from error
    if not shapes:
        raise _Fault(f"{folder}: the weight file holds no tensor; fetch it again")
    return WeightFiles(folder.name, shapes, precisions, places, sum(path.stat().st_size for path in paths))


def _fits(model: nn.Module, files: WeightFiles) -> Finding:
    """Every tensor of the model is in the files in its shape, and nothing else is."""
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    once = _stored_once(model)
    missing = [names[0] for names in once if files.shapes.keys().isdisjoint(names)]
    unknown = [name for name in files.shapes if name not in wanted]
    reshaped = [name for name in files.shapes if name in wanted and wanted[name] != files.shapes[name]]
    faults = []
    if missing:
        faults.append(f"lacks {len(missing)} of the {len(once)} tensors that config.json asks for: {_some(missing)}")
    if unknown:
        faults.append(f"holds {len(unknown)} tensors that config.json has no place for: {_some(unknown)}")
    if reshaped:
        shown = (f"{name} is {files.shapes[name]} instead of {wanted[name]}" for name in reshaped)
        faults.append(f"has {len(reshaped)} tensors in another shape than config.json says: {_some(shown)}")
    if faults:
        remedy = "Then config.json is of another model" if unknown or reshaped else "The file is incomplete"
        return Finding(files.component, False, f"the weight file {'; it '.join(faults)}. {remedy}; fetch both again")
    text = f"{len(files.shapes)} tensors, each in the name and shape that config.json asks for"
    dead = [name for name in files.shapes if DEAD_WEIGHTS.search(name)] if files.component == TRANSFORMER else []
    if dead:
        parameters = sum(torch.Size(files.shapes[name]).numel() for name in dead)
        text += f"; {len(dead)} of them ({parameters:,} parameters) are read by no forward pass and are dropped on load"
    return Finding(files.component, True, text)


def _stored_once(model: nn.Module) -> list[list[str]]:
    """The names of each tensor of the state dict: a tied parameter has several, and a file one of them."""
    names: dict[int, list[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    return list(names.values())


def _precision(files: WeightFiles) -> Finding:
    counts = Counter(files.precisions.values())
    strange = sorted(counts.keys() - PRECISIONS)
    listed = ", ".join(f"{count} in {name}" for name, count in counts.most_common())
    if strange:
        return Finding(files.component, False, f"precision: {listed}; {', '.join(strange)} is no floating-point weight")
    return Finding(files.component, True, f"precision: {listed}; {decimal(files.size)} on disk")


def _numbers(files: WeightFiles) -> Finding:
    """Every number is finite."""
    for path in sorted(set(files.places.values())):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                wrong = int((~torch.isfinite(file.get_tensor(name))).sum())
                if wrong:
                    text = f"{path.name}: {name} holds {wrong} numbers that are not finite; fetch the file again"
                    return Finding(files.component, False, text)
    return Finding(files.component, True, "every number is finite")


def _size(component: str, count: int) -> Finding:
    published = PUBLISHED_PARAMETERS[component]
    if count == published:
        return Finding(component, True, f"{count:,} parameters, as published")
    return Finding(component, True, f"{count:,} parameters; the published model has {published:,}: this is another one")


def _some(names: Iterable[str]) -> str:
    listed: Iterator[str] = iter(names)
    shown = [name for _, name in zip(range(SHOWN), listed, strict=False)]
    return ", ".join(shown) + (", ..." if next(listed, None) is not None else "")
