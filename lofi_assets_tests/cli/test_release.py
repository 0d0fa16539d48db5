"""`lofi release`: nothing goes without being asked for, and then only past the guard."""

from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from lofi_assets.cli.main import main
from lofi_assets.constitution.clearance import Clearance, use
from lofi_assets.constitution.gates import Verdict, load_gates
from lofi_assets.defs import gates as guard
from lofi_assets.defs import release as release_module
from lofi_assets.demo import run as run_module
from lofi_assets.outcome import Outcome
from lofi_assets.store import Store
from lofi_assets_tests.release.cleared import cleared
from lofi_assets_tests.release.conftest import checkpoint, released

__all__ = ["checkpoint", "released"]


@pytest.fixture
def said(released: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A data root ready to be released, and a Dagster home of its own."""
    monkeypatch.setenv("LOFI_DATA_DIR", str(released.root))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    return released


def lofi(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["release", *arguments])


def test_without_a_word_it_shows_what_would_go_and_what_holds_it_and_sends_nothing(said: Store) -> None:
    result = lofi()
    assert result.exit_code == 1 and "held by checkpoint.revoked: fail" in result.output
    assert "inconclusive, " in result.output and "is not materialised" in result.output
    assert "adapter/pytorch_lora_weights.safetensors" in result.output and "new" in result.output
    assert "Nothing was sent" in result.output
    assert not (said.release / "published").exists() and not list(said.release.glob(".sealed-*"))


def test_gates_that_hold_for_one_reason_are_one_line(said: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """An amendment, or a file that was changed, holds every gate after it for the same reason."""
    gates = [gate for gate in load_gates() if "hub_release" in gate.holds][:9]
    why = "the tracks were judged by another constitution; materialise licensed_sources"
    held = [
        *(Verdict(gate, "inconclusive", None, why) for gate in gates[:7]),
        *(Verdict(gate, "fail", 1, "") for gate in gates[7:]),
    ]
    monkeypatch.setattr(guard, "held_back", lambda *_: held)
    lines = [line for line in lofi().output.splitlines() if line.startswith("held by ")]
    assert lines[0] == f"held by {', '.join(gate.id for gate in gates[:6])} and 1 more: inconclusive, {why}"
    assert [line.split(":")[0] for line in lines[1:]] == [f"held by {gate.id}" for gate in gates[7:]]


def test_publishing_goes_through_the_guard_of_the_asset(said: Store) -> None:
    result = lofi("--publish")
    assert result.exit_code == 1 and "hub_release is held back by" in result.output
    assert not (said.release / "published").exists()


def test_published_is_what_the_asset_publishes_and_it_is_on_dagsters_record(
    said: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def publish(store: Store, profile: object, clearance: Clearance, *, public: bool) -> Outcome:
        use(clearance, asset="hub_release")
        asked.append(public)
        return Outcome(data_version="1", counts={})

    monkeypatch.setattr(release_module, "require_gates", lambda context, store: cleared(store))
    monkeypatch.setattr(release_module, "read_back", lambda *_: {})
    monkeypatch.setattr(release_module, "publish", publish)
    results = [lofi("--publish"), lofi("--publish", "--public")]
    assert [result.exit_code for result in results] == [0, 0], results[0].output
    assert asked == [False, True]
    with run_module.instance_of_home() as instance:
        runs = instance.get_runs()
    assert [run.status for run in runs] == [dg.DagsterRunStatus.SUCCESS] * 2


def test_a_word_on_visibility_without_publishing_is_a_mistake(said: Store) -> None:
    result = lofi("--public")
    assert result.exit_code == 2 and "--public goes with --publish" in result.output
