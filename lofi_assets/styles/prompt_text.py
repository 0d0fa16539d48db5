"""The text of a prompt as people write it.

What belongs here: what stands between two tags, and what of a text nobody sees. What does not: which words are tags
(`styles.py`), which of them a track gets (`tagging.py`).
"""

import re

from lofi_assets.near_names import shown

TAG_SEPARATORS = re.compile(r"[,;|\u3001\u060c\u061b\t\n\v\f\r\x85\u2028\u2029]")
"""After NFKC, by which the full-width forms are plain: comma, semicolon, bar, ideographic comma, Arabic comma and
semicolon, and what ends a cell or a line."""


def split_tags(text: str) -> tuple[str, ...]:
    """The parts of a list of tags as editors and keyboards write it, without the empty ones.

    Between two tags stands a comma, semicolon or bar of any script, a tab or a line's end. What nobody sees (a soft
    hyphen, a space without width) is dropped; full-width letters and spaces that do not break are plain ones.
    """
    parts = (" ".join(part.split()) for part in TAG_SEPARATORS.split(shown(text)))
    return tuple(part for part in parts if part)
