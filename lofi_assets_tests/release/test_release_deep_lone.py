"""`lofi verify --deep` of some of a release's repositories: what was not given is said to be not measured."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lofi_assets.backbones import ACE_STEP_V1
from lofi_assets.cli.main import main
from lofi_assets.files.typed import read_typed
from lofi_assets.quantization.merged_model import MergedModel
from lofi_assets.release import deep_adapter as adapter_module
from lofi_assets.release import deep_tiers as tiers_module
from lofi_assets.release import verification as verification_module
from lofi_assets.release.comfyui_checkpoint import CHECKPOINT, SPIECE
from lofi_assets.release.deep_merged import merged_again
from lofi_assets.release.deep_verification import MERGED_FILE, REPOSITORIES, MeasuredAgain
from lofi_assets.release.files import RELEASE, Part, ReleaseRecord
from lofi_assets.release.verification import Report, belong_together
from lofi_assets.store import Store
from lofi_assets_tests.release.cleared import publish
from lofi_assets_tests.release.stand_in_release import profile_for
from lofi_assets_tests.release.test_release_comfyui import write_model

SAME = [MeasuredAgain("as given", "same")]


def record_of(folder: Path) -> ReleaseRecord:
    found = read_typed(folder / RELEASE, ReleaseRecord, remedy="")
    assert found is not None
    return found


@pytest.fixture
def published(released: Store, tiny_base: Path) -> Path:
    """A release of three repositories; the stand-in's merged model beside it."""
    write_model(tiny_base, MergedModel.current(released).folder(released))
    publish(released, profile_for("folder", comfyui_checkpoint=True))
    return released.release / "published"


@pytest.fixture
def told(released: Store, published: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Exit status and rows of `lofi verify --deep` of some parts: all of their own measurements come to the same."""
    merged = MergedModel.current(released).folder(released)
    monkeypatch.setattr(verification_module, "verify", lambda folder, *, key: Report(record_of(folder), (), (), ""))
    monkeypatch.setattr(adapter_module, "adapter_again", lambda *_, **__: (SAME, merged))
    monkeypatch.setattr(tiers_module, "tiers_again", lambda *_, **__: SAME)

    def run(*parts: Part) -> tuple[int, dict[str, dict[str, str]]]:
        folders = [str(published / part) for part in parts]
        done = CliRunner().invoke(main, ["verify", "--deep", "--json", *folders])
        document = json.loads(done.output)
        assert document["complete"] is (done.exit_code == 0)
        return done.exit_code, {row["about"]: row for row in document["measured_again"]}

    return run


@pytest.mark.parametrize(
    ("parts", "absent"),
    [
        (("adapter",), ("tiers.policy", "tiers.snr", "bundle.parity", "bundle.samples")),
        (("tiers",), ("adapter.forms", "merge.parity")),
        (("merged",), ("adapter.forms", "merge.parity", "tiers.policy")),
        (("adapter", "merged"), ("tiers.policy",)),
        (("adapter", "tiers"), (MERGED_FILE,)),
    ],
)
def test_what_was_not_given_is_named_and_the_exit_status_is_3(
    told: Any, parts: tuple[Part, ...], absent: tuple[str, ...]
) -> None:
    code, rows = told(*parts)
    assert code == 3
    assert rows[REPOSITORIES]["status"] == "not measured" and "not the whole release" in rows[REPOSITORIES]["text"]
    for about in absent:
        assert rows[about]["status"] == "not measured" and "was not given" in rows[about]["text"]


def test_all_of_them_are_whole_and_the_merged_file_is_measured(told: Any) -> None:
    code, rows = told("adapter", "tiers", "merged")
    assert code == 0, rows
    assert rows[REPOSITORIES]["status"] == rows[MERGED_FILE]["status"] == "same"


def test_a_release_without_a_merged_file_is_whole_without_it(told: Any, released: Store) -> None:
    publish(released, profile_for("folder"))
    assert told("adapter", "tiers")[0] == 0
    assert told("adapter")[0] == told("tiers")[0] == 3


def test_three_repositories_that_do_not_make_up_the_release_they_name(published: Path) -> None:
    adapter, tiers, merged = (record_of(published / part) for part in ("adapter", "tiers", "merged"))
    assert belong_together([adapter, tiers, merged]) == []
    files = {name: file for name, file in merged.files.items() if name != CHECKPOINT}
    edited = ReleaseRecord(**{**vars(merged), "files": files})
    assert "not, together, the release" in belong_together([adapter, tiers, edited])[0]


# --- the merged file -------------------------------------------------------------------------------------------------


def places(path: Path) -> dict[str, tuple[str, int, int]]:
    """Tensor -> type and place in the file."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__")
    return {
        name: (told["dtype"], *(8 + length + offset for offset in told["data_offsets"]))
        for name, told in header.items()
    }


