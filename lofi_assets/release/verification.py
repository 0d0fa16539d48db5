"""Whether a downloaded release is what was let go: its files, its signature, its evidence, every gate judged again.

Nothing of the machine that made it is needed: no data root, no Dagster, no network. What a verifier trusts is this code
with its log of amendments and, where one is given, a public key; everything else is checked against them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lofi_assets.constitution.amendments import AMENDMENTS, gates_sha256
from lofi_assets.constitution.dsse import SigningError, key_id
from lofi_assets.constitution.evidence import Evidence, parsed_statement
from lofi_assets.constitution.gates import ConstitutionError, Gate, Verdict, load_gates
from lofi_assets.constitution.verdicts import measures_of, verdict
from lofi_assets.files.documents import read_json
from lofi_assets.files.hashing import sha256_file
from lofi_assets.files.typed import read_typed
from lofi_assets.files.writing import StoreError
from lofi_assets.release.comfyui import WORKFLOW, workflow_sha256
from lofi_assets.release.files import CARD, EVIDENCE, PARTS, RELEASE, ReleaseError, ReleaseRecord, release_name
from lofi_assets.release.signing import LIST, SIGNATURE, read_listing, require_signature
from lofi_assets.sources.licences import load_licences
from lofi_assets.sources.licensed_sources import LICENCES
from lofi_assets.store import CONFIG_DIR
from lofi_assets.wording import counted, named

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ASSET = "hub_release"
SOURCES = "licensed_sources"
IGNORED = frozenset({".gitattributes", ".cache", ".git"})
"""What the Hub and its client put beside a release."""
LONGEST_NAME = 255
"""Bytes of a file's name: more has no place on a disk, and asking for it is an error."""
Level = Literal["fault", "note"]


@dataclass(frozen=True)
class Finding:
    """Something that does not hold, or that could not be checked."""

    level: Level
    about: str
    """File, asset or gate."""
    text: str


