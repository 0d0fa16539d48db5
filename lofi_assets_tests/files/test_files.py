"""Through links, with the mode of what stood there, into folders that cannot be written; copies that share nothing."""

import errno
import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest

from lofi_assets.files import writing as files
from lofi_assets.files.documents import read_json, write_json, write_text
from lofi_assets.files.tables import read_columns, write_table
from lofi_assets.files.writing import StoreError, atomic_folder, atomic_path, copy_file
from lofi_assets.sources.claims import load_sources
from lofi_assets.sources.ledger import add
from lofi_assets.sources.licences import load_licences
from lofi_assets.store import CONFIG_DIR, Store
from lofi_assets.tracks.landing import landing_state
from lofi_assets.tracks.process_track import attempt
from lofi_assets.tracks.review import Review, append_reviews, read_reviews

RECORD = {
    "source_id": "source_001",
    "track_ids": ["rain_01"],
    "source_type": "commissioned",
    "provider": "Someone",
    "license_type": "AI training license",
    "cost": 1.0,
    "date_acquired": "2025-01-15",
    "verified_by": "A. Reviewer",
    "ai_training_rights": True,
    "evidence": "https://example.org/contract",
}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(".part")]


@pytest.fixture
def shared(store: Store, tmp_path: Path) -> Path:
    """A ledger on a share, which the data root's is a link to."""
    path = tmp_path / "share" / "ledger.json"
    path.parent.mkdir()
    path.write_text("[]\n")
    store.metadata("").mkdir(parents=True)
    store.metadata("sources.json").symlink_to(path)
    return path


def review(track_id: str) -> Review:
    about = {"track_id": track_id, "audio_sha256": "a" * 64, "proposal": "b" * 64}
    return Review.model_validate(about | {"decision": "accepted", "by": "Ada", "at": datetime(2026, 1, 5, tzinfo=UTC)})


# --- through links ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_text(path, "new"),
        lambda path: write_json(path, ["new"]),
        lambda path: write_table(path, pd.DataFrame([{"new": 1}])),
    ],
    ids=["text", "json", "table"],
)
def test_a_write_through_a_link_changes_what_it_leads_to(tmp_path: Path, write: Callable[[Path], object]) -> None:
    target, link = tmp_path / "share" / "shared", tmp_path / "data" / "linked"
    target.parent.mkdir()
    target.write_bytes(b"old")
    link.parent.mkdir()
    link.symlink_to("../share/shared")
    write(link)
    assert link.is_symlink() and link.samefile(target) and b"old" not in target.read_bytes()
    assert leftovers(tmp_path) == []


def test_a_record_that_is_added_stands_in_the_shared_ledger(store: Store, shared: Path) -> None:
    seen = landing_state(store).library
    add(store, RECORD, licences=load_licences(CONFIG_DIR), today=date(2026, 1, 5))
    assert store.metadata("sources.json").is_symlink()
    assert [record["source_id"] for record in read_json(shared)] == ["source_001"]
    assert landing_state(store).library != seen, "an edit of the shared ledger is noticed"


def test_decisions_are_added_to_the_shared_file(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "reviews.jsonl"
    append_reviews(Store(tmp_path / "other"), [review("a")])
    (tmp_path / "other" / "metadata" / "reviews.jsonl").rename(target)
    target.chmod(0o664)
    store.metadata("").mkdir(parents=True)
    store.metadata("reviews.jsonl").symlink_to(target)
    append_reviews(store, [review("b")])
    assert [found.track_id for found in read_reviews(store)] == ["a", "b"]
    assert mode(target) == 0o664 and store.metadata("reviews.jsonl").is_symlink()


def test_a_folder_that_is_a_link_is_replaced_where_it_lies(tmp_path: Path) -> None:
    target, link = tmp_path / "big disk" / "export", tmp_path / "export"
    target.mkdir(parents=True)
    (target / "model.onnx").write_text("old")
    target.chmod(0o2775)
    link.symlink_to(target)
    with atomic_folder(link) as temporary:
        (temporary / "model.onnx").write_text("new")
    assert link.is_symlink() and (target / "model.onnx").read_text() == "new"
    assert mode(target) == 0o2775 and leftovers(tmp_path) == []


def test_a_link_that_leads_nowhere_is_named_and_never_taken_for_an_empty_ledger(store: Store, shared: Path) -> None:
    shared.unlink()
    ledger = store.metadata("sources.json")
    for touch in (
        lambda: write_json(ledger, []),
        lambda: read_json(ledger, default=[]),
        lambda: read_columns(ledger, "a"),
        lambda: load_sources(ledger),
        lambda: add(store, RECORD, licences=load_licences(CONFIG_DIR), today=date(2026, 1, 5)),
    ):
        with pytest.raises(StoreError, match=r"sources\.json: is a link to .*ledger\.json, which is not there; mount"):
            touch()
    assert ledger.is_symlink() and not shared.exists()


def test_links_in_a_circle_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(StoreError, match="which is not there"):
        write_text(tmp_path / "a", "text")


# --- mode and group --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [0o664, 0o600, 0o444])
def test_a_file_keeps_its_mode_and_its_time_is_that_of_the_write(tmp_path: Path, wanted: int) -> None:
    path = tmp_path / "sources.json"
    write_json(path, [])
    path.chmod(wanted)
    os.utime(path, (1, 1))
    write_json(path, [1])
    assert mode(path) == wanted and path.stat().st_mtime > 1


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_file_keeps_its_owner_and_group(tmp_path: Path) -> None:
    path = tmp_path / "sources.json"
    write_json(path, [])
    os.chown(path, 65534, 65534)
    write_json(path, [1])
    assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65534)


