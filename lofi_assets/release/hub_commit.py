"""A release on its way to the Hub: a pull request to each repository, read back, and merged when all are as sent.

    propose    a pull request; what the Hub says that it holds is compared with the sealed copy
    merge      only after every repository's pull request was found right

Until the merge nobody who downloads a repository sees anything of it. What `main` is compared with before and after is
the commit that the pull request was made on: a commit by somebody else in between is left as it is, and named.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass as record

from lofi_assets.errors import megabytes
from lofi_assets.files.hashing import sha256_file
from lofi_assets.files.typed import STORED, read_typed, write_typed
from lofi_assets.profiles import Profile
from lofi_assets.progress import Progress
from lofi_assets.release.contents import Release
from lofi_assets.release.files import Part, ReleaseError
from lofi_assets.release.hub_repository import Comparison, compared, hub_token, repositories, same, siblings
from lofi_assets.release.sealed_copy import SealedFile
from lofi_assets.store import Store

if TYPE_CHECKING:
    from huggingface_hub import HfApi

ORDER: tuple[Part, ...] = ("merged", "tiers", "adapter")
"""The adapter comes last: its card links to the tiers."""
FIRST_COMMIT = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n*.onnx filter=lfs diff=lfs merge=lfs -text\n"
"""`.gitattributes` of a repository without any commit, which a pull request cannot be made to."""
Say = Callable[[str], None]
State = Literal["proposed", "merged", "published", "refused"]


@record(frozen=True, kw_only=True, config=STORED)
class PartOnHub:
    """Where a repository stands."""

    repo: str
    state: State
    """proposed: a pull request that was read back; published: `main` was read back too; merged: `main` was changed and
    is not as sent; refused: the pull request is closed, `main` is as it was."""
    pull_request: int | None = None
    """None: nothing had to be changed."""
    commit: str | None = None
    """Of `main` where it is published, else of the pull request."""
    reason: str = ""


@record(frozen=True, kw_only=True, config=STORED)
class OnHub:
    """`release/hub.json`: which repository holds what, also after a release that broke off between two of them."""

    release: str
    """As in `release.json`."""
    parts: Mapping[Part, PartOnHub]

    @classmethod
    def read(cls, store: Store) -> "OnHub | None":
        """The last one; None before.

        Raises:
            StoreError: broken, or of another version.
        """
        return read_typed(cls._path(store), cls, remedy="remove it; the repositories themselves say what they hold")

    def write(self, store: Store) -> None:
        """Put on record."""
        write_typed(self._path(store), self)

    @staticmethod
    def _path(store: Store) -> Path:
        return store.release / "hub.json"


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A repository's part of a release, read back and not yet visible."""

    part: Part
    before: Comparison
    number: int | None
    """Of the pull request; None where nothing has to be changed."""
    commit: str | None
    address: str


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What came of it."""

    proposal: Proposal
    commit: str
    """Of `main`."""
    address: str
    uploaded_bytes: int


def push(store: Store, release: Release, profile: Profile, *, name: str, public: bool, say: Say) -> dict[Part, Pushed]:
    """Bring a release to the Hub; raises ReleaseError without the token in it.

    Args:
        name: of the release, on record and in commit messages.
        public: whether a repository that everybody can read may be written to.
    """
    from huggingface_hub import HfApi

    token = hub_token(profile)
    try:
        return _Push(HfApi(token=token), store, release, repositories(profile), name, public, say, token).run()
    except ReleaseError as error:
        reason = str(error)
    except Exception as error:  # httpx, OSError, ValueError, RuntimeError: the client has no common base
        reason = explained(error)
    # Outside the handler, so that no chained exception can carry what the Hub echoed.
    raise ReleaseError(reason.replace(token, HIDDEN))


class _Push:
    """One release under way."""

    def __init__(
        self,
        api: "HfApi",
        store: Store,
        release: Release,
        repos: Mapping[Part, str],
        name: str,
        public: bool,
        say: Say,
        token: str,
    ) -> None:
        self.api, self.store, self.release, self.repos, self.name = api, store, release, repos, name
        self.public, self.say, self.token = public, say, token
        self.stands: dict[Part, PartOnHub] = {}

    def run(self) -> dict[Part, Pushed]:
        order = [part for part in ORDER if part in self.repos]
        found = {part: self._compared(part) for part in order}  # what can be refused before anything is sent
        proposals: list[Proposal] = []
        try:
            for part in order:
                proposals.append(self._propose(part, found[part]))
                self._expect(proposals[-1])
            pushed: dict[Part, Pushed] = {}
            for proposal in proposals:
                pushed[proposal.part] = self._merge(proposal)
            return pushed
        except Exception as error:
            # What the client says may name files of this machine, and a comment is for everybody who reads there.
            said = str(error) if isinstance(error, ReleaseError) else "Publication broke off."
            self._withdraw(proposals, explained(error).replace(self.token, HIDDEN), said=said)
            raise

    def _compared(self, part: Part) -> Comparison:
        repo, files = self.repos[part], self.release.parts[part]
        self.api.create_repo(repo, private=True, exist_ok=True)
        found = compared(self.api, repo, part, files)
        self._expect_private(repo, private=bool(found.private))
        if found.head is None:
            self._first_commit(repo)
            found = compared(self.api, repo, part, files)
        size = sum(files[name].bytes for name in found.sent)
        onto = found.head or "an empty repo"
        self.say(f"release: {len(found.sent)} of {len(files)} files, {size:,} bytes, to {repo} on {onto}")
        self.say(f"release: removed there, from an earlier release: {', '.join(found.removed) or 'nothing'}")
        return found

    def _expect_private(self, repo: str, *, private: bool) -> None:
        if not private and not self.public:
            raise ReleaseError(
                f"{repo}: everybody can read it, and nobody said that this release is for everybody: `lofi release "
                "--publish --public`, or release.public in the profile; or make the repository private"
            )

    def _first_commit(self, repo: str) -> None:
        from huggingface_hub import CommitOperationAdd

        operation = CommitOperationAdd(path_in_repo=".gitattributes", path_or_fileobj=FIRST_COMMIT)
        self.api.create_commit(repo, [operation], commit_message="First commit")

    def _propose(self, part: Part, before: Comparison) -> Proposal:
        """A pull request on the commit that was compared with.

        Not `upload_folder`: with hf_xet installed it commits in batches (huggingface_hub #4331).
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        folder = self.release.folder(part)
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationDelete(path_in_repo=name) for name in before.removed),
            *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in before.sent),
        ]
        if not operations:
            address = f"{self.api.endpoint}/{before.repo}/commit/{before.head}"
            return Proposal(part=part, before=before, number=None, commit=before.head, address=address)
        label = f"sending {len(before.sent)} files, {megabytes(self._bytes(part, before))}, to {before.repo}"
        with Progress(label, total=1, unit="commit") as sending:
            made = self.api.create_commit(
                before.repo,
                operations,
                commit_message=f"Release {self.name[:12]}",
                parent_commit=before.head,
                create_pr=True,
            )
            sending.advance()
        if made.pr_num is None:
            raise ReleaseError(f"{before.repo}: the Hub made no pull request of commit {made.oid}; run it again")
        self.say(f"release: pull request {made.pr_num} of {before.repo}, not merged: {made.pr_url}")
        return Proposal(part=part, before=before, number=made.pr_num, commit=made.oid, address=str(made.pr_url))

    def _bytes(self, part: Part, before: Comparison) -> int:
        return sum(self.release.parts[part][name].bytes for name in before.sent)

    def _expect(self, proposal: Proposal) -> None:
        if proposal.number is not None:
            self._verify(proposal, f"refs/pr/{proposal.number}", commit=proposal.commit)
        self._stands(proposal, "proposed", commit=proposal.commit)

    def _verify(self, proposal: Proposal, revision: str, *, commit: str | None) -> str:
        """Ask the Hub what a revision holds and read the small files back; returns its commit."""
        repo, files = proposal.before.repo, self.release.parts[proposal.part]
        info = self.api.model_info(repo, revision=revision, files_metadata=True)
        there = siblings(info)
        expected = files.keys() | set(proposal.before.kept) | {".gitattributes"}  # the Hub's own
        wrong = [f"{name} is not as sent" for name, file in files.items() if not _held(file, there.get(name))]
        wrong += [f"{name} was not sent" for name in sorted(there.keys() - expected)]
        wrong += [f"{name} went" for name in sorted(set(proposal.before.kept) - there.keys())]
        if commit is not None and info.sha != commit:
            wrong.append(f"its commit is {info.sha}, not {commit}")
        if not wrong:
            small = {name: files[name] for name in proposal.before.sent if not there[name].lfs}
            wrong = [
                f"{name} reads back as something else"
                for name, file in small.items()
                if not self._reads_back(repo, name, info.sha, file)
            ]
        if wrong:
            raise ReleaseError(
                f"{repo}, {revision}: {'; '.join(wrong[:5])}; see that no .gitignore of the repository leaves files "
                "out and that nobody else writes there, then run hub_release again"
            )
        return str(info.sha)

    def _reads_back(self, repo: str, name: str, commit: str | None, file: SealedFile) -> bool:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(self.api.hf_hub_download(repo, name, revision=commit, local_dir=scratch))
            return sha256_file(path) == file.sha256

    def _merge(self, proposal: Proposal) -> Pushed:
        before, number = proposal.before, proposal.number
        commit, address = proposal.commit, proposal.address
        if number is not None:
            now = self.api.model_info(before.repo)
            self._expect_private(before.repo, private=bool(now.private))
            if now.sha != before.head:
                raise ReleaseError(
                    f"{before.repo}: somebody else committed there ({now.sha}) since the release was prepared; look at "
                    "that commit, then run hub_release again to publish on top of it"
                )
            self.api.merge_pull_request(before.repo, number, comment="Read back and found as sent.")
            self._stands(proposal, "merged", commit=None)
            commit = self._verify(proposal, "main", commit=None)
            address = f"{self.api.endpoint}/{before.repo}/commit/{commit}"
        self._stands(proposal, "published", commit=commit)
        size = self._bytes(proposal.part, before)
        return Pushed(proposal=proposal, commit=str(commit), address=address, uploaded_bytes=size)

    def _withdraw(self, proposals: list[Proposal], reason: str, *, said: str) -> None:
        """Close what was not merged, saying why; `main` of those is as it was.

        Args:
            reason: for this machine's record.
            said: for the pull request.
        """
        for proposal in proposals:
            stands = self.stands.get(proposal.part)
            if proposal.number is None or (stands and stands.state in ("merged", "published")):
                continue
            try:
                self.api.change_discussion_status(
                    proposal.before.repo, proposal.number, "closed", comment=f"Not merged. {said}"
                )
            except Exception as error:
                reason = f"{reason} (the pull request is still open: {type(error).__name__})"
            self._stands(proposal, "refused", commit=proposal.commit, reason=reason)

    def _stands(
        self,
        proposal: Proposal,
        state: State,
        *,
        commit: str | None,
        reason: str = "",
    ) -> None:
        self.stands[proposal.part] = PartOnHub(
            repo=proposal.before.repo, state=state, pull_request=proposal.number, commit=commit, reason=reason
        )
        OnHub(release=self.name, parts=dict(self.stands)).write(self.store)