@dataclass(frozen=True)
class Report:
    """What a verification found."""

    record: ReleaseRecord
    findings: tuple[Finding, ...]
    verdicts: tuple[Verdict, ...]
    """Of every gate that holds a release, judged again."""
    signed_by: str
    """Id of the key, "" if no signature was checked."""

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong; a note is no fault."""
        return not any(found.level == "fault" for found in self.findings)


def verify(folder: Path, *, key: "Ed25519PublicKey | None" = None, config_dir: Path = CONFIG_DIR) -> Report:
    """Check a repository of a release from its files alone.

    Args:
        folder: what was downloaded, or `release/published/<part>`.
        key: signature that it has to bear; without one a signature is noted and not checked.
        config_dir: its `amendments.json` says which tables of gates there ever were, its `licenses.yaml` which licences
            forbid training.
    Raises:
        ReleaseError: no release lies there, or its record is broken.
    """
    record = read_typed(folder / RELEASE, ReleaseRecord, remedy="download the release again")
    if record is None:
        raise ReleaseError(f"{folder / RELEASE}: absent, so this is no release (or name the folder that holds it)")
    if odd := [name for name in (*record.files, *record.evidence) if _unsafe(name)]:
        raise ReleaseError(
            f"{folder / RELEASE}: names {odd[0][:80]!r}, which leads out of the release or is no file name"
        )
    documents, broken = _documents(folder, record)
    signed_by, signature = _signature(folder, record, key)
    gates, unknown = _gates(folder, record, config_dir)
    verdicts = tuple(_judged(gate, documents) for gate in gates)
    findings = [
        *_files(folder, record),
        *signature,
        *broken,
        *_chain(documents),
        *_bound(record, documents),
        *unknown,
        *_told(record, verdicts),
        *_admission(folder, documents),
        *_licences(documents, config_dir),
        *(Finding("fault", found.gate.id, f"{found.status}: {found.text}") for found in verdicts if not found.passed),
    ]
    return Report(record, tuple(findings), verdicts, signed_by)


def belong_together(records: Sequence[ReleaseRecord]) -> list[str]:
    """Why repositories that somebody has are not of one release; none for a single one."""
    names = {record.release for record in records}
    parts = [record.part for record in records]
    odd = []
    if len(records) > 1 and (len(names) > 1 or "" in names):
        odd.append(f"the repositories are of different releases ({', '.join(sorted(n[:12] or '?' for n in names))})")
    odd += [f"the part {part} is there twice" for part in PARTS if parts.count(part) > 1]
    if (
        not odd
        and len(records) == len(PARTS)
        and release_name({r.part: r.files for r in records if r.part}) not in names
    ):
        odd.append("the repositories are not, together, the release that each of them names")
    return odd


def _unsafe(name: str) -> bool:
    parts = name.split("/")
    return any(part in ("", ".", "..") or len(part.encode()) > LONGEST_NAME or not part.isprintable() for part in parts)


def _files(folder: Path, record: ReleaseRecord) -> Iterator[Finding]:
    """Every file is there, a regular one, of the bytes on record; and there is no other."""
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or path.is_file()}
    for name, file in sorted(record.files.items()):
        path = folder / name
        if path.is_symlink():
            yield Finding("fault", name, "is a link")
        elif name not in there:
            yield Finding("fault", name, "is missing")
        elif sha256_file(path) != file.sha256:
            yield Finding(
                "fault", name, f"was changed: it is {sha256_file(path)[:12]}, released was {file.sha256[:12]}"
            )
    own = record.files.keys() | {RELEASE, LIST, SIGNATURE}
    for name in sorted(there - own):
        if not IGNORED & set(Path(name).parts):
            yield Finding("fault", name.encode(errors="backslashreplace").decode(), "was not released")


def _signature(folder: Path, record: ReleaseRecord, key: "Ed25519PublicKey | None") -> tuple[str, Sequence[Finding]]:
    """Id of the key that signed everything, and what is wrong with the list or its signature.

    Without a key that the verifier trusts, a signature is checked against the one that the list names: it then says
    that nothing was changed since, and not who signed.
    """
    path = folder / SIGNATURE
    try:
        text = _text(folder / LIST)
        listed = read_listing(text)
        wanted = {name: file.sha256 for name, file in record.files.items()} | {RELEASE: sha256_file(folder / RELEASE)}
        names = wanted.keys() | listed.files.keys()
        if differ := sorted(name for name in names if listed.files.get(name) != wanted.get(name)):
            return "", [Finding("fault", name, f"is not what {LIST} lists") for name in differ]
        if not path.is_file() and (key or listed.signer):
            return "", [Finding("fault", SIGNATURE, "is missing: the release is not signed")]
        if listed.signer is None and key is None:
            return "", [Finding("note", SIGNATURE, "nobody signed this release")]
        require_signature(_text(path), listed=text, key=key or listed.signer)  # type: ignore[arg-type]
    except SigningError as error:
        return "", [Finding("fault", LIST if LIST in str(error).partition(":")[0] else SIGNATURE, str(error))]
    if key:
        return key_id(key), ()
    signer = key_id(listed.signer) if listed.signer else ""
    return signer, [
        Finding("note", SIGNATURE, f"is by the key {signer[:12]}; --key says whether that is a key you trust")
    ]


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise SigningError(f"{path.name}: is missing") from error
    except UnicodeDecodeError as error:
        raise SigningError(f"{path.name}: was changed: it holds bytes that are no text") from error


def _documents(folder: Path, record: ReleaseRecord) -> tuple[dict[str, Evidence], list[Finding]]:
    """The evidence of every asset that `release.json` names, by its digest."""
    found: dict[str, Evidence] = {}
    faults = []
    for asset, sha256 in sorted(record.evidence.items()):
        path = folder / EVIDENCE / f"{asset}.json"
        try:
            if not path.is_file() or sha256_file(path) != sha256:
                raise StoreError("is not the document that the release was let go by")
            data = read_json(path)
            document = parsed_statement(data, where=path.name, remedy="download the release again")
            if document.asset != asset:
                raise StoreError(f"is of {document.asset}")
            found[asset] = document
        except StoreError as error:
            faults.append(Finding("fault", f"{EVIDENCE}/{asset}.json", str(error)))
    if not record.evidence:
        faults.append(Finding("fault", RELEASE, "names no evidence: it was released by an earlier version, or edited"))
    return found, faults


def _chain(documents: Mapping[str, Evidence]) -> Iterator[Finding]:
    """Every link leads to a document of the same build, and what an asset is about was made by one before it."""
    for asset, document in documents.items():
        before: dict[str, str] = {}
        for name in _before(documents, asset):
            before |= {**documents[name].files, **documents[name].given}
        for name, link in document.upstream.items():
            found = documents.get(name)
            if found is None:
                yield Finding("fault", asset, f"was made from {name}, of which there is no evidence")
            elif found.data_version != link.data_version or not link.sha256:
                yield Finding("fault", asset, f"was made from another build of {name}")
        for name, digest in document.materials.items():
            if before.get(name) != digest:
                yield Finding("fault", asset, f"is about {name}, which nothing before it made")


def _before(documents: Mapping[str, Evidence], asset: str) -> set[str]:
    found: set[str] = set()
    todo = list(documents[asset].upstream)
    while todo:
        name = todo.pop()
        if name in documents and name not in found:
            found.add(name)
            todo += documents[name].upstream
    return found


def _bound(record: ReleaseRecord, documents: Mapping[str, Evidence]) -> Iterator[Finding]:
    """Every released file, or what it was made from, is one that a document names."""
    made = {
        digest for document in documents.values() for digest in (*document.files.values(), *document.given.values())
    }
    for name, file in sorted(record.files.items()):
        if name.startswith(f"{EVIDENCE}/"):
            continue
        if name == WORKFLOW:  # written by this code and measured by nothing
            if file.sha256 != workflow_sha256():
                yield Finding("fault", name, "is not the workflow that this version of lofi_assets writes")
            continue
        source = record.made_from.get(name, file.sha256)
        if source not in made:
            yield Finding("fault", name, "no evidence names it, nor what it was made from")
    card = record.files.get(CARD)
    if card is None or card.sha256 != record.card_sha256:
        yield Finding("fault", CARD, f"is not the card that {record.approval.approved_by} approved")


def _gates(folder: Path, record: ReleaseRecord, config_dir: Path) -> tuple[list[Gate], list[Finding]]:
    """The gates that held the release, from the table that came with it, if that table was ever in force."""
    place = folder / EVIDENCE
    try:
        gates = [gate for gate in load_gates(place) if ASSET in gate.holds and gate.asset]
        digest = gates_sha256(place)
    except (ConstitutionError, StoreError) as error:
        return [], [Finding("fault", f"{EVIDENCE}/constitution.yaml", str(error))]
    log = {row["version"]: row for row in read_json(config_dir / AMENDMENTS, default=[])}
    known, latest = {version: row["gates_sha256"] for version, row in log.items()}, next(reversed(log), "")
    if known.get(record.constitution) != digest:
        said = "has other gates" if record.constitution in known else "is not known here (a newer version?)"
        return gates, [Finding("fault", "constitution", f"version {record.constitution} {said}")]
    if not gates:
        return gates, [Finding("fault", "constitution", "no gate holds a release")]
    if record.constitution == latest:
        return gates, []
    asked = {gate.id for gate in gates}
    since = [gate.id for gate in load_gates(config_dir) if ASSET in gate.holds and gate.asset and gate.id not in asked]
    said = f"version {record.constitution}; in force here is {latest} of {log[latest].get('date')}"
    more = f", which asks too: {named(since, most=len(since))}" if since else ""
    return gates, [Finding("note", "constitution", said + more)]


def _admission(folder: Path, documents: Mapping[str, Evidence]) -> Iterator[Finding]:
    """Tracks are let in one by one when an asset is made: it has to have been by the table that the release names."""
    try:
        digest = gates_sha256(folder / EVIDENCE)
    except ConstitutionError:
        return  # said where the table is read
    for asset, document in documents.items():
        if document.tracks and document.constitution.gates_sha256 != digest:
            said = document.constitution.version
            yield Finding("fault", asset, f"let its tracks in by another table of gates (version {said})")


def _licences(documents: Mapping[str, Evidence], config_dir: Path) -> Iterator[Finding]:
    """The licences that let tracks in, by this table and not by that of whoever released."""
    document = documents.get(SOURCES)
    said = document.values.get(LICENCES) if document else None
    listed = said if isinstance(said, Mapping) else {}
    counts = list(listed.values())
    if document is None or not counts or not all(type(tracks) is int and tracks > 0 for tracks in counts):
        yield Finding("fault", SOURCES, "does not say under which licences its tracks are")
        return
    if sum(counts) != document.values.get("verified_tracks"):
        yield Finding("fault", SOURCES, f"says the licences of {sum(counts)} tracks, and let in another number")
    table = load_licences(config_dir)
    for licence, tracks in sorted(listed.items()):
        found, under = table.find(licence), f"{counted(tracks, 'track')} under {licence[:80]!r}"
        if found.status == "denied":
            yield Finding("fault", SOURCES, f"{under}, which is denied here: {found.why}")
        elif not found.id:
            yield Finding("note", SOURCES, f"{under}, which is not listed here")


def _told(record: ReleaseRecord, verdicts: Sequence[Verdict]) -> Iterator[Finding]:
    """What `release.json` says of the gates is what its evidence says: people read the first."""
    told, found = {gate.gate: gate.verdict for gate in record.gates}, {v.gate.id: v.status for v in verdicts}
    for gate in sorted(told.keys() | found.keys()):
        if told.get(gate) != found.get(gate):
            said = f"{RELEASE} says {told.get(gate) or 'nothing'}, the evidence {found.get(gate) or 'nothing'}"
            yield Finding("fault", gate, said)


def _judged(gate: Gate, documents: Mapping[str, Evidence]) -> Verdict:
    document = documents.get(str(gate.asset))
    return verdict(gate, measures_of(document) if document else None)
