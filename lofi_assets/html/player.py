"""The one script that a page may have, and what a page says that it may do.

`player.js` plays one clip at a time, listens to keys, and sorts a table. A page names it by its hash, and so does the
page server: nothing in a prompt, a title or a file name can become another.
"""

import hashlib
from base64 import b64encode
from pathlib import Path

SCRIPT = Path(__file__).with_name("player.js").read_text(encoding="utf-8")
SCRIPT_SOURCE = f"'sha256-{b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode('ascii')}'"
"""As a source in a content security policy."""

POLICY = (
    f"default-src 'none'; img-src data:; media-src 'self' file: data:; style-src 'unsafe-inline'; "
    f"script-src {SCRIPT_SOURCE}; base-uri 'none'; form-action 'none'"
)
"""Of a page with players, wherever it is opened; `file:` is for one that was opened from the disk."""

KEYS = (
    "Space plays and pauses, arrows move, j and k go to the next clip and the one before, 1 to 9 to a clip of the row."
)
"""For people; the keys work while a player has the focus."""
