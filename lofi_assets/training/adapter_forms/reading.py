"""A LoRA file read as what its form says, and held against the base; nothing of it is guessed."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lofi_assets.backbones import Backbone
from lofi_assets.training.adapter_forms.adapter import Adapter, AdapterError, Layers, Pair, Settings
from lofi_assets.training.adapter_forms.names import Names, resolve
from lofi_assets.training.adapter_forms.source import Source, find_source, opened, quoted
from lofi_assets.training.adapter_forms.strength import expect_plain, header_settings, scales

if TYPE_CHECKING:
    from torch import Tensor, nn

MAX_RANK = 4096
DTYPES = ("F32", "F16", "BF16", "F64")
"""Of matrices; integers and 8 bits are no LoRA."""
_SAID = ("modelspec.", "ss_", "trained_words", "title", "author", "license")
"""Beginnings of header fields that people fill in."""
_MOST_SAID = 20


def layers_of(backbone: Backbone, base: Path | None) -> dict[str, tuple[int, ...]]:
    """The layers of a base that an adapter can be on, with the shapes of their weights; reads no weight.

    Args:
        base: its folder; None: the published model of the family.
    Raises:
        BaseModelError: the folder holds no such model.
    """
    from torch import nn

    found: dict[str, tuple[int, ...]] = {}

    def note(model: "nn.Module") -> int:
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv1d) and module.groups == 1):
                found[name] = tuple(module.weight.shape)
        return 0

    backbone.size(base, rank=1, adapt=note)
    return found


def read_lora(path: Path, layers: Layers, *, strength: float | None = None) -> Adapter:
    """A LoRA in any of the known forms (`adapter_forms`).

    Args:
        path: file, or folder of a LoRA.
        layers: of the base that it is for (`layers_of`).
        strength: factor on B A for every layer, in place of what the file says.
    Raises:
        AdapterError: see there; no tensor is read before all names and shapes are as they must be.
    """
    if strength is not None and not math.isfinite(strength):
        raise AdapterError(f"strength is {strength}; it must be a finite number")
    source = find_source(path)
    where = str(source.weights)
    with opened(source.weights) as file:
        metadata: dict[str, str] = file.metadata() or {}
        names = resolve(file.keys(), layers, where=where)
        _expect_shapes(file, names, layers, where=where)
        ranks = {layer: int(file.get_slice(names.parts[layer, "down"]).get_shape()[0]) for layer in names.layers}
        header = header_settings(metadata, where=where)
        for settings in filter(None, (source.settings, header)):
            expect_plain(settings, where=where)
        _expect_whole_dora(names, source, header)
        factors, said = dict.fromkeys(ranks, strength or 0.0), "as asked for"
        if strength is None:
            factors, said = _strength(file, names, ranks, source, header)
        pairs = {
            layer: _pair(file, names, layer, layers[layer], scale=factors[layer], where=where) for layer in names.layers
        }
    told = {key: value for key, value in metadata.items() if key.startswith(_SAID)}
    named_base = (source.settings or {}).get("base_model_name_or_path")
    if isinstance(named_base, str) and named_base:
        told["base_model_name_or_path"] = named_base
    return Adapter(
        form=names.form,
        pairs=pairs,
        strength=said,
        sha256=source.sha256,
        files=source.files,
        said={quoted(key)[1:-1]: quoted(value)[1:-1] for key, value in sorted(told.items())[:_MOST_SAID]},
    )


def _strength(
    file: Any, names: Names, ranks: Mapping[str, int], source: Source, header: Settings | None
) -> tuple[dict[str, float], str]:
    where = str(source.weights)
    alphas = {
        layer: float(_read(file, key, where=where)) for (layer, part), key in names.parts.items() if part == "alpha"
    }
    return scales(
        names.form,
        ranks,
        alphas=alphas,
        config=source.settings,
        header=header,
        where=where,
    )


def _expect_shapes(file: Any, names: Names, layers: Layers, *, where: str) -> None:
    """Refuse, from the header alone, a tensor that does not fit its layer."""
    for (layer, part), key in names.parts.items():
        piece = file.get_slice(key)
        shape, dtype = tuple(piece.get_shape()), piece.get_dtype()
        outputs, *inputs = layers[layer]
        if dtype not in DTYPES:
            raise AdapterError(f"{where}: {quoted(key)} is {dtype}; a LoRA has {', '.join(DTYPES)}")
        down = tuple(file.get_slice(names.parts[layer, "down"]).get_shape())
        rank = down[0] if down else 0
        fits = {
            "down": 0 < rank <= MAX_RANK and math.prod(shape[1:]) == math.prod(inputs) and len(shape) >= 2,
            "up": shape[:2] == (outputs, rank) and math.prod(shape[2:]) == 1,
            "magnitude": shape == (outputs,),
            "alpha": math.prod(shape) == 1,
        }[part]
        if not fits:
            raise AdapterError(
                f"{where}: {quoted(key)} has the shape {shape}, which does not fit {layer} of this base "
                f"({outputs} outputs, {' x '.join(map(str, inputs))} inputs, rank {rank} of at most {MAX_RANK})"
            )


def _expect_whole_dora(names: Names, source: Source, header: Settings | None) -> None:
    """Refuse magnitudes on some layers only, or where the settings say otherwise than the tensors."""
    has = {layer for layer, part in names.parts if part == "magnitude"}
    settings = source.settings or header or {}
    said = settings.get("use_dora", bool(has))
    if (has and has != set(names.layers)) or bool(said) != bool(has):
        raise AdapterError(
            f"{source.weights}: {len(has)} of {len(names.layers)} layers have a DoRA's magnitude, and its settings say "
            f"use_dora {quoted(str(said))}; a DoRA has one for each layer"
        )


def _pair(file: Any, names: Names, layer: str, shape: tuple[int, ...], *, scale: float, where: str) -> Pair:
    down = _read(file, names.parts[layer, "down"], where=where)
    up = _read(file, names.parts[layer, "up"], where=where)
    magnitude = names.parts.get((layer, "magnitude"))
    return Pair(
        down=down.reshape(down.shape[0], *shape[1:]).contiguous(),
        up=up.reshape(shape[0], down.shape[0], *(1 for _ in shape[2:])).contiguous(),
        scale=scale,
        magnitude=_read(file, magnitude, where=where) if magnitude else None,
    )


def _read(file: Any, key: str, *, where: str) -> "Tensor":
    """A tensor in float32; AdapterError for a number that is none."""
    tensor: Tensor = file.get_tensor(key).float()
    if not bool(tensor.isfinite().all()):
        raise AdapterError(f"{where}: {quoted(key)} holds a number that is not finite")
    return tensor
