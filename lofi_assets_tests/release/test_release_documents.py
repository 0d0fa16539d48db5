"""What a release records: read back as it was written, as the release before wrote it, or refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lofi_assets.files.documents import write_json
from lofi_assets.files.typed import parsed, plain
from lofi_assets.files.writing import StoreError
from lofi_assets.release.files import Approver, ReleasedFile, ReleasedGate, ReleaseRecord
from lofi_assets.release.hub_commit import OnHub, PartOnHub
from lofi_assets.release.model_card import Approval
from lofi_assets.release.onnx_artifacts import MANIFEST, Bundle, ExampleRun, differences
from lofi_assets.store import Store

APPROVAL = {"card_sha256": "c" * 64, "approved_by": "R. Manager", "date": "2025-12-22T12:00:00+00:00"}
BUNDLE = {"key": "k" * 64, "example": {"ran": True, "note": ""}, "files": {"example.py": "0" * 64}}
RELEASE = {
    "checkpoint": "epoch=0-step=240_lora",
    "adapter_sha256": "a" * 64,
    "base_fingerprint": "b" * 64,
    "dataset_sha256": "d" * 64,
    "config_sha256": "e" * 64,
    "card_sha256": "c" * 64,
    "approval": {"approved_by": "R. Manager", "date": "2025-12-22T12:00:00+00:00"},
    "constitution": "1.1.1",
    "gates": [{"gate": "merge.parity", "verdict": "pass", "value": "3e-05 < 0.001"}],
    "tools": {"python": "3.11.9", "peft": None},
    "files": {"README.md": {"bytes": 42, "sha256": "c" * 64}},
}


def test_an_approval_is_read_and_written_again_byte_for_byte(store: Store) -> None:
    path = store.release / "approval.json"
    write_json(path, APPROVAL)
    before = path.read_bytes()
    found = Approval.read(store)
    assert found == Approval("c" * 64, "R. Manager", "2025-12-22T12:00:00+00:00")
    found.write(store)
    assert path.read_bytes() == before


def test_a_bundle_is_read_and_written_again_byte_for_byte(tmp_path: Path) -> None:
    write_json(tmp_path / MANIFEST, BUNDLE)
    before = (tmp_path / MANIFEST).read_bytes()
    found = Bundle.read(tmp_path)
    assert found == Bundle("k" * 64, ExampleRun(True, ""), {"example.py": "0" * 64})
    found.write(tmp_path)
    assert (tmp_path / MANIFEST).read_bytes() == before


def test_a_release_of_the_release_before_is_read_as_what_it_is() -> None:
    found = parsed(ReleaseRecord, RELEASE, where="release.json", remedy="again")
    assert found.approval == Approver("R. Manager", "2025-12-22T12:00:00+00:00")
    assert found.gates == (ReleasedGate("merge.parity", "pass", "3e-05 < 0.001"),) and found.tools["peft"] is None
    assert found.files == {"README.md": ReleasedFile(42, "c" * 64)}
    assert (found.part, found.release, found.made_from) == (None, "", {}), "one repository for everything"


def test_a_release_is_read_and_written_again_in_the_same_order_since_the_text_is_what_is_hashed() -> None:
    now = RELEASE | {
        "part": "tiers",
        "release": "f" * 64,
        "evidence": {"model_card": "1" * 64},
        "made_from": {"config.json": "0" * 64},
    }
    found = parsed(ReleaseRecord, now, where="release.json", remedy="again")
    assert json.dumps(plain(found)) == json.dumps(now)


def test_where_the_repositories_of_a_release_stand_is_read_back(store: Store) -> None:
    stands = PartOnHub(repo="team/lofi", state="proposed", pull_request=3, commit="1" * 40)
    OnHub(release="f" * 64, parts={"tiers": stands}).write(store)
    assert OnHub.read(store) == OnHub(release="f" * 64, parts={"tiers": stands})


def test_before_anything_was_bundled_or_approved_there_is_nothing_on_record(store: Store) -> None:
    assert Approval.read(store) is None and Bundle.read(store.export) is None


@pytest.mark.parametrize(
    ("file", "content", "read", "said"),
    [
        ("release/approval.json", APPROVAL | {"date": None}, Approval.read, "date.*approve it: lofi approve-card"),
        ("release/approval.json", {"approved_by": "R. Manager"}, Approval.read, "card_sha256.*lofi approve-card"),
        ("release/approval.json", APPROVAL | {"for": "v2"}, Approval.read, "for: .*lofi approve-card"),
        ("export/bundle.json", {"key": "k", "files": {}}, lambda store: Bundle.read(store.export), "example"),
        ("export/bundle.json", BUNDLE | {"size": 3}, lambda store: differences(store.export), "size.*onnx_artifacts"),
    ],
)
def test_a_record_of_another_version_is_refused_by_name(
    store: Store, file: str, content: Any, read: Callable[[Store], object], said: str
) -> None:
    write_json(store.root / file, content)
    with pytest.raises(StoreError, match=f"{store.root / file}: is of another version .*{said}"):
        read(store)


@pytest.mark.parametrize("change", [{"gates": {}}, {"signature": "x"}, {"files": {"a": {"bytes": 1}}}])
def test_a_release_of_another_version_is_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(StoreError, match=rf"release\.json: is of another version .*{next(iter(change))}.*; empty it"):
        parsed(ReleaseRecord, RELEASE | change, where="release.json", remedy="empty it")
