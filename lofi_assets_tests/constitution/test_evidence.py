"""The document that a materialisation leaves, and what nobody can do to it without being found out."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from lofi_assets.constitution import evidence
from lofi_assets.constitution.chain import Chain, Materialized, read_again
from lofi_assets.constitution.clearance import Clearance, NotClearedError, give, use
from lofi_assets.constitution.evidence import Evidence
from lofi_assets.constitution.made_with import ConstitutionInForce, constitution_in_force
from lofi_assets.constitution.verdicts import Measures
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.hashing import sha256_file
from lofi_assets.files.writing import StoreError
from lofi_assets.outcome import Written
from lofi_assets.store import Store
from lofi_assets_tests.recorded_evidence import RUN, Log, record

WEIGHTS = "checkpoints/epoch=0-step=10_lora/adapter_model.safetensors"
RAW, CLIP = "raw/commissioned/rain.wav", "samples/epoch=0-step=10_lora/000_rain.mp3"
REPORT = "metadata/quality_metrics.json"


def put(store: Store, name: str, content: str) -> Path:
    path = store.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Raw audio, a checkpoint trained on it, its clips, their numbers: an asset each."""
    store = Store(tmp_path)
    raw, weights = put(store, RAW, "rain"), put(store, WEIGHTS, "weights")
    clip, report = put(store, CLIP, "clip"), put(store, REPORT, "numbers")
    record(store, Measures("sources", "s1", tracks={"licence": COUNTS}), written=Written(given=[raw]))
    record(store, Measures("checkpoints", "c1", {"sources": ""}), written=Written(given=[weights]))
    folder = clip.parent
    record(store, Measures("samples", "a1", {"checkpoints": ""}), written=Written(files=[clip], prunable=[folder]))
    written = Written(files=[report], materials=[clip, weights])
    record(store, Measures("metrics", "m1", {"samples": ""}, values={"fad": 2.0}), written=written)
    return store


COUNTS = {"accepted": 3, "violating": 0, "rejected": 1}


def reason(store: Store, asset: str = "metrics", *, log: Log | None = None, **latest: Materialized | None) -> str:
    return Chain(store, log or Log(store, **latest), hasher=read_again).reason(asset)


def document(store: Store, asset: str) -> tuple[Path, dict[str, Any]]:
    path = evidence.document_path(store, asset, evidence.current_sha256(store, asset))
    return path, json.loads(path.read_text())


# --- the document ----------------------------------------------------------------------------------------------------


def test_it_is_an_in_toto_statement_whose_subject_is_what_the_asset_wrote(store: Store) -> None:
    path, found = document(store, "metrics")
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    subject = {item["name"]: item["digest"]["sha256"] for item in found["subject"]}
    assert subject[REPORT] == sha256_file(store.root / REPORT)
    assert found["predicate"]["materials"] == {WEIGHTS: sha256_file(store.root / WEIGHTS)}
    assert path.stem == sha256_file(path)


def test_it_says_what_it_was_made_with_and_from(store: Store) -> None:
    predicate = document(store, "metrics")[1]["predicate"]
    assert predicate["values"] == {"fad": 2.0}
    assert predicate["upstream"]["samples"] == {
        "sha256": evidence.current_sha256(store, "samples"),
        "data_version": "a1",
    }
    assert predicate["constitution"]["gates_sha256"] == constitution_in_force().gates_sha256
    assert len(predicate["code"]["source_sha256"]) == 64 and len(predicate["environment"]["packages_sha256"]) == 64


def test_no_document_names_a_track(store: Store) -> None:
    """They can be published; what names tracks is in a list beside them, bound by its hash."""
    for asset in ("sources", "checkpoints", "samples", "metrics"):
        path, found = document(store, asset)
        assert "rain" not in path.read_text() and "rain" not in json.dumps(found)
    tracked = evidence.read_list(store, evidence.read(store, "samples", evidence.current_sha256(store, "samples")))
    assert tracked.files == {CLIP: sha256_file(store.root / CLIP)}


def test_the_same_facts_make_the_same_document(store: Store) -> None:
    before = evidence.current_sha256(store, "sources")
    record(store, Measures("sources", "s1", tracks={"licence": COUNTS}), written=Written(given=[store.root / RAW]))
    assert evidence.current_sha256(store, "sources") == before


@pytest.mark.parametrize(
    ("asset", "content", "said"),
    [("metrics", "{", "not JSON"), ("metrics", '{"x": 1}', "names no evidence"), ("metrics", "[]", "no evidence")],
)
def test_a_broken_pointer_is_named_with_its_remedy(store: Store, asset: str, content: str, said: str) -> None:
    evidence.pointer_path(store, asset).write_text(content)
    with pytest.raises(StoreError, match=f"{said}.*materialise metrics again"):
        evidence.current_sha256(store, asset)