def test_where_the_owner_cannot_be_kept_the_group_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, given = tmp_path / "sources.json", []
    write_json(path, [])

    def chown(_: Path, owner: int, group: int) -> None:
        if owner != -1:
            raise PermissionError(errno.EPERM, "not the superuser")
        given.append(group)

    monkeypatch.setattr(os, "chown", chown)
    write_json(path, [1])
    assert given == [path.stat().st_gid] and read_json(path) == [1]


def test_a_new_file_has_the_mode_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "sources.json", [])
        copy_file(tmp_path / "sources.json", tmp_path / "copy.json")
    finally:
        os.umask(before)
    assert mode(tmp_path / "sources.json") == mode(tmp_path / "copy.json") == 0o640


# --- folders that cannot be written ----------------------------------------------------------------------------------


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that this process cannot write, even if a superuser runs the tests."""
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o555)
    superuser = os.geteuid() == 0
    if superuser:
        for above in (tmp_path, *tmp_path.parents):
            if mode(above) & 0o011 != 0o011 and above.stat().st_uid == 0:
                above.chmod(mode(above) | 0o011)
        os.seteuid(65534)
    yield folder
    if superuser:
        os.seteuid(0)


def test_a_root_that_cannot_be_written_is_one_sentence(read_only: Path) -> None:
    for write in (
        lambda: write_json(Store(read_only).metadata("sources.json"), []),
        lambda: write_text(read_only / "a.txt", "text"),
        lambda: append_reviews(Store(read_only), [review("a")]),
        lambda: add(Store(read_only), RECORD, licences=load_licences(CONFIG_DIR), today=date(2026, 1, 5)),
    ):
        with pytest.raises(StoreError, match=r"read-only.*LOFI_DATA_DIR") as caught:
            write()
        assert "\n" not in str(caught.value)


def test_a_root_below_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(StoreError, match=r"data/metadata: cannot be made \(Not a directory"):
        write_json(Store(tmp_path / "data").metadata("sources.json"), [])


def test_a_folder_that_cannot_be_written_is_not_the_fault_of_a_track(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")

    def work(*_: object) -> None:
        with atomic_path(tmp_path / "cache" / "tracks" / "a.mp3"):
            pass

    with pytest.raises(StoreError, match="cannot be made"):
        attempt("a", "a.wav", work)


# --- copies ----------------------------------------------------------------------------------------------------------


def test_whoever_writes_into_a_copy_leaves_the_other_as_it_was(tmp_path: Path) -> None:
    source, target = tmp_path / "a.mp3", tmp_path / "final" / "a.mp3"
    source.write_bytes(b"music")
    copy_file(source, target)
    with target.open("r+b") as file:
        file.write(b"TAG")
    assert source.read_bytes() == b"music" and target.read_bytes() == b"TAGic"
    assert source.stat().st_nlink == target.stat().st_nlink == 1 and leftovers(tmp_path) == []


def test_a_copy_takes_no_space_where_the_file_system_can_share_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, asked = tmp_path / "a.mp3", []
    source.write_bytes(b"music")

    def share(_: int, request: int, of: int) -> None:
        asked.append((request, Path(f"/proc/self/fd/{of}").readlink()))

    monkeypatch.setattr(fcntl, "ioctl", share)
    monkeypatch.setattr(
        "lofi_assets.files.writing.shutil.copyfile", lambda *_: pytest.fail("copied although the blocks are shared")
    )
    copy_file(source, tmp_path / "b.mp3")
    assert asked == [(0x40049409, source)]


def test_a_copy_that_fails_leaves_the_target_and_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "a.mp3", tmp_path / "b.mp3"
    source.write_bytes(b"music")
    target.write_bytes(b"older")

    def full_disk(_: Path, destination: Path) -> None:
        destination.write_bytes(b"mu")
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(files, "_cloned", lambda *_: False)
    monkeypatch.setattr("lofi_assets.files.writing.shutil.copyfile", full_disk)
    with pytest.raises(OSError, match="no space"):
        copy_file(source, target)
    assert target.read_bytes() == b"older" and leftovers(tmp_path) == []


def test_two_roots_on_one_ledger_keep_it_from_each_other(store: Store, shared: Path, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    other.metadata("").mkdir(parents=True)
    other.metadata("sources.json").symlink_to(shared)
    code = (
        "import sys; from datetime import date; from pathlib import Path\n"
        "from lofi_assets.sources import ledger; from lofi_assets.store import Store\n"
        "from lofi_assets.sources.licences import load_licences; from lofi_assets.store import CONFIG_DIR\n"
        "ledger.LOCK_WAIT_S = 0.1\n"
        f"ledger.add(Store(Path(sys.argv[1])), {RECORD!r}, licences=load_licences(CONFIG_DIR), today=date(2026, 1, 5))"
    )
    from lofi_assets.sources.ledger import _locked

    with _locked(store):
        done = subprocess.run(
            [sys.executable, "-c", code, str(other.root)], capture_output=True, text=True, check=False
        )
    assert "another process has been editing it" in done.stderr and shared.read_text(encoding="utf-8") == "[]\n"