def largest(path: Path, kind: str) -> tuple[str, int, int]:
    """Name, start and end of the largest tensor of a type."""
    found = {name: place for name, place in places(path).items() if place[0] == kind}
    name = max(found, key=lambda name: found[name][2] - found[name][1])
    return name, *found[name][1:]


def moved(path: Path, start: int, count: int, steps: int) -> None:
    """Move the first numbers of a BF16 tensor away from zero."""
    data = bytearray(path.read_bytes())
    for place in range(start, start + 2 * count, 2):
        (bits,) = struct.unpack("<H", data[place : place + 2])
        data[place : place + 2] = struct.pack("<H", bits + steps)
    path.write_bytes(data)


@pytest.fixture
def again(released: Store, published: Path) -> Any:
    """The row of the merged file."""
    folder, merged = published / "merged", MergedModel.current(released).folder(released)
    return lambda: merged_again(folder, record_of(folder), merged=merged)


def test_one_step_of_a_few_numbers_is_rounding_and_more_is_not(published: Path, again: Any) -> None:
    path = published / "merged" / CHECKPOINT
    honest = path.read_bytes()
    name, start, end = largest(path, "BF16")
    allowed = int(max(4, (end - start) / 2 / 1000))
    for count, steps, status in ((allowed, 1, "same"), (allowed + 1, 1, "differs"), (1, 2, "differs")):
        moved(path, start, count, steps)
        assert again().status == status and (status == "same" or name in again().text)
        path.write_bytes(honest)


def test_every_other_byte_has_to_be_as_it_is_written_here(published: Path, again: Any) -> None:
    path = published / "merged" / CHECKPOINT
    honest = path.read_bytes()
    name, start, _ = largest(path, "F32")
    for place, said in ((start, f"{name}: has other bytes"), (20, "header is another")):
        path.write_bytes(honest[:place] + bytes([honest[place] ^ 1]) + honest[place + 1 :])
        assert again().status == "differs" and said in again().text
    path.write_bytes(honest[:-1])
    assert "cut short" in again().text
    path.write_bytes(honest + b"\0")
    assert "longer than its tensors" in again().text


def test_a_repository_without_its_file_differs(published: Path, again: Any, tmp_path: Path) -> None:
    (published / "merged" / CHECKPOINT).unlink()
    assert again().status == "differs" and "no such file" in again().text
    (published / "adapter" / "adapter_model.safetensors").unlink()
    rows = adapter_module._forms(published / "adapter", record_of(published / "adapter"))
    assert rows.status == "differs" and "there is no adapter_model.safetensors" in rows.text


def test_without_a_merge_or_what_comfyui_reads_prompts_by_it_is_not_measured(
    released: Store, published: Path, again: Any
) -> None:
    folder = published / "merged"
    found = merged_again(folder, record_of(folder), merged=None)
    assert found.status == "not measured" and "--base FOLDER" in found.text
    (MergedModel.current(released).folder(released) / SPIECE).unlink()
    assert again().status == "not measured" and "google/umt5-base" in again().text
    assert MergedModel.current(released).architecture == ACE_STEP_V1
