"""The repository against the constitution: a planted fault is found by its own gate, and by no other."""

import re
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from lofi_assets.constitution.amendments import amend, constitution_hashes
from lofi_assets.constitution.audit import audit, unpinned_requirements
from lofi_assets.constitution.gates import ConstitutionError, load_gates
from lofi_assets.files.documents import read_json, write_json
from lofi_assets_tests.conftest import REPOSITORY

GATES = {gate.id for gate in load_gates() if gate.scope == "repository"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of what the audit reads, in a place of its own (profiles are read once per process and place)."""
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    (tmp_path / "docs").mkdir()
    for name in ("docs/constitution.md", "docs/gates.md", "requirements.txt"):
        shutil.copyfile(REPOSITORY / name, tmp_path / name)
    return tmp_path


def failing(root: Path) -> dict[str, str]:
    """Gate id -> note of every repository gate that does not pass."""
    return {verdict.gate.id: verdict.note for verdict in audit(root) if not verdict.passed}


def replace(path: Path, before: str, after: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")


def edit_profile(root: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    path = root / "config" / "profiles" / f"{name}.yaml"
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(yaml.safe_dump(data), encoding="utf-8")


def test_this_repository_passes_every_gate_of_its_own() -> None:
    verdicts = audit(REPOSITORY)
    assert {verdict.gate.id for verdict in verdicts} == GATES
    assert {verdict.gate.id: verdict.text for verdict in verdicts if not verdict.passed} == {}


def test_a_faithful_copy_passes(root: Path) -> None:
    assert failing(root) == {}


# --- pins ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        *("torch", "torch>=2.14", "torch~=2.14.1", "torch==2.*", "torch==2.14.1,!=2.14.2", "torch!=2.0"),
        *("-r other.txt", "-e .", "git+https://example.org/torch", "https://example.org/torch.whl", "torch===2.14.1"),
        *("torch == 2.14.1 ; python_version < '3'", "torch=="),
    ],
)
def test_a_requirement_that_is_not_one_exact_version_fails(root: Path, line: str) -> None:
    with (root / "requirements.txt").open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    found = failing(root)
    assert list(found) == ["repository.pinned_requirements"] and line in found["repository.pinned_requirements"]


@pytest.mark.parametrize("line", ["torch==2.14.1", "fsspec[http]==2026.1.0", "torch==2.14.1+cpu", "a.b_c-d==1!2.0rc1"])
def test_an_exact_version_is_a_pin(tmp_path: Path, line: str) -> None:
    (tmp_path / "requirements.txt").write_text(f"# why\n\n{line}  # why\n", encoding="utf-8")
    assert unpinned_requirements(tmp_path / "requirements.txt") == []


def test_missing_requirements_are_a_fault(root: Path) -> None:
    (root / "requirements.txt").unlink()
    assert list(failing(root)) == ["repository.pinned_requirements"]


# --- the training table ----------------------------------------------------------------------------------------------


def test_another_rank_in_the_adapters_file_fails(root: Path) -> None:
    replace(root / "config" / "lofi_lora_config.json", '"r": 256', '"r": 128')
    assert failing(root) == {"repository.training_table": "r is 128, must be 256"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("learning_rate", 2e-4),
        ("max_steps", 50_000),
        ("checkpoint_interval", 2_500),
        ("precision", "32"),
        ("gradient_clip", 1.0),
    ],
)
def test_another_training_value_in_production_fails(root: Path, key: str, value: object) -> None:
    edit_profile(root, "production", lambda data: data["training"].update({key: value}))
    found = failing(root)
    assert list(found) == ["repository.training_table"] and found["repository.training_table"].startswith(f"{key} is")


def test_a_rank_overridden_by_production_fails(root: Path) -> None:
    edit_profile(root, "production", lambda data: data.update(lora={"r": 64}))
    assert list(failing(root)) == ["repository.training_table"]


def test_production_states_every_value_of_the_table_itself(root: Path) -> None:
    edit_profile(root, "production", lambda data: data["training"].pop("gradient_clip"))
    assert failing(root) == {"repository.training_table": "gradient_clip is None, must be 0.5"}


def test_the_demo_may_scale_training_down(root: Path) -> None:
    edit_profile(root, "demo", lambda data: data["training"].update(max_steps=5))
    assert failing(root) == {}


# --- generated files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["track.json", "dataset.json"])
def test_a_schema_that_the_records_do_not_say_fails(root: Path, name: str) -> None:
    with (root / "config" / "schemas" / name).open("a", encoding="utf-8") as file:
        file.write(" ")
    assert failing(root) == {"repository.schemas": name}


def test_a_missing_schema_fails(root: Path) -> None:
    (root / "config" / "schemas" / "checkpoint.json").unlink()
    assert failing(root) == {"repository.schemas": "checkpoint.json"}


def test_an_edited_or_missing_page_of_gates_fails(root: Path) -> None:
    replace(root / "docs" / "gates.md", "quality.fad", "quality.fade")
    assert list(failing(root)) == ["repository.gates_page"]
    (root / "docs" / "gates.md").unlink()
    assert list(failing(root)) == ["repository.gates_page"]


# --- amendments ------------------------------------------------------------------------------------------------------


def test_a_loosened_gate_without_a_new_version_fails(root: Path) -> None:
    replace(root / "config" / "constitution.yaml", "limit: 5.0", "limit: 9.0")
    found = failing(root)
    assert found.keys() == {"repository.amendments", "repository.gates_page"}
    assert "gates changed since version" in found["repository.amendments"]


@pytest.mark.parametrize(
    ("before", "after"),
    [("  blocking: true\n", ""), ("  holds: [hub_release]\n", ""), ("  encoder: vggish\n", ""), ("r: 256", "r: 64")],
)
def test_any_change_of_what_a_gate_means_needs_a_version(root: Path, before: str, after: str) -> None:
    replace(root / "config" / "constitution.yaml", before, after)
    assert "repository.amendments" in failing(root)


def test_a_licence_that_is_denied_no_more_needs_a_version(root: Path) -> None:
    table = root / "config" / "licenses.yaml"
    replace(table, "- id: CC-BY-ND-4.0", "- id: CC-BY-ND-4.0\n  status: permitted\n- id: CC-BY-ND-4.0-not")
    assert "licenses.yaml no longer denies CC-BY-ND-4.0" in failing(root)["repository.amendments"]
    raised(root, "N.0.0")
    row = amend(root, rationale="They changed their mind.", today=date(2026, 11, 30))
    assert failing(root) == {} and "CC-BY-ND-4.0" not in row["licences"]["denied"]


def test_a_licence_that_is_added_or_denied_needs_no_version(root: Path) -> None:
    with (root / "config" / "licenses.yaml").open("a", encoding="utf-8") as file:
        file.write("\n- {id: Studio-7, status: permitted, why: contract}\n- {id: Studio-9, status: denied, why: no}\n")
    assert failing(root) == {}


def test_a_table_of_licences_that_cannot_be_read_is_a_fault_with_its_name(root: Path) -> None:
    (root / "config" / "licenses.yaml").write_text("- status: denied\n", encoding="utf-8")
    with pytest.raises(ConstitutionError, match=r"licenses\.yaml: no table of licences .*restore it"):
        audit(root)


def test_a_comment_in_the_table_needs_no_version(root: Path) -> None:
    with (root / "config" / "constitution.yaml").open("a", encoding="utf-8") as file:
        file.write("# seen\n")
    assert failing(root) == {}


def test_a_changed_text_without_a_new_version_fails(root: Path) -> None:
    with (root / "docs" / "constitution.md").open("a", encoding="utf-8") as file:
        file.write("\nOne more rule.\n")
    assert list(failing(root)) == ["repository.amendments"]


def test_a_new_version_without_a_row_in_the_log_fails(root: Path) -> None:
    table = root / "config" / "constitution.yaml"
    table.write_text(re.sub(r"(?m)^version: .*$", "version: 9.0.0", table.read_text("utf-8")), encoding="utf-8")
    assert "no row for version 9.0.0" in failing(root)["repository.amendments"]


def test_an_amendment_with_its_version_and_row_passes(root: Path) -> None:
    table, text = root / "config" / "constitution.yaml", root / "docs" / "constitution.md"
    table.write_text(re.sub(r"(?m)^version: .*$", "version: 9.0.0", table.read_text("utf-8")), encoding="utf-8")
    replace(table, "limit: 0.85", "limit: 0.80")
    text.write_text(re.sub(r"\*\*Version\*\*: [\d.]+", "**Version**: 9.0.0", text.read_text("utf-8")), encoding="utf-8")
    log = root / "config" / "amendments.json"
    row = {"version": "9.0.0", "date": "2026-01-01", "rationale": "Duplicates.", **constitution_hashes(root)}
    write_json(log, [*read_json(log), row])
    assert "repository.amendments" not in failing(root)


def raised(root: Path, version: str, *, day: str = "2026-11-30") -> str:
    """Both texts say another version; N in it is the major version after the last one's."""
    major = int(read_json(root / "config" / "amendments.json")[-1]["version"].partition(".")[0]) + 1
    version = version.replace("N", str(major))
    table, text = root / "config" / "constitution.yaml", root / "docs" / "constitution.md"
    table.write_text(re.sub(r"(?m)^version: .*$", f"version: {version}", table.read_text("utf-8")), encoding="utf-8")
    line = re.sub(r"\*\*Version\*\*: [\d.]+", f"**Version**: {version}", text.read_text("utf-8"))
    text.write_text(re.sub(r"(Last Amended\*\*: )\S+", rf"\g<1>{day}", line), encoding="utf-8")
    return version


def test_one_command_logs_an_amendment_and_the_repository_passes_again(root: Path) -> None:
    replace(root / "config" / "constitution.yaml", "limit: 0.85", "limit: 0.80")
    version = raised(root, "N.0.0")
    assert failing(root).keys() == {"repository.amendments", "repository.gates_page"}
    before = read_json(root / "config" / "amendments.json")
    row = amend(root, rationale="Fewer copies.", today=date(2026, 11, 30))
    assert row["version"] == version and row["rationale"] == "Fewer copies."
    assert read_json(root / "config" / "amendments.json") == [*before, row]
    assert failing(root) == {}


@pytest.mark.parametrize(
    ("version", "day", "rationale", "message"),
    [
        (None, "2026-11-30", "why", "is on record and stays as it is"),
        ("N.0.0", "2026-11-30", " ", "needs its rationale"),
        ("N.1.0", "2026-11-30", "why", "does not follow"),
        ("9N.0.0", "2026-11-30", "why", "does not follow"),
        ("N.0.0", "2026-11-29", "why", "must be 2026-11-30"),
    ],
)
def test_an_amendment_that_governance_would_not_take_is_not_logged(
    root: Path, version: str | None, day: str, rationale: str, message: str
) -> None:
    replace(root / "config" / "constitution.yaml", "limit: 0.85", "limit: 0.80")
    if version:
        raised(root, version, day=day)
    before = (root / "config" / "amendments.json").read_bytes()
    with pytest.raises(ConstitutionError, match=message):
        amend(root, rationale=rationale, today=date(2026, 11, 30))
    assert (root / "config" / "amendments.json").read_bytes() == before


def test_a_log_whose_last_version_is_none_is_said(root: Path) -> None:
    log = root / "config" / "amendments.json"
    write_json(log, [*read_json(log), {"version": "next"}])
    with pytest.raises(ConstitutionError, match=r"amendments\.json: 'next' is no version"):
        amend(root, rationale="why", today=date(2026, 11, 30))


def test_text_and_table_of_different_versions_are_not_logged(root: Path) -> None:
    version = raised(root, "N.0.0")
    replace(root / "config" / "constitution.yaml", f"version: {version}", "version: 1.0.7")
    with pytest.raises(ConstitutionError, match=rf"says version {version}, config/constitution\.yaml 1\.0\.7"):
        amend(root, rationale="why", today=date(2026, 11, 30))


# --- profiles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", ["fad", "clipped_share", "p_value"])
@pytest.mark.parametrize("section", ["training", "lora"])
def test_a_profile_that_names_a_measure_fails(root: Path, section: str, measure: str) -> None:
    edit_profile(root, "demo", lambda data: data[section].update({measure: 0.5}))
    found = failing(root)
    assert list(found) == ["repository.profiles"] and f"demo.yaml sets {measure}" in found["repository.profiles"]


@pytest.mark.parametrize("key", ["gates", "limits", "constitution"])
def test_a_profile_that_brings_gates_of_its_own_fails(root: Path, key: str) -> None:
    edit_profile(root, "demo", lambda data: data.update({key: {"quality.fad": 9.0}}))
    found = failing(root)
    assert list(found) == ["repository.profiles"] and key in found["repository.profiles"]


def test_a_profile_added_later_is_audited_too(root: Path) -> None:
    (root / "config" / "profiles" / "staging.yaml").write_text("fad: 9.0\n", encoding="utf-8")
    assert "staging.yaml" in failing(root)["repository.profiles"]
