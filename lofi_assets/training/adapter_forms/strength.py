"""How strongly an adapter is applied: alpha / r, alpha / sqrt(r) (arXiv 2312.03732), or what stands elsewhere.

| form | stands in |
|---|---|
| peft | adapter_config.json: lora_alpha, use_rslora, rank_pattern, alpha_pattern |
| comfyui | `<layer>.alpha` / rank; 1 where a layer has none |
| ace_step, diffusers | the header's `lora_adapter_metadata`, as diffusers reads it; without one nowhere, and 1 |

ACE-Step's own pipeline and ComfyUI apply the third at 1 even where the header says what it was trained at. A file that
says two different things is refused.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from lofi_assets.training.adapter_forms.adapter import AdapterError, Form, Settings
from lofi_assets.training.adapter_forms.source import as_settings, quoted
from lofi_assets.training.checkpoints.files import ADAPTER_METADATA, PEFT_CONFIG
from lofi_assets.training.layer_patterns import is_readable, matched

NOT_SAID = "the file does not say; its readers apply it at 1"
REMEDY = "say how strongly to apply it: --strength"
NEUTRAL: Mapping[str, Any] = {"peft_type": "LORA", "bias": "none"}
"""Fields that decide what is computed, with the one value that is read."""
OF_TRAINING = frozenset(
    {
        *("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "use_dora"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "base_model_name_or_path"),
        *("revision", "task_type", "inference_mode", "peft_version", "auto_mapping", "lora_dropout", "runtime_config"),
        *("megatron_core", "megatron_config", "qalora_group_size", "eva_config", "loftq_config", "ensure_weight_tying"),
    }
)
"""Fields that say how it was trained, or that are read here; any other has to be without effect (peft 0.21.2)."""
PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")
"""`init_lora_weights` that leave the base's weights as they are; pissa, olora, corda and loftq take something out of
them, so that the adapter belongs to another base than the published one."""
_AGREE = 1e-6


def scales(
    form: Form,
    ranks: Mapping[str, int],
    *,
    alphas: Mapping[str, float],
    config: Settings | None,
    header: Settings | None,
    where: str,
) -> tuple[dict[str, float], str]:
    """Factor of every layer, and where it comes from, for people.

    Args:
        ranks: layer -> rank of its matrices.
        alphas: layer -> its `.alpha`.
        config: PEFT's adapter_config.json.
        header: `lora_adapter_metadata` of the file.
    Raises:
        AdapterError: PEFT's configuration is absent, a configuration asks for what is not read, or two places differ.
    """
    if form == "peft" and config is None and header is None:
        raise AdapterError(f"{where}: {PEFT_CONFIG} is absent beside it, where its strength stands; {REMEDY}")
    told: dict[str, dict[str, float]] = {}
    if config is not None:
        told[PEFT_CONFIG] = _configured(config, ranks, where=where)
    if alphas:
        told["its .alpha tensors"] = {layer: alphas.get(layer, rank) / rank for layer, rank in ranks.items()}
    if header is not None:
        told["its header"] = _configured(header, ranks, where=f"{where}, {ADAPTER_METADATA}")
    if header is not None and form == "comfyui" and not alphas:
        told["ComfyUI, without .alpha,"] = dict.fromkeys(ranks, 1.0)
    if not told:
        return dict.fromkeys(ranks, 1.0), NOT_SAID
    (first, found), *others = told.items()
    for other, values in others:
        for layer, value in values.items():
            if not math.isclose(value, found[layer], rel_tol=_AGREE, abs_tol=0):
                raise AdapterError(
                    f"{where}: {first} say{'' if first.endswith('tensors') else 's'} {found[layer]:g} for {layer}, "
                    f"{other} {value:g}; {REMEDY}"
                )
    return found, first


def header_settings(metadata: Mapping[str, str], *, where: str) -> Settings | None:
    """The LoraConfig in a file's header; diffusers' pipelines put the component in front of every field.

    Raises:
        AdapterError: it is no JSON object.
    """
    text = metadata.get(ADAPTER_METADATA)
    if text is None:
        return None
    data = as_settings(text, where=f"{where}, {ADAPTER_METADATA}")
    plain = {name.removeprefix("ace_step_").removeprefix("transformer."): value for name, value in data.items()}
    return plain


def _configured(config: Settings, ranks: Mapping[str, int], *, where: str) -> dict[str, float]:
    if "r" not in config or "lora_alpha" not in config:
        raise AdapterError(f"{where}: lacks r or lora_alpha, so that its strength is unknown; {REMEDY}")
    rank, alpha = _number(config, "r", where), _number(config, "lora_alpha", where)
    rank_pattern, alpha_pattern = _patterns(config, "rank_pattern", where), _patterns(config, "alpha_pattern", where)
    rooted = config.get("use_rslora", False)
    if not isinstance(rooted, bool):
        raise AdapterError(f"{where}: use_rslora is {quoted(str(rooted))}, not true or false")
    found = {}
    for layer, has in ranks.items():
        said = matched(rank_pattern, layer, rank)
        if said != has:
            raise AdapterError(f"{where}: says rank {said:g} for {layer}, whose matrices have rank {has}")
        found[layer] = matched(alpha_pattern, layer, alpha) / (math.sqrt(has) if rooted else has)
    return found


def expect_plain(config: Settings, *, where: str) -> None:
    """Refuse what would be computed otherwise than W + scale * B A, however strongly.

    Raises:
        AdapterError: naming the field.
    """
    for name, wanted in NEUTRAL.items():
        if config.get(name, wanted) != wanted:
            raise AdapterError(f"{where}: {name} is {quoted(str(config[name]))}; only {wanted!r} is read")
    start = config.get("init_lora_weights", True)
    if start not in PLAIN_STARTS:
        raise AdapterError(
            f"{where}: init_lora_weights is {quoted(str(start))}, which changes the base too, so that it belongs to "
            "another base than this; convert it to a plain LoRA with peft (save_pretrained, path_initial_model_for_...)"
        )
    for name, value in config.items():
        if name not in OF_TRAINING and name not in NEUTRAL and name != "init_lora_weights" and value:
            raise AdapterError(f"{where}: {quoted(name)} is {quoted(json.dumps(value)[:80])}, which is not read")


def _number(config: Settings, name: str, where: str) -> float:
    return _finite(config.get(name), f"{where}: {name}")


def _patterns(config: Settings, name: str, where: str) -> dict[str, float]:
    patterns = config.get(name) or {}
    if not isinstance(patterns, dict):
        raise AdapterError(f"{where}: {name} is no object")
    for pattern in patterns:
        if not is_readable(pattern):
            raise AdapterError(f"{where}: {name} has {quoted(pattern)}; only names, `.*` and `\\d+` are read")
    return {pattern: _finite(value, f"{where}: {name}") for pattern, value in patterns.items()}


def _finite(value: object, what: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:  # JSON knows whole numbers of any size
        number = math.inf
    if not 0 <= number < math.inf:
        raise AdapterError(f"{what} is {quoted(str(value))}, no number from 0 on")
    return number
