"""What a tensor's name says: which layer of the base, and which part of its adapter.

Conventions: peft `save_pretrained` and `get_peft_model_state_dict` (lora_A, lora_B, lora_magnitude_vector);
diffusers `save_lora_adapter` and `save_lora_weights` (the pipeline's component in front); kohya's and ComfyUI's
`comfy/lora.py` and `comfy/weight_adapter/lora.py` (lora_down, lora_up, alpha, underscores for dots).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from lofi_assets.training.adapter_forms.adapter import AdapterError, Form, Layers
from lofi_assets.training.adapter_forms.source import quoted
from lofi_assets.training.checkpoints.files import PEFT_PREFIX
from lofi_assets.wording import named

Part = Literal["down", "up", "alpha", "magnitude"]
PREFIXES: Mapping[str, Form] = {
    PEFT_PREFIX: "peft",
    "transformer.": "diffusers",
    "ace_step_transformer.": "diffusers",
    "diffusion_model.": "comfyui",
    "lora_unet_": "comfyui",
}
UNDERSCORED = "lora_unet_"
"""Behind it the layer's name has underscores in place of dots."""
SUFFIXES: Mapping[str, Part] = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
    ".alpha": "alpha",
}
KOHYA = (".lora_down.weight", ".lora_up.weight", ".alpha")
"""Only ComfyUI and kohya's scripts end names so."""
UNREAD: Mapping[str, str] = {
    "lokr_": "a LoKr (LyCORIS)",
    "hada_": "a LoHa (LyCORIS)",
    "oft_": "an OFT",
    "dora_scale": "a DoRA of ComfyUI's form, which ComfyUI applies at another strength than DoRA is trained at",
    "lora_mid": "a LoCon with a middle matrix",
    "lora_embedding_": "an adapter of an embedding",
    ".lora_B.bias": "a LoRA with a bias",
    "modules_to_save": "layers trained as a whole beside the LoRA",
}
"""Part of a name -> what the file holds that is not read."""


@dataclass(frozen=True)
class Names:
    """The tensors of a file by layer and part."""

    form: Form
    prefix: str
    parts: Mapping[tuple[str, Part], str]
    """(layer, part) -> name in the file."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers that have an adapter, sorted."""
        return tuple(sorted({layer for layer, _ in self.parts}))


def resolve(keys: Iterable[str], layers: Layers, *, where: str) -> Names:
    """What every tensor of a file is.

    Raises:
        AdapterError: a name of no known form, names of two forms, a layer that the base lacks, a part that is there
            twice, or half of a pair.
    """
    keys = sorted(keys)
    prefix = _prefix(keys, where=where)
    dotted = _dotted(layers, where=where) if prefix == UNDERSCORED else {name: name for name in layers}
    parts: dict[tuple[str, Part], str] = {}
    strange: list[str] = []
    for key in keys:
        suffix = next((end for end in SUFFIXES if key.endswith(end)), None)
        if suffix is None:
            raise AdapterError(f"{where}: {quoted(key)} {_unread(key)}")
        layer = dotted.get(key[len(prefix) : -len(suffix)])
        if layer is None:
            strange.append(key)
        elif (layer, SUFFIXES[suffix]) in parts:
            first = parts[layer, SUFFIXES[suffix]]
            raise AdapterError(f"{where}: {quoted(first)} and {quoted(key)} are the same part of one layer")
        else:
            parts[layer, SUFFIXES[suffix]] = key
    if strange:
        raise AdapterError(
            f"{where}: {len(strange)} of {len(keys)} tensors are of layers that this base lacks: "
            f"{named([quoted(key) for key in strange], most=3)}; it was made for another model"
        )
    found = Names(_form(prefix, keys), prefix, parts)
    for layer in found.layers:
        for part in ("down", "up"):
            if (layer, part) not in parts:
                raise AdapterError(f"{where}: {layer} has no {part} matrix, so that it is half of a pair")
    return found


def _prefix(keys: list[str], *, where: str) -> str:
    found = {next((prefix for prefix in PREFIXES if key.startswith(prefix)), "") for key in keys}
    if len(found) > 1:
        shown = " and ".join(quoted(prefix) if prefix else "none" for prefix in sorted(found))
        raise AdapterError(f"{where}: its names have different prefixes ({shown}), so that it is of no one form")
    return found.pop()


def _form(prefix: str, keys: list[str]) -> Form:
    if prefix:
        return PREFIXES[prefix]
    return "comfyui" if any(key.endswith(KOHYA) for key in keys) else "ace_step"


def _dotted(layers: Layers, *, where: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in layers:
        if found.setdefault(name.replace(".", "_"), name) != name:
            raise AdapterError(
                f"{where}: names with underscores do not tell {name} from {found[name.replace('.', '_')]}"
            )
    return found


def _unread(key: str) -> str:
    kind = next((what for part, what in UNREAD.items() if part in key), None)
    return f"belongs to {kind}, which is not read" if kind else "is no part of a LoRA in a form that is known"