@pytest.mark.parametrize("changed", [{"_type": "https://in-toto.io/Statement/v0.1"}, {"predicateType": "other"}, None])
def test_a_statement_of_another_kind_is_refused(store: Store, changed: dict[str, str] | None) -> None:
    found = document(store, "metrics")[1]
    data: object = [] if changed is None else found | changed
    with pytest.raises(StoreError, match="no evidence of this version"):
        evidence.parsed_statement(data, where="it", remedy="again")


# --- what holds ------------------------------------------------------------------------------------------------------


def test_an_untouched_lineage_holds_and_says_which_files_it_saw(store: Store) -> None:
    chain = Chain(store, Log(store), hasher=read_again)
    assert chain.reason("metrics") == ""
    assert set(chain.held) == {"sources", "checkpoints", "samples", "metrics"}
    assert chain.files == {name: sha256_file(store.root / name) for name in (RAW, WEIGHTS, CLIP, REPORT)}


def test_clips_that_retention_removed_as_a_whole_are_no_fault_of_the_samples(store: Store) -> None:
    (store.root / CLIP).unlink()
    (store.root / CLIP).parent.rmdir()
    assert reason(store, "samples") == ""
    assert "was removed" in reason(store, "metrics"), "its numbers are about them"


def test_an_asset_run_again_by_other_code_keeps_what_was_built_from_the_same_data(store: Store) -> None:
    before = Log(store).latest("samples")
    assert before is not None
    made = Written(files=[store.root / CLIP], prunable=[(store.root / CLIP).parent])
    record(store, Measures("samples", "a1", {"checkpoints": ""}, counts={"clips": 9}), written=made)
    log = Log(store)
    log.earlier["samples", before.evidence] = before
    assert reason(store, log=log) == ""
    assert "names evidence of samples that no run left" in reason(store)


# --- what does not ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [RAW, WEIGHTS, CLIP, REPORT])
def test_a_changed_file_is_named_with_the_run_that_it_is_not_of(store: Store, name: str) -> None:
    put(store, name, "something else")
    assert f"{name} was changed after run {RUN[:8]}" in reason(store)


@pytest.mark.parametrize("name", [RAW, WEIGHTS, REPORT])
def test_a_removed_file_is_named(store: Store, name: str) -> None:
    (store.root / name).unlink()
    assert f"{name} was removed" in reason(store)


def test_a_link_in_a_files_place_is_named_even_to_the_same_bytes(store: Store) -> None:
    path = store.root / WEIGHTS
    path.rename(path.with_name("kept"))
    path.symlink_to("kept")
    assert f"{WEIGHTS} was replaced by a link" in reason(store)


def test_a_file_with_its_size_and_time_put_back_is_still_found_out(store: Store) -> None:
    path = store.root / WEIGHTS
    before = path.stat()
    put(store, WEIGHTS, "WEIGHTS")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "was changed" in reason(store)
    assert "was changed" in Chain(store, Log(store)).reason("metrics"), "the time of change cannot be put back"


