"""Ranks and strengths by layer: `rank_pattern` and `alpha_pattern`, as peft matches them (`get_pattern_key`).

What belongs here: which patterns are read, what a layer's rank and scale are under them. What does not: the settings
that hold them (`lora_settings`), the configurations of LoRAs from elsewhere (`adapter_forms.strength`). Imports without
torch.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Protocol, TypeVar

from pydantic import AfterValidator, Field

N = TypeVar("N", int, float)
_PATTERN = re.compile(r"\^?(?:[\w-]|\.|\\\.|\\d\+|\.\*)+\$?")
"""Names with wildcards: of regular expressions in an untrusted file no more is run."""
_WILDCARDS = 4
_OWN_WILDCARDS = 2
_LONGEST = 200


def is_readable(pattern: str, *, wildcards: int = _WILDCARDS) -> bool:
    """Whether a pattern is made of names and of at most so many `.*` and `\\d+`: each multiplies the time of matching
    by the length of a name."""
    wild = pattern.count("*") + pattern.count("+")
    return len(pattern) <= _LONGEST and wild <= wildcards and bool(_PATTERN.fullmatch(pattern))


def matches(pattern: str, layer: str) -> bool:
    """Whether the end of a layer's name is what a pattern says.

    Raises:
        ValueError: no model has so long a name.
    """
    if len(layer) > _LONGEST:
        raise ValueError(f"a layer's name has {len(layer)} characters")
    return bool(re.match(rf"(.*\.)?({pattern})$", layer))


def matched(patterns: Mapping[str, N], layer: str, otherwise: N) -> N:
    """The number of the first pattern that a layer matches."""
    return next((value for pattern, value in patterns.items() if matches(pattern, layer)), otherwise)


def _expect_readable(patterns: dict[str, int]) -> dict[str, int]:
    for pattern in patterns:
        if not is_readable(pattern, wildcards=_OWN_WILDCARDS):
            raise ValueError(f"{pattern!r} is not read; only names and up to {_OWN_WILDCARDS} of `.*` and `\\d+` are")
    return patterns


LayerNumbers = Annotated[dict[str, Annotated[int, Field(ge=1)]], AfterValidator(_expect_readable)]
"""Pattern of layer names -> a number for the layers that match it."""


class Layered(Protocol):
    """What says a layer's rank and scale (`lora_settings.LoraSettings`)."""

    @property
    def r(self) -> int: ...
    @property
    def lora_alpha(self) -> int: ...
    @property
    def use_rslora(self) -> bool: ...
    @property
    def rank_pattern(self) -> Mapping[str, int]: ...
    @property
    def alpha_pattern(self) -> Mapping[str, int]: ...


def rank_of(lora: Layered, layer: str) -> int:
    """Rank of a layer."""
    return matched(lora.rank_pattern, layer, lora.r)


def scale_of(lora: Layered, layer: str) -> float:
    """Factor on B A x that training applies in a layer, and that every reader has to apply."""
    rank, alpha = rank_of(lora, layer), matched(lora.alpha_pattern, layer, lora.lora_alpha)
    return alpha / (rank**0.5 if lora.use_rslora else rank)


def strengths(numbers: Iterable[tuple[int, float]]) -> dict[str, int]:
    """`rank 64, scale 2` -> how many of the layers have it; of layers that are all alike nothing."""
    found = Counter(f"rank {rank}, scale {scale:.9g}" for rank, scale in numbers)
    return dict(sorted(found.items())) if len(found) > 1 else {}


def pattern_fault(lora: Layered, layers: Iterable[str]) -> str | None:
    """Why the patterns do not say one number for each layer, None if they do.

    Their order is kept by no JSON file that is written with sorted keys, so nothing may depend on it.
    """
    names = list(layers)
    for key, patterns in (("rank_pattern", lora.rank_pattern), ("alpha_pattern", lora.alpha_pattern)):
        for pattern in patterns:
            if not any(matches(pattern, layer) for layer in names):
                return f"lora.{key}: {pattern!r} matches none of the {len(names)} adapted layers"
        for layer in names:
            said = {value for pattern, value in patterns.items() if matches(pattern, layer)}
            if len(said) > 1:
                return f"lora.{key}: {layer} matches patterns that say {sorted(said)}; write them apart"
    return None
