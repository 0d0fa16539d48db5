"""The asset `hub_release`: a release in a local folder, or on the Hub in a repository for each part.

What belongs here: publishing what `contents.py` prepared, and showing beforehand what would go. What does not: whether
anything may go, which is the guard's (`defs/gates.py`).
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lofi_assets.constitution.clearance import Clearance, use
from lofi_assets.files.hashing import sha256_folder
from lofi_assets.files.writing import atomic_folder, copy_file
from lofi_assets.outcome import Outcome, Written
from lofi_assets.profiles import Profile
from lofi_assets.progress import over
from lofi_assets.release.contents import ASSET, Release, digest_of, prepared
from lofi_assets.release.files import Part, ReleaseError
from lofi_assets.release.hub_commit import Pushed, explained, push
from lofi_assets.release.hub_repository import Comparison, compared, hub_token, repositories
from lofi_assets.store import Store
from lofi_assets.wording import counted

LOG = logging.getLogger(__name__)


def publish(
    store: Store,
    profile: Profile,
    clearance: Clearance,
    *,
    public: bool = False,
    progress: Callable[[str], None] = LOG.info,
) -> Outcome:
    """Bring a release to the Hub if the profile says so, and put it into `release/published/<part>/`.

    A repository gets one pull request, which is merged when all of them were read back and found as sent; the folder is
    replaced in one step. A release is there whole or not at all.

    Args:
        clearance: the guard's permit, which is used up; every file has to be the bytes that it was given for.
        public: whether a repository that everybody can read may be written to; the profile may say so too.
        progress: is told what will go, a line per file with size and hash, before anything is sent.
    Raises:
        NotClearedError: the permit is not the guard's, for another asset, used or old.
        ReleaseError: a setting or the token is missing, something is not what was judged, or the Hub refused.
    """
    use(clearance, asset=ASSET)
    to_hub = profile.release.target == "hub"
    if to_hub:
        hub_token(profile)
    with prepared(store, profile, clearance) as release:
        name = digest_of(release)
        for part, file, entry in listed(release):
            progress(f"release: {entry.sha256[:12]} {entry.bytes:>13,} bytes  {part}/{file}")
        allowed = public or profile.release.public
        pushed = push(store, release, profile, name=name, public=allowed, say=progress) if to_hub else {}
        assembled = _put_in_place(store, release)
        return _outcome(store, release, pushed, name=name, assembled=assembled)


def listed(release: Release) -> list[tuple[Part, str, Any]]:
    """Part, path and file of everything that goes, in order."""
    return [(part, name, file) for part, files in release.parts.items() for name, file in sorted(files.items())]


def _put_in_place(store: Store, release: Release) -> bool:
    """Replace `release/published/` unless it is the release already; returns whether it was."""
    folder = store.release / "published"
    wanted = {f"{part}/{name}": file.sha256 for part, name, file in listed(release)}
    if folder.is_dir() and sha256_folder(folder) == wanted:
        return False
    with atomic_folder(folder) as temporary:
        for name in over(sorted(wanted), "assembling the release", unit="file"):
            copy_file(release.sealed.path(name), temporary / name)
        found = sha256_folder(temporary)
        changed = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        if changed:
            raise ReleaseError(f"{', '.join(changed)}: changed while the release was made; publish again")
    return True


def _outcome(store: Store, release: Release, pushed: Mapping[Part, Pushed], *, name: str, assembled: bool) -> Outcome:
    about, files = release.about, listed(release)
    places = "to the Hub" if pushed else "into release/published under the data root"
    states = {part: found.proposal.before.states for part, found in pushed.items()}
    return Outcome(
        data_version=name,
        written=Written([store.release / "published" / part / path for part, path, _ in files]),
        summary=f"{about.checkpoint} is published {places}: {counted(len(files), 'file')}, the card approved by "
        f"{about.approval.approved_by}. Nothing waits for a person.",
        counts={
            "files": len(files),
            "bytes": sum(file.bytes for _, _, file in files),
            "recomputed": int(assembled),
        },
        rows=[
            {
                "path": f"{part}/{path}",
                "bytes": file.bytes,
                "sha256": file.sha256,
                "state": states.get(part, {}).get(path, ""),
            }
            for part, path, file in files
        ],
        details={
            "checkpoint": about.checkpoint,
            "approved_by": about.approval.approved_by,
            **(_shown(pushed) if pushed else {"published": store.relative(store.release / "published")}),
        },
    )


def _shown(pushed: Mapping[Part, Pushed]) -> dict[str, Any]:
    """What became of each repository, for the page of the asset."""
    shown: dict[str, Any] = {}
    for part, found in pushed.items():
        before = found.proposal.before
        shown |= {
            f"{part} published": found.address,
            f"{part} commit": found.commit,
            f"{part} parent": before.head,
            f"{part} private": before.private,
            f"{part} pull request": found.proposal.number,
            f"{part} uploaded": len(before.sent),
            f"{part} uploaded bytes": found.uploaded_bytes,
            f"{part} removed": list(before.removed),
        }
    return shown


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What publishing would do; nothing of it has been done."""

    name: str
    """Of the release."""
    rows: list[dict[str, Any]]
    """`path`, `bytes`, `sha256`, `state` against what is published now, `links` of the file that it was copied from."""
    removed: list[str]
    notes: list[str]
    """Where it would go, and what could not be compared, a sentence each."""


