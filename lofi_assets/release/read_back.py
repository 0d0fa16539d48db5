"""What was published, read back from where people get it and verified as they would."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lofi_assets.constitution.dsse import private_key
from lofi_assets.profiles import Profile
from lofi_assets.release.files import Part, ReleaseError, parts_of
from lofi_assets.release.hub_commit import OnHub
from lofi_assets.release.verification import Report, verify
from lofi_assets.store import Store


def read_back(store: Store, profile: Profile) -> dict[Part, Report]:
    """A verification of every repository of the latest release: of `release/published/`, or downloaded from the Hub.

    Raises:
        ReleaseError: nothing was published, or it cannot be had.
        SigningError: the key that the environment names is none.
    """
    key = private_key()
    with _folders(store, profile) as folders:
        return {part: verify(folder, key=key.public_key() if key else None) for part, folder in folders.items()}


@contextmanager
def _folders(store: Store, profile: Profile) -> Iterator[dict[Part, Path]]:
    if profile.release.target != "hub":
        yield {part: store.release / "published" / part for part in parts_of(profile)}
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield _downloaded(store, Path(scratch))


def _downloaded(store: Store, scratch: Path) -> dict[Part, Path]:
    """Every repository at the commit that the release made of it."""
    from huggingface_hub import get_token, snapshot_download

    known = OnHub.read(store)
    if known is None:
        raise ReleaseError("nothing was published to the Hub yet")
    found: dict[Part, Path] = {}
    for part, there in known.parts.items():
        try:
            found[part] = Path(
                snapshot_download(there.repo, revision=there.commit, local_dir=scratch / part, token=get_token())
            )
            continue
        except Exception as error:  # httpx, OSError, ValueError: the client has no common base
            reason = " ".join(str(error).split())[:300]
        # Outside the handler, so that no chained exception can carry what the Hub echoed.
        raise ReleaseError(f"{there.repo}: what was published cannot be read back ({reason}); run this check again")
    return found
