"""The base of a run's settings: immutable, closed, and hashed so that a run of an earlier version keeps its id.

Imports without torch.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

ADDED_LATER: frozenset[str] = frozenset(
    {
        "skip_share",
        "quantized_parts",
        "prompt_variants",
        "variants",
        "lora_dropout",
        "rank_pattern",
        "alpha_pattern",
        "crop_from",
    }
)
"""Settings of training, adapter or track that came after runs were first named by their settings. At its default such
a one is left out of the hash, so that a run of an earlier version goes on under its id."""

Positive = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """Base of the settings: immutable, and an unknown key is an error rather than a setting without effect."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @property
    def identifying(self) -> dict[str, object]:
        """The settings that decide the weights at a given step, as plain values."""
        fields = type(self).model_fields
        usual = {name: fields[name].get_default(call_default_factory=True) for name in ADDED_LATER & fields.keys()}
        return self.model_dump(exclude={name for name, default in usual.items() if getattr(self, name) == default})
