"""One commit to the Hugging Face Hub: what is uploaded, compared with what is there, and read back."""

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lofi_assets.errors import megabytes
from lofi_assets.files.typed import read_typed
from lofi_assets.profiles import Profile
from lofi_assets.progress import Progress
from lofi_assets.release.files import RELEASE, Files, ReleasedFile, ReleaseError, ReleaseRecord

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

BLANK = frozenset({".gitattributes", "README.md", "LICENSE"})
"""What a Hub repository may hold before its first release: what the Hub itself offers to put there."""


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What a commit did."""

    published: str
    """Address of the commit."""
    commit: str
    parent: str | None
    """The commit before; None in an empty repository."""
    private: bool | None
    uploaded: int
    uploaded_bytes: int
    removed: list[str]
    """Files of an earlier release."""
    states: Mapping[str, str]
    """File -> `new`, `changed` or `unchanged`."""


def hub_token(profile: Profile) -> str:
    """The Hugging Face token of this process's user; ReleaseError without one, or without a repository to write to."""
    from huggingface_hub import get_token

    if not profile.release.repo_id:
        raise ReleaseError(f"config/profiles/{profile.name}.yaml: release.repo_id is empty; name the Hub repository")
    token = get_token()
    if not token:
        raise ReleaseError(
            f"no Hugging Face token, so {profile.release.repo_id} cannot be written: set HF_TOKEN in the environment "
            "of the process that runs the release (never in a profile), or run `hf auth login` as its user; make it "
            "at https://huggingface.co/settings/tokens with write access to that repository alone"
        )
    return token


def push(folder: Path, files: Files, profile: Profile, progress: Callable[[str], None]) -> Pushed:
    """Commit a release's files to the Hub; raises ReleaseError without the token in it."""
    from huggingface_hub import HfApi

    repo, token = profile.release.repo_id, hub_token(profile)
    try:
        return _commit(HfApi(token=token), repo, folder, files, progress)
    except ReleaseError:
        raise
    except Exception as error:  # httpx, OSError, ValueError, RuntimeError: the client has no common base
        reason = _reason(error, repo)
    # Outside the handler, so that no chained exception can carry what the Hub echoed.
    raise ReleaseError(reason.replace(token, "<HF_TOKEN>"))


def _commit(api: "HfApi", repo: str, folder: Path, files: Files, progress: Callable[[str], None]) -> Pushed:
    """One commit on the head that was read; the Hub refuses it if somebody else committed in between.

    Not `upload_folder`: with hf_xet installed it commits in batches (huggingface_hub #4331), so that a release that
    breaks off is published in part.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    api.create_repo(repo, private=True, exist_ok=True)
    before = api.model_info(repo, files_metadata=True)
    states = {name: _state(folder / name, entry, _siblings(before).get(name)) for name, entry in files.items()}
    gone = sorted(_earlier(api, repo, before) - files.keys())
    sent = [name for name, state in states.items() if state != "unchanged"]
    size = sum(files[name].bytes for name in sent)
    progress(
        f"release: {len(sent)} of {len(files)} files, {size:,} bytes, to {repo} on {before.sha or 'an empty repo'}"
    )
    progress(f"release: removed there, from an earlier release: {', '.join(gone) or 'nothing'}")
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        *(CommitOperationDelete(path_in_repo=name) for name in gone),
        *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in sent),
    ]
    message = f"Release {files[RELEASE].sha256[:12]}"
    with Progress(f"sending {len(sent)} files, {megabytes(size)}, to {repo}", total=1, unit="commit") as sending:
        commit = api.create_commit(repo, operations, commit_message=message, parent_commit=before.sha)
        sending.advance()
    _verify(api, repo, str(commit.oid), folder, files)
    return Pushed(
        published=commit.commit_url,
        commit=commit.oid,
        parent=before.sha,
        private=before.private,
        uploaded=len(sent),
        uploaded_bytes=size,
        removed=gone,
        states=states,
    )


def _siblings(info: "ModelInfo") -> dict[str, "RepoSibling"]:
    return {found.rfilename: found for found in info.siblings or ()}


def _state(path: Path, entry: ReleasedFile, there: "RepoSibling | None") -> str:
    if there is None:
        return "new"
    return "unchanged" if _same(path, entry, there) else "changed"


def _same(path: Path, entry: ReleasedFile, there: "RepoSibling") -> bool:
    """Whether the Hub holds these bytes, from what it says of the file: the LFS hash, or git's for a small file."""
    if there.lfs:
        return bool(there.lfs.sha256 == entry.sha256)
    if there.size != entry.bytes:
        return False
    content = path.read_bytes()
    return there.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _earlier(api: "HfApi", repo: str, before: "ModelInfo") -> set[str]:
    """Files of an earlier release that are there now; what people added to the repository is theirs and stays.

    Raises:
        ReleaseError: the repository holds something that is no release.
    """
    names = set(_siblings(before))
    if RELEASE in names:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(api.hf_hub_download(repo, RELEASE, revision=before.sha, local_dir=scratch))
            released = read_typed(path, ReleaseRecord, remedy=f"mend or remove {RELEASE} in {repo}, or empty it")
            return names & set(released.files if released else ())
    if names - BLANK:
        raise ReleaseError(
            f"{repo} holds {', '.join(sorted(names - BLANK)[:5])} and no {RELEASE}: it is not a release of this "
            "project and is left alone; name another repository in release.repo_id, or empty this one"
        )
    return set()


def _verify(api: "HfApi", repo: str, commit: str, folder: Path, files: Files) -> None:
    """Ask the Hub what the commit holds: a .gitignore over there leaves files out without an error."""
    there = _siblings(api.model_info(repo, revision=commit, files_metadata=True))
    wrong = [name for name, entry in files.items() if _state(folder / name, entry, there.get(name)) != "unchanged"]
    if wrong:
        raise ReleaseError(
            f"{repo}: commit {commit} was made but does not hold {', '.join(wrong)} as sent; see that no .gitignore "
            "of the repository leaves them out, then run hub_release again"
        )


REMEDIES = {
    400: "Mend what it names and run hub_release again.",
    401: "The token is not valid: make one with write access at https://huggingface.co/settings/tokens, set HF_TOKEN.",
    403: "The token may not write there: make one with write access to the repository, and set HF_TOKEN.",
    404: "Check release.repo_id in the profile, and that the token can see it.",
    412: "Somebody else committed there since the release was prepared: look at that commit, then run hub_release "
    "again to publish on top of it.",
}
"""HTTP status -> what a person does about it."""


AGAIN = "Run hub_release again: what arrived is not sent twice, and what is complete stays as it is."


def _reason(error: BaseException, repo: str) -> str:
    """What failed, the file if it was one, and what to do, from an error of the client and its causes."""
    texts: list[str] = []
    status = 0
    found: BaseException | None = error
    while found is not None:
        line = " ".join(str(found).split()) or type(found).__name__
        texts += [line] if not any(line in known for known in texts) else []
        status = status or getattr(getattr(found, "response", None), "status_code", 0)
        found = found.__cause__
    return f"{repo}: not published ({': '.join(texts)[:600]}). {REMEDIES.get(status, AGAIN)}"
