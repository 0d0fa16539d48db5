"""What of a name a person sees, and which known name was probably meant by one that is not known."""

import re
import unicodedata
from collections.abc import Iterable

_FILLERS = frozenset("\u115f\u1160")
"""Letters by their category that show nothing."""


def shown(text: str) -> str:
    """What a person sees of a text: full-width letters as plain ones, without what has no width."""
    plain = unicodedata.normalize("NFKC", text)
    return "".join(letter for letter in plain if unicodedata.category(letter) != "Cf" and letter not in _FILLERS)


def says_nothing(text: str | None) -> bool:
    """Whether a name or reason holds no letter and no digit that can be seen: it names nobody, and nothing."""
    return not any(letter.isalnum() for letter in shown(text or ""))


def folded(name: str) -> str:
    """What counts of a name: no case, no accents' form, no spaces, hyphens, underscores or dots."""
    return re.sub(r"[\s._-]+", "", shown(name).casefold())


def meant(name: str, known: Iterable[str]) -> str | None:
    """The known name that differs from `name` only in case, spacing or a slip of the fingers; None if there is none.

    A slip is one letter too many, too few, wrong or in its neighbour's place, two of them in names of 12 letters and
    more. A digit is no slip: `rain_02` is not `rain_01`.
    """
    names, wanted = [one for one in known if one != name], folded(name)
    alike = next((one for one in names if folded(one) == wanted), None)
    return alike or next((one for one in names if _slipped(wanted, folded(one))), None)


def _slipped(one: str, other: str) -> bool:
    if min(len(one), len(other)) < 4 or re.sub(r"\D", "", one) != re.sub(r"\D", "", other):
        return False
    allowed = 2 if len(other) >= 12 else 1
    return abs(len(one) - len(other)) <= allowed and _distance(one, other) <= allowed


def _distance(one: str, other: str) -> int:
    """Optimal string alignment distance."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        row = [i]
        for j, b in enumerate(other, start=1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]
