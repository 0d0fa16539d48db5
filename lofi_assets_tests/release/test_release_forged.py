"""Every document that `lofi verify`, `--deep`, the guard and the bundle's runner read, in every form that it must not
have: each is refused in a sentence that names it, and none ends in a traceback.

A document is forged whole, and at every place in it: in the place of each value stands one of another type.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from lofi_assets.cli.main import main
from lofi_assets.constitution import evidence
from lofi_assets.constitution.chain import Chain, Materialized
from lofi_assets.constitution.gates import load_gates
from lofi_assets.constitution.verdicts import Measures, verdict
from lofi_assets.errors import LofiError
from lofi_assets.files.documents import read_json
from lofi_assets.files.hashing import sha256_file
from lofi_assets.lofi_onnx.description import DESCRIPTION, DescriptionError, computed, defaults_of
from lofi_assets.release.bundle_parity import PARITY, Parity, parity_measure
from lofi_assets.release.bundle_runs import Clip
from lofi_assets.release.bundle_samples import FOLDER as SAMPLES
from lofi_assets.release.deep_adapter import _recorded, adapter_again
from lofi_assets.release.deep_clips import too_long
from lofi_assets.release.deep_tiers import tiers_again
from lofi_assets.release.deep_verification import MeasuredAgain
from lofi_assets.release.files import EVIDENCE, RELEASE
from lofi_assets.release.onnx_artifacts import MANIFEST, Bundle
from lofi_assets.release.signing import LIST, SIGNATURE
from lofi_assets.release.tier_report import tier_report
from lofi_assets.store import Store
from lofi_assets_tests.release.cleared import publish
from lofi_assets_tests.release.stand_in_release import list_bundle, profile_for, put
from lofi_assets_tests.release.test_release_deep import parity, record
from lofi_assets_tests.release.test_release_verification import (
    SIGNER,
    lineage,
    released,
    seal,
)

DEEP = "[" * 100_000 + "]" * 100_000
WHOLE: dict[str, bytes] = {
    "a list": b"[]",
    "a number": b"7",
    "a text": b'"text"',
    "nothing": b"null",
    "empty": b"",
    "no JSON": b"{",
    "not a number": b'{"a": NaN}',
    "a number without end": b'{"a": ' + b"9" * 5000 + b"}",
    "a key twice": b'{"a": 1, "a": 2}',
    "nested": DEEP.encode(),
    "a mapping, nested": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "no text": b'{"a": "\xff\xfe"}',
    "half a character": b'{"a": "\\ud800"}',
}
VALUES: tuple[Any, ...] = (
    [],
    {},
    "text",
    -1,
    1e300,
    True,
    None,
    [[1]],
    {"a": [1]},
    "x" * 5000,
    "../../etc/passwd",
    "\0",
)
"""What is put in the place of a value, but where it is of the same type."""


def whole(path: Path) -> Iterator[str]:
    """Forge the document as a whole, one form after the other."""
    for form, content in WHOLE.items():
        path.write_bytes(content)
        yield form


def everywhere(path: Path, *, under: tuple[str, ...] = (), places: int = 30, values: Any = VALUES) -> Iterator[str]:
    """Forge values of the document, one place after the other, and leave each out."""
    honest = read_json(path)
    for place in [place for place in paths_of(honest) if place[: len(under)] == under][:places]:
        for value in (*values, ...):
            forged = changed(honest, place, value)
            if forged != honest:
                path.write_text(json.dumps(forged), encoding="utf-8")
                yield f"{'.'.join(map(str, place))} is {str(value)[:20]}"


def paths_of(data: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a document; of a list the first alone."""
    children = data.items() if isinstance(data, dict) else enumerate(data[:1]) if isinstance(data, list) else ()
    for key, value in children:
        yield (*before, key)
        yield from paths_of(value, (*before, key))


def changed(data: Any, place: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value at a place; without it for `...`."""
    copied = json.loads(json.dumps(data))
    holder = copied
    for key in place[:-1]:
        holder = holder[key]
    if value is ...:
        del holder[place[-1]]
    else:
        holder[place[-1]] = value
    return copied


# --- lofi verify -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed release whose files hold; only read."""
    root = tmp_path_factory.mktemp("made")
    store = Store(root / "data")
    lineage(store)
    return released(store, root / "signed", key=SIGNER)


@pytest.fixture
def release(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "release"))


