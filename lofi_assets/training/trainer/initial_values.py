"""The values that a run's adapter starts from: those of another LoRA, with the same effect on the model.

What belongs here: from the pairs of a file to the parameters of the adapter that is trained. What does not: reading
the file (`adapter_forms`), taking it in (`training.initial`).
"""

from collections.abc import Mapping
from typing import Any

import torch

from lofi_assets.training.adapter_forms.adapter import Adapter, AdapterError, Pair
from lofi_assets.training.adapter_forms.reading import layers_of, read_lora
from lofi_assets.training.config import ConfigError, TrainingRun
from lofi_assets.training.trainer.adapters import ADAPTER
from lofi_assets.wording import named

Parameters = Mapping[str, torch.nn.Parameter]


def start_from(model: torch.nn.Module, parameters: Parameters, run: TrainingRun) -> None:
    """Give a fresh adapter the values of what the run starts from; the model then computes what it computes with that.

    A smaller rank is filled up with fresh rows of A and zero columns of B. Layers that only the run adapts start from
    the base.

    Args:
        model: with the adapter on it, not yet wrapped.
        parameters: of the adapter, by the names of `adapters.trainable`.
    Raises:
        ConfigError: the copy is gone or another file, it has layers or a rank that the run has not, or one is a DoRA.
    """
    assert run.initial is not None
    try:
        adapter = read_lora(run.initial.folder, layers_of(run.backbone, run.base), strength=run.initial.strength)
    except AdapterError as error:
        raise ConfigError(f"initial: {error}") from error
    if adapter.sha256 != run.initial.sha256:
        raise ConfigError(
            f"initial: {run.initial.folder} is not the LoRA that the run starts from (sha256 {adapter.sha256[:12]}, "
            f"recorded {run.initial.sha256[:12]}); restore it from a copy"
        )
    _expect_fit(adapter, parameters, run)
    with torch.no_grad():
        for layer, pair in adapter.pairs.items():
            module: Any = model.get_submodule(layer)
            _start(layer, pair, parameters, scale=float(module.scaling[ADAPTER]))


def _start(layer: str, pair: Pair, parameters: Parameters, *, scale: float) -> None:
    down, up = parameters[f"{layer}.lora_A.weight"], parameters[f"{layer}.lora_B.weight"]
    up.zero_()
    down[: pair.rank].copy_(pair.down)
    up[:, : pair.rank].copy_(pair.up if pair.scale == scale else pair.up * (pair.scale / scale))
    if pair.magnitude is not None:
        parameters[f"{layer}.lora_magnitude_vector.weight"].copy_(pair.magnitude)


def _expect_fit(adapter: Adapter, parameters: Parameters, run: TrainingRun) -> None:
    if adapter.is_dora != run.lora.use_dora:
        has, wants = ("a DoRA", "false") if adapter.is_dora else ("no DoRA", "true")
        raise ConfigError(f"initial: is {has}, and lora.use_dora is {wants}; set it as the LoRA was trained")
    absent = [layer for layer in adapter.pairs if f"{layer}.lora_A.weight" not in parameters]
    if absent:
        raise ConfigError(
            f"initial: adapts {len(absent)} layers that lora.target_modules leaves out, {named(absent)}; add them, or "
            "what it does there would be lost"
        )
    large = {
        layer: rank for layer, rank in adapter.ranks.items() if rank > parameters[f"{layer}.lora_A.weight"].shape[0]
    }
    if large:
        raise ConfigError(
            f"initial: has rank {max(large.values())}, the run's is {_rank(parameters, large)}; set lora.r to at least "
            "that, since a smaller one cannot hold it exactly"
        )


def _rank(parameters: Parameters, layers: Mapping[str, int]) -> int:
    """The smallest rank that the run has in these layers."""
    return min(len(parameters[f"{layer}.lora_A.weight"]) for layer in layers)
