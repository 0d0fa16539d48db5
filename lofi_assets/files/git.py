"""What git says of a folder: the commit, and what the commit has not got."""

import hashlib
import subprocess
from pathlib import Path

from lofi_assets.files.hashing import sha256_file


def commit(folder: Path) -> str | None:
    """The commit that is checked out; None outside a repository (an installed wheel) or without git."""
    return git(folder, "rev-parse", "HEAD")


def changes(package: Path) -> str | None:
    """sha256 of what the commit has not got below a package's folder: changes, and files not added; None without any.

    With them, the commit is not what ran.
    """
    difference = git(package, "diff", "HEAD", "--", ".") or ""
    unadded = (git(package, "ls-files", "--others", "--exclude-standard", "-z", "--", ".") or "").split("\0")
    contents = [f"{name} {sha256_file(package / name)}" for name in unadded if (package / name).is_file()]
    found = "\n".join(filter(None, (difference, *contents)))
    return hashlib.sha256(found.encode()).hexdigest() if found else None


def git(folder: Path, *arguments: str) -> str | None:
    """Output of git in a folder, None outside a repository or without git."""
    try:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
