"""A repository of the Hub as it is: who may write it, what it holds, how that differs from a release.

What does not belong here: changing it (`hub_commit.py`).
"""

import ipaddress
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from lofi_assets.files.typed import read_typed
from lofi_assets.profiles import Profile
from lofi_assets.release.files import RELEASE, Part, ReleaseError, ReleaseRecord, parts_of
from lofi_assets.release.sealed_copy import SealedFile
from lofi_assets.release.signing import LIST, SIGNATURE

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

State = Literal["new", "changed", "unchanged"]
BLANK = frozenset({".gitattributes", "README.md", "LICENSE"})
"""What a Hub repository may hold before its first release: what the Hub itself offers to put there."""
HUB = "https://huggingface.co"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A repository beside what a release would make of it."""

    repo: str
    head: str | None
    """The commit that was compared with; None in an empty repository, or where there is none yet."""
    private: bool | None
    """None: the repository is not there yet."""
    states: Mapping[str, State]
    """File of the release -> how it differs."""
    removed: tuple[str, ...]
    """Files of an earlier release."""
    kept: tuple[str, ...]
    """What people added."""

    @property
    def sent(self) -> list[str]:
        """Files that the repository does not hold as they are."""
        return [name for name, state in self.states.items() if state != "unchanged"]


def repositories(profile: Profile) -> dict[Part, str]:
    """Repository of each part.

    Raises:
        ReleaseError: a setting is empty, or both name one repository.
    """
    settings, parts = profile.release, parts_of(profile)
    known: dict[Part, str] = {
        "adapter": settings.repo_id,
        "tiers": settings.tiers_repo_id,
        "merged": settings.merged_repo_id,
    }
    named = {part: known[part] for part in parts}
    where = f"config/profiles/{profile.name}.yaml: release"
    for part, repo in named.items():
        if not repo:
            key = "repo_id" if part == "adapter" else f"{part}_repo_id"
            raise ReleaseError(f"{where}.{key} is empty; name the Hub repository of the {part}")
    if len(set(named.values())) != len(parts):
        keys = " and ".join(["repo_id", *(f"{part}_repo_id" for part in parts[1:])])
        raise ReleaseError(
            f"{where}.{keys} are the same: who loads the adapter downloads its whole repository; name another one for "
            "the tiers"
        )
    return named


def hub_token(profile: Profile) -> str:
    """The Hugging Face token of this process's user.

    Raises:
        ReleaseError: there is none, or it would be sent to an address that the profile does not name.
    """
    from huggingface_hub import get_token

    repos = repositories(profile)
    require_endpoint(profile)
    token = get_token()
    if not token:
        raise ReleaseError(
            f"no Hugging Face token, so {' and '.join(repos.values())} cannot be written: set HF_TOKEN in the "
            "environment of the process that runs the release (never in a profile), or run `hf auth login` as its "
            "user; make it at https://huggingface.co/settings/tokens with write access to these repositories alone"
        )
    return token


def require_endpoint(profile: Profile) -> None:
    """Refuse to send a release and its token to an address that nobody chose.

    Raises:
        ReleaseError: HF_ENDPOINT names neither the Hub, nor this machine, nor the profile's own.
    """
    from huggingface_hub import constants

    address, wanted = constants.ENDPOINT.rstrip("/"), profile.release.endpoint.rstrip("/")
    if address == wanted or (not wanted and (address == HUB or _on_this_machine(address))):
        if address.startswith("https://") or _on_this_machine(address):
            return
        raise ReleaseError(f"{address}: is not https, and the token would be read on the way; correct HF_ENDPOINT")
    chosen = f"names {wanted}" if wanted else "is empty"
    raise ReleaseError(
        f"HF_ENDPOINT is {address}, and release.endpoint of config/profiles/{profile.name}.yaml {chosen}: nothing is "
        "sent; unset HF_ENDPOINT, or name that address in the profile"
    )


def _on_this_machine(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def compared(api: "HfApi", repo: str, part: Part, files: Mapping[str, SealedFile]) -> Comparison:
    """What a release would change; asks and changes nothing.

    Raises:
        ReleaseError: the repository holds something that is no release, or another part of one.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = api.model_info(repo, files_metadata=True)
    except RepositoryNotFoundError:
        states: dict[str, State] = dict.fromkeys(files, "new")
        return Comparison(repo=repo, head=None, private=None, states=states, removed=(), kept=())
    there = siblings(info)
    earlier = _earlier(api, repo, part, info)
    return Comparison(
        repo=repo,
        head=info.sha,
        private=bool(info.private),
        states={name: _state(file, there.get(name)) for name, file in files.items()},
        removed=tuple(sorted(earlier - files.keys())),
        kept=tuple(sorted(there.keys() - files.keys() - earlier)),
    )


def siblings(info: "ModelInfo") -> dict[str, "RepoSibling"]:
    """What a commit holds, by path."""
    return {found.rfilename: found for found in info.siblings or ()}


def _state(file: SealedFile, there: "RepoSibling | None") -> State:
    if there is None:
        return "new"
    return "unchanged" if same(file, there) else "changed"


def same(file: SealedFile, there: "RepoSibling") -> bool:
    """Whether the Hub says that it holds these bytes: by the sha256 of a large file, by git's hash of a small one."""
    if there.size != file.bytes:
        return False
    return there.lfs.sha256 == file.sha256 if there.lfs else there.blob_id == file.blob


def _earlier(api: "HfApi", repo: str, part: Part, info: "ModelInfo") -> set[str]:
    """Files of an earlier release that are there now; what people added to the repository is theirs and stays."""
    names = set(siblings(info))
    if RELEASE in names:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(api.hf_hub_download(repo, RELEASE, revision=info.sha, local_dir=scratch))
            released = read_typed(path, ReleaseRecord, remedy=f"mend or remove {RELEASE} in {repo}, or empty it")
        if released and released.part not in (None, part):
            raise ReleaseError(
                f"{repo} holds the {released.part} of a release, not the {part}; see release.repo_id and "
                "release.tiers_repo_id in the profile"
            )
        return names & {*(released.files if released else ()), LIST, SIGNATURE}
    if names - BLANK:
        raise ReleaseError(
            f"{repo} holds {', '.join(sorted(names - BLANK)[:5])} and no {RELEASE}: it is not a release of this "
            "project and is left alone; name another repository in the profile's release settings, or empty this one"
        )
    return set()
