"""What a stage gives back: the domain's side of a materialisation, without Dagster.

`defs/reporting.py` turns it into metadata for the UI and into the measures file that the gates judge.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Written:
    """The files of a materialisation, as its stage names them; one that is not there is left out.

    Each has to stay as it is, or the stage has to run again.
    """

    files: Sequence[Path] = ()
    """Those that it wrote, and nobody else does."""
    given: Sequence[Path] = ()
    """Those that it took in from people or from a program of its own, such as raw audio or the trainer's weights."""
    materials: Sequence[Path] = ()
    """Those of stages before it, whose content its numbers are about."""
    prunable: Sequence[Path] = ()
    """Folders of them that retention may remove as a whole."""


@dataclass(frozen=True)
class Outcome:
    """Result of one stage."""

    data_version: str
    """The same for the same content: downstream is rebuilt only if it moves."""
    counts: Mapping[str, int]
    """Whole numbers that people follow, in reading order; `recomputed` says how much work was done."""
    summary: str = ""
    """What to look at first, in a sentence: what waits for a person, or that nothing does."""
    needs: Sequence[Mapping[str, Any]] = ()
    """What waits for a person, worst first: at most 5 columns, since the UI's box is about 500 px wide."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Measures for the asset-scope gates."""
    tracks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Counts for the track-scope gates (`constitution.verdicts.track_rules`)."""
    named: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    """The tracks behind those counts (`constitution.verdicts.track_rules`)."""
    written: Written = field(default_factory=Written)
    """The files that the numbers are about; their hashes become evidence (`constitution.evidence`)."""
    rows: Sequence[Mapping[str, Any]] = ()
    """Everything, worst first; the UI shows the first 50 rows."""
    links: Mapping[str, str | None] = field(default_factory=dict)
    """Title -> address that a browser opens (`html.links`); None where there is no page."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Further facts: numbers that people follow, under stable names, since the UI plots them; short text."""
    pictures: Mapping[str, Callable[[], bytes]] = field(default_factory=dict)
    """Title -> function that draws a PNG of at most 50 kB; drawn only when somebody will see it."""
