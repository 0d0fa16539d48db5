"""What a stage gives back: the domain's side of a materialisation, without Dagster.

`defs/reporting.py` turns it into metadata for the UI and into the measures file that the gates judge.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """Result of one stage."""

    data_version: str
    """The same for the same content: downstream is rebuilt only if it moves."""
    counts: Mapping[str, int]
    """For people, in reading order; `recomputed` says how much work was done."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Measures for the asset-scope gates."""
    tracks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Counts for the track-scope gates (`verdicts.track_rule_counts`)."""
    rows: Sequence[Mapping[str, Any]] = ()
    """A table worth showing; the UI shows its first 50 rows."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Further facts: text, numbers, paths, URLs."""
    pictures: Mapping[str, Callable[[], bytes]] = field(default_factory=dict)
    """Title -> function that draws a PNG of at most 50 kB; drawn only when somebody will see it."""