def edited(store: Store, asset: str, **changes: Any) -> str:
    """A document with other facts, put in the place of the true one; returns its own sha256."""
    found = evidence.read(store, asset, evidence.current_sha256(store, asset))
    text = evidence.statement(Evidence(**{**vars(found), **changes}))
    path = evidence.document_path(store, asset, evidence.current_sha256(store, asset))
    path.write_text(text)
    return sha256_file(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"values": {"fad": 0.1}},
        {"upstream": {}},
        {"files": {}},
        {"materials": {}},
        {"constitution": ConstitutionInForce("0.0.1", "0" * 64)},
        {"data_version": "m2"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_an_edited_document_is_found_out(store: Store, changes: dict[str, Any]) -> None:
    log = Log(store)
    edited(store, "metrics", **changes)
    assert "was changed after metrics was materialised" in reason(store, log=log)


def test_an_edited_document_under_its_own_new_hash_is_not_the_one_of_the_run(store: Store) -> None:
    log = Log(store)
    latest = log.latest("metrics")
    sha256 = edited(store, "metrics", values={"fad": 0.1})
    old = evidence.document_path(store, "metrics", evidence.current_sha256(store, "metrics"))
    old.rename(evidence.document_path(store, "metrics", sha256))
    write_json(evidence.pointer_path(store, "metrics"), {"sha256": sha256})
    assert "another build than its latest materialisation" in reason(store, metrics=latest)


def test_what_is_no_json_is_named_even_under_its_own_hash(store: Store) -> None:
    sha256 = hashlib.sha256(b"{").hexdigest()
    evidence.document_path(store, "metrics", sha256).write_bytes(b"{")
    with pytest.raises(StoreError, match="materialise metrics again"):
        evidence.read(store, "metrics", sha256)


def test_an_edited_list_of_tracks_is_found_out(store: Store) -> None:
    found = evidence.read(store, "samples", evidence.current_sha256(store, "samples"))
    path = evidence.list_path(store, "samples", found.track_list)
    write_json(path, read_json(path) | {"files": {}})
    assert "was changed after samples was materialised" in reason(store)


def test_evidence_that_is_gone_is_named(store: Store) -> None:
    log = Log(store)
    document(store, "samples")[0].unlink()
    assert "the evidence of samples is gone" in reason(store, log=log)


def test_numbers_of_another_asset_are_refused(store: Store) -> None:
    """Two assets' documents swapped, in an event log that somebody reported so."""
    other = evidence.current_sha256(store, "samples")
    source = evidence.document_path(store, "samples", other)
    evidence.document_path(store, "metrics", other).write_bytes(source.read_bytes())
    write_json(evidence.pointer_path(store, "metrics"), {"sha256": other})
    assert "is of samples" in reason(store, metrics=Materialized(other, "a1", RUN))


def test_a_materialisation_that_was_reported_is_no_evidence(store: Store) -> None:
    sha256 = evidence.current_sha256(store, "checkpoints")
    found = reason(store, checkpoints=Materialized(sha256, "c1", ""))
    assert "materialisation of checkpoints was reported, not made by a run" in found


def test_a_materialisation_of_an_earlier_version_of_the_code_left_no_evidence(store: Store) -> None:
    assert "left no evidence of samples" in reason(store, samples=Materialized("", "a1", RUN))


def test_a_wiped_asset_is_not_materialised(store: Store) -> None:
    assert reason(store, sources=None) == "checkpoints was built from an earlier sources"
    assert reason(store, metrics=None) == "metrics is not materialised"


def test_an_upstream_without_evidence_is_no_upstream(tmp_path: Path) -> None:
    store = Store(tmp_path)
    record(store, Measures("metrics", "m1", {"samples": ""}))
    assert reason(store) == "metrics was made without evidence of samples; materialise both"


def test_what_an_asset_is_about_must_be_what_was_made_before_it(store: Store) -> None:
    """Another checkpoint's weights under this one's name while people listened, put back since."""
    true = (store.root / WEIGHTS).read_text()
    heard = put(store, WEIGHTS, "another checkpoint's weights")
    record(store, Measures("listening", "l1", {"checkpoints": ""}), written=Written(materials=[heard]))
    put(store, WEIGHTS, true)
    assert f"{WEIGHTS} was changed" in reason(store, "listening")
    put(store, WEIGHTS, "another checkpoint's weights")
    assert f"{WEIGHTS} was changed after run {RUN[:8]} made checkpoints" in reason(store, "checkpoints")


def test_material_that_nothing_before_it_made_is_refused(store: Store) -> None:
    foreign = put(store, "checkpoints/other/adapter_model.safetensors", "from elsewhere")
    record(store, Measures("merged", "g1", {"checkpoints": ""}), written=Written(materials=[foreign]))
    assert "which merged is about, is not what was made before it" in reason(store, "merged")


def test_tracks_that_were_let_in_by_another_constitution_are_judged_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ConstitutionInForce("9.0.0", "9" * 64)
    monkeypatch.setattr("lofi_assets.constitution.chain.constitution_in_force", lambda: other)
    assert "the tracks of sources were judged by constitution" in reason(store)


def test_a_circle_ends(store: Store) -> None:
    record(store, Measures("one", "1", {"two": ""}))
    record(store, Measures("two", "2", {"one": ""}))
    record(store, Measures("one", "1", {"two": ""}))
    assert reason(store, "two")


# --- the permit ------------------------------------------------------------------------------------------------------


def permit(**changes: Any) -> Clearance:
    facts = {"asset": "hub_release", "verdicts": (), "evidence": {}, "files": {}}
    return Clearance(**{**facts, "constitution": constitution_in_force(), **changes})


def test_a_permit_is_good_once(store: Store) -> None:
    given = give(permit())
    use(given, asset="hub_release")
    with pytest.raises(NotClearedError, match="one use"):
        use(given, asset="hub_release")


@pytest.mark.parametrize("made", [permit, lambda: give(permit(asset="merged_model")), lambda: give(permit(at=-1e6))])
def test_a_permit_that_the_guard_did_not_just_give_for_this_is_none(made: Any) -> None:
    with pytest.raises(NotClearedError, match="materialise hub_release"):
        use(made(), asset="hub_release")