def _held(file: SealedFile, there: object) -> bool:
    return there is not None and same(file, there)  # type: ignore[arg-type]


HIDDEN = "<HF_TOKEN>"
REMEDIES = {
    400: "Mend what it names and run hub_release again.",
    401: "The token is not valid: make one with write access at https://huggingface.co/settings/tokens, set HF_TOKEN.",
    403: "The token may not write there: make one with write access to the repository, and set HF_TOKEN.",
    404: "Check release.repo_id and release.tiers_repo_id in the profile, and that the token can see them.",
    409: "Somebody else changed the same files: look at the repository, then run hub_release again.",
    412: "Somebody else committed there since the release was prepared: look at that commit, then run hub_release "
    "again to publish on top of it.",
}
"""HTTP status -> what a person does about it."""
AGAIN = "Run hub_release again: what arrived is not sent twice, and what is complete stays as it is."


def explained(error: BaseException) -> str:
    """What failed, the file if it was one, and what to do, from an error of the client and its causes."""
    if isinstance(error, ReleaseError):
        return str(error)
    texts: list[str] = []
    status = 0
    found: BaseException | None = error
    while found is not None:
        line = " ".join(str(found).split()) or type(found).__name__
        texts += [line] if not any(line in known for known in texts) else []
        status = status or getattr(getattr(found, "response", None), "status_code", 0)
        found = found.__cause__
    return f"not published ({': '.join(texts)[:600]}). {REMEDIES.get(status, AGAIN)}"
