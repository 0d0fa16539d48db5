"""What a verdict says to the public: the number and its limit, and the note unless it names somebody's track."""

from lofi_assets.constitution.gates import Verdict
from lofi_assets.release.private_search import PrivateNames, names_in


def published_text(found: Verdict, names: PrivateNames) -> str:
    """The verdict in words. A note such as "nearest: rain_01 at 14 s" stays with those who may hear the track."""
    if names_in(found.note, names):
        return found.text.replace(f" ({found.note})", "")
    return found.text
