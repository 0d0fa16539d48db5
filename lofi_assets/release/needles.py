"""Where any of many short byte strings occur in a block, in one pass whatever their number.

A table says whether two bytes begin a needle; only there are the next ones looked at.
(Searching for one needle after the other costs a pass each, and an alternation of regular expressions a step each.)
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHORTEST = 4
"""Bytes that a needle has at least."""


class Needles:
    """What is looked for."""

    def __init__(self, needles: Iterable[bytes]) -> None:
        """Sort them by their first bytes.

        Raises:
            ValueError: one has fewer than `SHORTEST` bytes.
        """
        import numpy as np

        self._by_start: dict[bytes, list[bytes]] = defaultdict(list)
        self._first, self._second = np.zeros(1 << 16, np.bool_), np.zeros(1 << 16, np.bool_)
        for needle in set(needles):
            if len(needle) < SHORTEST:
                raise ValueError(f"{needle!r}: at least {SHORTEST} bytes are looked for")
            self._by_start[needle[:SHORTEST]].append(needle)
            self._first[int.from_bytes(needle[:2], "little")] = True
            self._second[int.from_bytes(needle[2:4], "little")] = True

    def places(self, block: bytes) -> Iterator[int]:
        """Offset of every occurrence, rising; an offset at which several start is told once."""
        if len(block) < SHORTEST or not self._by_start:
            return
        for place in self._candidates(block).tolist():
            wanted = self._by_start.get(block[place : place + SHORTEST], ())
            if any(block.startswith(needle, place) for needle in wanted):
                yield place

    def _candidates(self, block: bytes) -> "NDArray[np.intp]":
        import numpy as np

        found = []
        for offset in (0, 1):  # 16-bit words that start at even and at odd places
            words = np.frombuffer(block, "<u2", count=(len(block) - offset) // 2, offset=offset)
            places = np.flatnonzero(self._first.take(words)) * 2 + offset
            places = places[places <= len(block) - SHORTEST]
            following = np.frombuffer(block, np.uint8)
            second = following[places + 2].astype(np.uint16) | following[places + 3].astype(np.uint16) << 8
            found.append(places[self._second[second]])
        return np.sort(np.concatenate(found))
