"""Counts and names as sentences for people say them: `1 track`, `a, b and 3 more`, `audio.clipping 2`."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

NAMED = 3
"""Names in a sentence; a table has the others."""


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 track`, `2 tracks`; 1,000 and more with commas."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def named(names: Sequence[str], *, most: int = NAMED) -> str:
    """The first names, and how many more there are; "" for none."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def shortened(lines: Sequence[str], *, most: int) -> list[str]:
    """The first lines, and one that says how many more there are."""
    rest = len(lines) - most
    return [*lines[:most], f"and {rest} more"] if rest > 0 else list(lines)


def tallied(counts: Mapping[str, int] | Iterable[str]) -> str:
    """`core 20, jazz 3`: the most frequent first, then by name."""
    ordered = sorted(Counter(counts).items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count}" for name, count in ordered)


def rounded(value: float | None, digits: int) -> float | None:
    """A number as people read it; None stays None."""
    return None if value is None else round(value, digits)


def amount(count: float) -> str:
    """Bytes for people; 1 GB = 10^9 bytes."""
    return f"{count / 1e9:.3f} GB" if count >= 1e7 else f"{count / 1e6:.3f} MB"