def preview(store: Store, profile: Profile) -> Preview:
    """A release as it would go, made and examined as for publishing, and then thrown away.

    Raises:
        ReleaseError: it could not be published, whatever the gates say.
    """
    with prepared(store, profile) as release:
        notes: list[str] = []
        if profile.release.target == "hub":
            states, removed = _against_hub(release, profile, notes)
        else:
            states, removed = _against_folder(store, release, notes)
        return Preview(
            name=digest_of(release),
            rows=[
                {
                    "path": f"{part}/{path}",
                    "bytes": file.bytes,
                    "sha256": file.sha256,
                    "state": states.get(f"{part}/{path}", "not compared"),
                    "links": file.links,
                }
                for part, path, file in listed(release)
            ],
            removed=removed,
            notes=notes,
        )


def _against_folder(store: Store, release: Release, notes: list[str]) -> tuple[dict[str, str], list[str]]:
    folder = store.release / "published"
    there = sha256_folder(folder) if folder.is_dir() else {}
    notes.append(f"to {folder}")
    wanted = {f"{part}/{name}": file.sha256 for part, name, file in listed(release)}
    states = {
        name: "new" if name not in there else "unchanged" if there[name] == digest else "changed"
        for name, digest in wanted.items()
    }
    return states, sorted(there.keys() - wanted.keys())


def _against_hub(release: Release, profile: Profile, notes: list[str]) -> tuple[dict[str, str], list[str]]:
    states: dict[str, str] = {}
    removed: list[str] = []
    found: dict[Part, Comparison] = {}
    try:
        found = _repositories_now(release, profile)
    except ReleaseError as error:
        notes.append(f"not compared with the Hub: {error}")
    for part, there in found.items():
        states |= {f"{part}/{name}": state for name, state in there.states.items()}
        removed += [f"{part}/{name}" for name in there.removed]
        notes.append(f"{part} to {there.repo}, {_visibility(there, allowed=profile.release.public)}")
    return states, removed


def _visibility(there: Comparison, *, allowed: bool) -> str:
    if there.private is None:
        return "which is not there yet and would be private"
    if there.private:
        return "which is private"
    return "which everybody can read" + ("" if allowed else ": refused without --public")


def _repositories_now(release: Release, profile: Profile) -> dict[Part, Comparison]:
    from huggingface_hub import HfApi

    token = hub_token(profile)
    try:
        api = HfApi(token=token)
        return {part: compared(api, repo, part, release.parts[part]) for part, repo in repositories(profile).items()}
    except ReleaseError:
        raise
    except Exception as error:  # httpx, OSError, ValueError, RuntimeError: the client has no common base
        reason = explained(error)
    raise ReleaseError(reason.replace(token, "<HF_TOKEN>"))