def refused(folder: Path, *, naming: str) -> None:
    """`lofi verify` says in words what does not hold, and no other file is blamed alone."""
    done = CliRunner().invoke(main, ["verify", str(folder)])
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit), (done.exception, done.output[-500:])
    assert naming in done.output.replace("\n", ""), done.output[-500:]


DOCUMENTS = [RELEASE, LIST, SIGNATURE, f"{EVIDENCE}/quality_metrics.json"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_verify_refuses_a_document_of_another_form(release: Path, name: str) -> None:
    """Evidence is also listed anew, since else its hash alone would refuse it."""
    about = read_json(release / RELEASE)
    for _ in whole(release / name):
        if name.startswith(EVIDENCE):
            relist(release, about)
        refused(release, naming=Path(name).stem if name.startswith(EVIDENCE) else name)


def relist(folder: Path, about: dict[str, Any]) -> None:
    """Fit the list to the evidence, as whoever forges everything does."""
    about = json.loads(json.dumps(about))
    for asset in about["evidence"]:
        path = folder / EVIDENCE / f"{asset}.json"
        about["evidence"][asset] = about["files"][f"{EVIDENCE}/{asset}.json"]["sha256"] = sha256_file(path)
    seal(folder, about, key=SIGNER)


FEW: tuple[Any, ...] = ([], {"a": [1]}, "text", True, None)


@pytest.mark.parametrize("name", [RELEASE, LIST, SIGNATURE])
def test_verify_finds_every_forged_value(release: Path, name: str) -> None:
    for form in everywhere(release / name, values=FEW):
        done = CliRunner().invoke(main, ["verify", str(release), "--json"])
        assert done.exit_code == 1 and isinstance(done.exception, SystemExit), (form, done.exception)


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a//b", "./a", "a" * 300, "a\0b", "a\nb", ""])
def test_a_name_that_is_no_files_is_refused(release: Path, name: str) -> None:
    for key in ("files", "evidence"):
        about = read_json(release / RELEASE)
        about[key][name] = {"bytes": 1, "sha256": "0" * 64} if key == "files" else "0" * 64
        seal(release, about, key=SIGNER)
        refused(release, naming="which leads out of the release or is no file name")


@pytest.mark.parametrize(
    ("asset", "under"), [("quality_metrics", ("predicate", "values")), ("processed_tracks", ("predicate",))]
)
def test_verify_judges_forged_evidence_without_a_traceback(release: Path, asset: str, under: tuple[str, ...]) -> None:
    """Listed anew, hashes and all. A measure of a gate that holds never passes by being of another type."""
    about = read_json(release / RELEASE)
    held = [f"values.{gate.measure} is" for gate in load_gates() if gate.asset == asset and "hub_release" in gate.holds]
    for form in everywhere(release / EVIDENCE / f"{asset}.json", under=under, places=16, values=FEW):
        relist(release, about)
        done = CliRunner().invoke(main, ["verify", str(release), "--json"])
        assert done.exit_code in (0, 1) and isinstance(done.exception, SystemExit | None), (form, done.exception)
        assert done.exit_code == 1 or not any(name in form for name in held), form


@pytest.mark.parametrize("counts", [{}, {"accepted": 1}, {"violating": 0, "rejected": 0}])
def test_counts_that_lack_one_are_not_measured(counts: dict[str, int]) -> None:
    gate = next(found for found in load_gates() if found.scope == "track")
    told = Measures(str(gate.asset), "1", tracks={gate.id: counts})
    assert verdict(gate, told).status == "inconclusive"


ROW = {"id": "a.b", "article": "x", "scope": "asset", "measure": "m", "op": "<", "limit": 1, "why": "w", "asset": "a"}
ROWS: tuple[Any, ...] = (
    5, [[]], [ROW | {"id": [1]}], [ROW | {"measure": ["m"]}], [ROW | {"limit": {"a": 1}}], [ROW | {"holds": 5}],
    [ROW | {"holds": [["hub_release"]]}], [ROW | {"asset": 5}], [ROW | {"limit": float("nan")}], [{1: 2}],
)  # fmt: skip
TABLES = [
    f"version: 1.0.0\ntraining_table: {{}}\ngates: {yaml.safe_dump(rows, default_flow_style=True)}" for rows in ROWS
]
TABLES += [
    "[]",
    "7",
    "version: 1",
    "a: &a [*a]",
    "? [1, 2]\n: 3",
    "\0",
    "!!set {a, b}",
    "[version, gates, training_table]",
]
TABLES += [TABLES[4].replace("{}", "!!set {a}"), TABLES[2].replace("{}", "{1: 2, a: 3}")]


@pytest.mark.parametrize("text", TABLES, ids=range(len(TABLES)))
def test_verify_refuses_a_table_of_gates_of_another_form(release: Path, text: str) -> None:
    about = read_json(release / RELEASE)
    (release / EVIDENCE / "constitution.yaml").write_text(text)
    about["files"][f"{EVIDENCE}/constitution.yaml"]["sha256"] = sha256_file(release / EVIDENCE / "constitution.yaml")
    seal(release, about, key=SIGNER)
    refused(release, naming="constitution")


# --- lofi verify --deep ----------------------------------------------------------------------------------------------


SAMPLES_TOLD = {
    "tier": "fp16",
    "seconds": 4.0,
    "steps": 6,
    "guidance_scale": 3.0,
    "clips": [{"file": "1.flac", "prompt": "lofi", "lyrics": "", "seed": 3}],
}


@pytest.fixture
def parts(released: Store) -> Path:
    """Both repositories; the tiers are no graphs, so everything that would play fails by itself."""
    parity().write(released.export)
    put(released.export / SAMPLES / "samples.json", json.dumps(SAMPLES_TOLD).encode())
    list_bundle(released)
    publish(released, profile_for("folder"))
    folder = released.release / "published"
    for tier in ("fp16", "int4"):  # each proof of a tier is a process
        shutil.rmtree(folder / "tiers" / "bundle" / tier)
    return folder


def again(parts: Path, scratch: Path) -> list[MeasuredAgain]:
    """What can be measured with a base that is none."""
    rows = adapter_again(parts / "adapter", record("adapter"), base=parts, scratch=scratch)[0]
    return [*rows, *tiers_again(parts / "tiers", record("tiers"), merged=parts / "nothing", scratch=scratch)]


def never_the_same(rows: list[MeasuredAgain], form: str, *, about: str) -> None:
    for row in rows:
        assert not (row.about.startswith(about) and row.status == "same"), (form, row)


@pytest.mark.parametrize(
    ("name", "about"),
    [
        ("adapter/config.json", "merge"),
        ("adapter/adapter_config.json", "adapter.forms"),
        ("tiers/bundle/parity.json", "bundle.parity"),
        ("tiers/bundle/samples/samples.json", "bundle.samples"),
        ("tiers/bundle/int8/manifest.json", "tiers"),
    ],
)
def test_deep_refuses_every_form_of_every_document(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, about: str
) -> None:
    monkeypatch.setattr("lofi_assets.release.deep_tiers.prove_tier", no_proof)
    monkeypatch.setattr("lofi_assets.release.deep_tiers._baseline", lambda *_: (None, "not here"))
    monkeypatch.setattr("lofi_assets.release.deep_clips.torch_clip", lambda *_, **__: np.zeros((2, 48000)))
    path = parts / name
    honest = path.read_bytes()
    for form in whole(path):
        said(parts, tmp_path, form, about=about, naming=path.name)
    path.write_bytes(honest)
    for form in everywhere(path):
        said(parts, tmp_path, form, about="", naming="")
    path.write_bytes(honest)


def said(parts: Path, scratch: Path, form: str, *, about: str, naming: str) -> None:
    """Either rows, none of them the same where the whole document is forged, or a sentence that names the file."""
    try:
        rows = again(parts, scratch)
    except LofiError as error:
        assert naming in str(error), (form, error)
    else:
        if about:
            never_the_same(rows, form, about=about)


def no_proof(folder: Path, **_: Any) -> Any:
    from lofi_assets.quantization.proof import ProofError

    raise ProofError(f"{folder}: stand-in")


def test_a_configuration_that_would_make_peft_import_something_is_not_given_to_it(parts: Path, tmp_path: Path) -> None:
    path = parts / "adapter" / "adapter_config.json"
    config = read_json(path)
    path.write_text(json.dumps(config | {"megatron_config": {"a": 1}, "megatron_core": "antigravity"}))
    (found,) = (row for row in again_adapter(parts, tmp_path) if row.about == "merge.parity")
    assert found.status == "differs" and "megatron_core is 'antigravity'" in found.text


def again_adapter(parts: Path, scratch: Path) -> list[MeasuredAgain]:
    return adapter_again(parts / "adapter", record("adapter"), base=parts, scratch=scratch)[0]


@pytest.mark.parametrize("value", [[], {}, "much", True, None, {"value": []}, {"value": "0"}])
def test_a_merge_on_record_that_is_no_number_is_none(value: Any, parts: Path, made: Path) -> None:
    folder = parts / "adapter"
    shutil.copytree(made / EVIDENCE, folder / EVIDENCE, dirs_exist_ok=True)
    path = folder / EVIDENCE / "merged_model.json"
    data = read_json(path)
    data["predicate"]["values"]["merge_max_error"] = value
    path.write_text(json.dumps(data))
    assert _recorded(folder, "merge_max_error") is None


def test_hours_of_audio_are_not_made_for_a_forged_record() -> None:
    assert not too_long(Clip("lofi", "", 60.0, 60, 1))
    for clip in (Clip("a", "", 1e9, 6, 1), Clip("a", "", 4.0, 10**9, 1), Clip("a" * 30_000, "", 4.0, 6, 1)):
        assert too_long(clip)


# --- the guard, the bundle, its runner -------------------------------------------------------------------------------


class Log:
    """One run left whatever evidence lies there."""

    def __init__(self, store: Store, asset: str) -> None:
        self.store, self.asset = store, asset

    def latest(self, asset: str) -> Materialized | None:
        return Materialized(sha256_file(self.document), f"{asset} 1", "run")

    def with_evidence(self, asset: str, sha256: str) -> Materialized | None:
        return self.latest(asset)

    @property
    def document(self) -> Path:
        (found,) = evidence.folder(self.store).glob(f"{self.asset}/*.json")
        return found


def test_the_guard_believes_no_document_of_another_form(tmp_path: Path) -> None:
    """Filed under its own hash, and with the event of a real run, as who can write everywhere would."""
    store, asset = Store(tmp_path / "data"), "style_taxonomy"
    lineage(store)
    log = Log(store, asset)
    for path in evidence.folder(store).glob(f"{asset}/*.json"):
        if path.stem != evidence.current_sha256(store, asset):
            path.unlink()
    honest = log.document
    forms: list[Callable[[Path], Iterator[str]]] = [whole, lambda path: everywhere(path)]
    text = honest.read_bytes()
    for forged in forms:
        scratch = tmp_path / "scratch.json"
        scratch.write_bytes(text)
        for form in forged(scratch):
            log.document.unlink()
            digest = sha256_file(scratch)
            shutil.copyfile(scratch, evidence.document_path(store, asset, digest))
            evidence.pointer_path(store, asset).write_text(json.dumps({"sha256": digest}))
            reason = Chain(store, log).reason(asset)
            if forged is whole:
                assert asset in reason, form


@pytest.mark.parametrize("content", WHOLE.values(), ids=WHOLE.keys())
def test_what_a_bundle_says_of_itself_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "int8").mkdir()
    for name, read in {
        MANIFEST: Bundle.read,
        PARITY: Parity.read,
        "int8/manifest.json": tier_report,
        DESCRIPTION: defaults_of,
    }.items():
        (tmp_path / name).write_bytes(content)
        try:
            found = read(tmp_path)
        except LofiError as error:
            assert Path(name).name in str(error) or (content == b"null" and "no tier in it" in str(error))
        except DescriptionError as error:  # of the runtime that a bundle carries, which has no LofiError
            assert DESCRIPTION in str(error)
        else:
            assert found is None and content == b"null", name
        (tmp_path / name).unlink()


def test_every_forged_value_of_pipeline_json_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / DESCRIPTION
    told = {**computed(), "defaults": {"steps": 6, "guidance_scale": 3.0}}
    path.write_text(json.dumps(told))
    assert defaults_of(tmp_path).steps == 6
    for form in everywhere(path):
        try:
            defaults_of(tmp_path)
        except DescriptionError as error:
            assert DESCRIPTION in str(error), form
    path.write_text('{"defaults": {"steps": Infinity, "guidance_scale": 1}}')
    with pytest.raises(DescriptionError, match="no description"):
        defaults_of(tmp_path)


def test_forged_parity_is_never_a_pass(tmp_path: Path) -> None:
    path = tmp_path / PARITY
    parity().write(tmp_path)
    assert parity_measure(Parity.read(tmp_path))["value"] == 0
    for form in everywhere(path):
        try:
            value = parity_measure(Parity.read(tmp_path))["value"]
        except LofiError:
            continue
        assert value != 0 or "audio_snr_db" not in form or "1e+300" in form, form
