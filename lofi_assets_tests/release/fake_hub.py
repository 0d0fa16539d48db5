"""A Hugging Face Hub in memory on 127.0.0.1: the routes that huggingface_hub 2.4.0 calls to publish a model.

What belongs here: repositories with commits and pull requests, LFS objects, the refusals that a
publisher must survive. What does not: xet storage, which needs a native client; tests switch it off.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_faketokenfaketokenfaketoken"
LFS_SUFFIXES = (".safetensors", ".onnx", ".data")


@dataclass(frozen=True)
class Commit:
    """One commit: its parent, its message, every file it holds."""

    oid: str
    parent: str | None
    summary: str
    files: dict[str, bytes]


@dataclass
class PullRequest:
    """A commit that is not on main yet."""

    commit: Commit
    status: str = "open"
    comments: list[str] = field(default_factory=list)


@dataclass
class FakeHub:
    """State of the hub and what it is told to do wrong."""

    repositories: dict[str, list[Commit]] = field(default_factory=dict)
    visibility: dict[str, str] = field(default_factory=dict)
    pull_requests: dict[str, list[PullRequest]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    """LFS store: sha256 -> bytes."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    initial_commit: bool = True
    """Whether a new repository starts with a .gitattributes, as on the real hub."""
    put_status: dict[bytes, int] = field(default_factory=dict)
    """Content -> status with which its upload is refused."""
    commit_status: int = 200
    ignored: set[str] = field(default_factory=set)
    """Files that a .gitignore of the repository leaves out."""
    read_only: bool = False
    echo_token: bool = False
    """Whether an error message repeats the Authorization header, as a careless proxy would."""
    before_commit: Callable[["FakeHub"], object] | None = None
    after_pull_request: Callable[["FakeHub"], object] | None = None
    before_merge: Callable[["FakeHub", str], object] | None = None
    after_merge: Callable[["FakeHub"], object] | None = None
    merge_status: dict[str, int] = field(default_factory=dict)
    """Repository -> status with which its merge is refused."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> "FakeHub":
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Endpoint, without a slash at the end."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def head(self, repo: str) -> Commit | None:
        """Last commit of a repository."""
        commits = self.repositories[repo]
        return commits[-1] if commits else None

    def files(self, repo: str) -> dict[str, bytes]:
        """What a repository holds now, without what the hub put there."""
        head = self.head(repo)
        return {name: data for name, data in (head.files if head else {}).items() if name != ".gitattributes"}

    def add_commit(self, repo: str, files: dict[str, bytes], summary: str = "by hand") -> str:
        """Put files on top of the head; returns the new commit."""
        head = self.head(repo)
        held = {**(head.files if head else {}), **files}
        seed = f"{repo}{len(self.repositories[repo])}{summary}{sorted(held)}"
        oid = hashlib.sha1(seed.encode()).hexdigest()
        self.repositories[repo].append(Commit(oid, head.oid if head else None, summary, held))
        return oid

    def tamper(self, repo: str, **files: bytes) -> None:
        """Change what the last pull request of a repository holds, behind the back of who made it."""
        request = self.pull_requests[repo][-1]
        request.commit = replace(request.commit, files={**request.commit.files, **files})

    def create(self, repo: str, *, visibility: str = "private", files: Mapping[str, bytes] | None = None) -> None:
        """A repository as a person would have made it."""
        self.repositories[repo] = []
        self.visibility[repo] = visibility
        if self.initial_commit:
            self.add_commit(repo, {".gitattributes": b"*.onnx filter=lfs\n", **(files or {})}, "initial commit")


def requests_of(hub: FakeHub, repo: str) -> list[str]:
    """What became of the pull requests of a repository."""
    return [request.status for request in hub.pull_requests.get(repo, [])]


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    """Else a body waits for the client's acknowledgement of the headers before it: 40 ms for each answer."""

    def log_message(self, format: str, *args: Any) -> None:
        """Tests are silent."""

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_GET

    def _serve(self) -> None:
        path, body = unquote(urlsplit(self.path).path), self._body()
        self.hub.requests.append((self.command, path))
        if path.startswith("/lfs/"):
            return self._put(path.removeprefix("/lfs/"), body)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._refuse(401, "Invalid credentials in Authorization header")
        for pattern, method in self.ROUTES:
            if found := re.fullmatch(pattern, f"{self.command} {path}"):
                with self.hub.lock:
                    return method(self, body, **found.groupdict())
        return self._refuse(404, f"no route {path}")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _create(self, body: bytes) -> None:
        wanted = json.loads(body)
        repo = f"{wanted['organization']}/{wanted['name']}"
        exists = repo in self.hub.repositories
        if self.hub.read_only and not exists:
            return self._refuse(403, "You don't have the rights to create a model under this namespace")
        if not exists:
            self.hub.create(repo, visibility=wanted.get("visibility", "public"))
        return self._json({"url": f"{self.hub.url}/{repo}"}, 409 if exists else 200)

    def _info(self, body: bytes, repo: str, revision: str = "") -> None:
        if repo not in self.hub.repositories:
            return self._refuse(404, "Repository not found", code="RepoNotFound")
        commit = self._commit_at(repo, revision)
        found: dict[str, Any] = {"id": repo, "private": self.hub.visibility.get(repo) == "private", "siblings": []}
        if commit:
            found["sha"] = commit.oid
            found["siblings"] = [_sibling(name, data) for name, data in sorted(commit.files.items())]
        return self._json(found)

    def _tree(self, body: bytes, repo: str, revision: str) -> None:
        commit = self._commit_at(repo, revision) if repo in self.hub.repositories else None
        if commit is None:
            return self._refuse(404, "Revision not found", code="RevisionNotFound")
        return self._json([_entry(name, data) for name, data in sorted(commit.files.items())])

    def _commit_at(self, repo: str, revision: str) -> Commit | None:
        if revision in ("", "main"):
            return self.hub.head(repo)
        if revision.startswith("refs/pr/"):
            return self.hub.pull_requests[repo][int(revision.rpartition("/")[2]) - 1].commit
        proposed = [request.commit for request in self.hub.pull_requests.get(repo, [])]
        return next((commit for commit in (*self.hub.repositories[repo], *proposed) if commit.oid == revision), None)

    def _validate(self, body: bytes) -> None:
        try:
            yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
        except (yaml.YAMLError, IndexError) as error:
            return self._json({"errors": [{"message": f"metadata: {error}"}], "warnings": []}, 400)
        return self._json({"errors": [], "warnings": []})

    def _preupload(self, body: bytes, repo: str) -> None:
        head = self.hub.head(repo)
        held = head.files if head else {}
        rows = []
        for entry in json.loads(body)["files"]:
            name = entry["path"]
            row = {"path": name, "uploadMode": "lfs" if _is_lfs(name) else "regular"}
            row |= {"shouldIgnore": name in self.hub.ignored, "oid": _oid(name, held[name]) if name in held else None}
            rows.append(row)
        return self._json({"files": rows})

    def _batch(self, body: bytes, repo: str) -> None:
        rows: list[dict[str, Any]] = []
        for entry in json.loads(body)["objects"]:
            row = {"oid": entry["oid"], "size": entry["size"]}
            if entry["oid"] not in self.hub.objects:
                row["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{entry['oid']}", "header": {}}}
            rows.append(row)
        return self._json({"transfer": "basic", "objects": rows})

    def _put(self, oid: str, body: bytes) -> None:
        status = self.hub.put_status.get(body, 200)
        if status != 200:
            return self._refuse(status, "storage says no")
        if hashlib.sha256(body).hexdigest() != oid:
            return self._refuse(400, "the content is not what its hash says")
        with self.hub.lock:
            self.hub.objects[oid] = body
        return self._json({})

    def _commit(self, body: bytes, repo: str) -> None:
        if self.hub.before_commit:
            meddle, self.hub.before_commit = self.hub.before_commit, None
            meddle(self.hub)
        if self.hub.read_only:
            return self._refuse(403, "You need write access")
        if self.hub.commit_status != 200:
            return self._refuse(self.hub.commit_status, "the commit broke")
        header, *operations = [json.loads(line) for line in body.splitlines()]
        head, proposing = self.hub.head(repo), "create_pr=1" in urlsplit(self.path).query
        asked = header["value"].get("parentCommit")
        if proposing and asked:
            head = self._commit_at(repo, asked)
        elif "parentCommit" in header["value"] and asked != (head.oid if head else None):
            return self._refuse(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files) if head else {}
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile" and value["oid"] in self.hub.objects:
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif operation["key"] == "deletedFile" and value["path"] in files:
                del files[value["path"]]
            else:
                return self._refuse(400, f"{operation['key']} {value['path']}: not possible")
        seed = body + (head.oid if head else "").encode()
        made = Commit(hashlib.sha1(seed).hexdigest(), head.oid if head else None, header["value"]["summary"], files)
        answer = {"commitUrl": f"{self.hub.url}/{repo}/commit/{made.oid}", "commitOid": made.oid}
        if not proposing:
            self.hub.repositories[repo].append(made)
            return self._json(answer)
        if head is None:
            return self._refuse(400, "a pull request needs a commit to start from")
        requests = self.hub.pull_requests.setdefault(repo, [])
        requests.append(PullRequest(made))
        if self.hub.after_pull_request:
            self.hub.after_pull_request(self.hub)
        return self._json(answer | {"pullRequestUrl": f"{self.hub.url}/{repo}/discussions/{len(requests)}"})

    def _merge(self, body: bytes, repo: str, number: str) -> None:
        request = self.hub.pull_requests[repo][int(number) - 1]
        if self.hub.before_merge:
            self.hub.before_merge(self.hub, repo)
        if status := self.hub.merge_status.get(repo):
            return self._refuse(status, "the merge broke")
        head, start = self.hub.head(repo), self._commit_at(repo, str(request.commit.parent))
        assert head and start
        ours = {name for name in {**start.files, **request.commit.files} if _differs(name, start, request.commit)}
        theirs = {name for name in {**start.files, **head.files} if _differs(name, start, head)}
        if request.status != "open" or ours & theirs:
            return self._refuse(409, "the pull request cannot be merged")
        files = {name: data for name, data in head.files.items() if name not in ours}
        files |= {name: data for name, data in request.commit.files.items() if name in ours}
        oid = hashlib.sha1(f"{head.oid}{request.commit.oid}".encode()).hexdigest()
        self.hub.repositories[repo].append(Commit(oid, head.oid, request.commit.summary, files))
        request.status = "merged"
        request.comments.append(json.loads(body or b"{}").get("comment", ""))
        if self.hub.after_merge:
            self.hub.after_merge(self.hub)
        return self._json({})

    def _status(self, body: bytes, repo: str, number: str) -> None:
        request, wanted = self.hub.pull_requests[repo][int(number) - 1], json.loads(body)
        request.status = wanted["status"]
        request.comments.append(wanted.get("comment", ""))
        event = {"id": "1", "type": "status-change", "createdAt": "2025-12-22T12:00:00.000Z"}
        return self._json({"newStatus": event | {"data": {"status": wanted["status"]}}})

    def _resolve(self, body: bytes, repo: str, revision: str, name: str) -> None:
        commit = self._commit_at(repo, revision)
        if commit is None or name not in commit.files:
            return self._refuse(404, "Entry not found", code="EntryNotFound")
        data = commit.files[name]
        return self._send(200, data, {"ETag": f'"{_oid(name, data)}"', "X-Repo-Commit": commit.oid})

    def _refuse(self, status: int, message: str, *, code: str = "") -> None:
        if self.hub.echo_token:
            message = f"{message} (request had {self.headers.get('Authorization')})"
        self._json({"error": message}, status, {"X-Error-Code": code} if code else {})

    def _json(self, data: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(data).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
    REVISION = r"(?P<revision>refs/pr/\d+|[^/]+)"
    ROUTES: tuple[tuple[str, Callable[..., None]], ...] = (
        (r"POST /api/repos/create", _create),
        (r"POST /api/validate-yaml", _validate),
        (
            rf"GET /api/models/{REPO}(/revision/{REVISION})?",
            lambda self, body, repo, revision: self._info(body, repo, revision or ""),
        ),
        (rf"GET /api/models/{REPO}/tree/{REVISION}", _tree),
        (rf"POST /api/models/{REPO}/preupload/main", _preupload),
        (rf"POST /api/models/{REPO}/commit/main", _commit),
        (rf"POST /api/models/{REPO}/discussions/(?P<number>\d+)/merge", _merge),
        (rf"POST /api/models/{REPO}/discussions/(?P<number>\d+)/status", _status),
        (rf"POST /{REPO}\.git/info/lfs/objects/batch", _batch),
        (rf"(GET|HEAD) /{REPO}/resolve/{REVISION}/(?P<name>.+)", _resolve),
    )


def _differs(name: str, first: Commit, second: Commit) -> bool:
    return first.files.get(name) != second.files.get(name)


def _is_lfs(name: str) -> bool:
    return name.endswith(LFS_SUFFIXES)


def _git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _oid(name: str, data: bytes) -> str:
    return hashlib.sha256(data).hexdigest() if _is_lfs(name) else _git_hash(data)


def _entry(name: str, data: bytes) -> dict[str, Any]:
    """A file as a listing of a tree has it."""
    found: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": _git_hash(data)}
    if _is_lfs(name):
        found["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return found


def _sibling(name: str, data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": _git_hash(data)}
    if _is_lfs(name):
        found["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return found
