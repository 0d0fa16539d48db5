"""`lofi verify --deep` without a model: what its report says, and what it exits with."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from lofi_assets.cli.main import main
from lofi_assets.constitution.gates import Gate, Verdict, judge_asset
from lofi_assets.release import deep_verification as deep_module
from lofi_assets.release import verification as verification_module
from lofi_assets.release.bundle_parity import FLOORS_DB, Asked, Parity, VariantParity, difference, parity_measure
from lofi_assets.release.deep_adapter import adapter_again
from lofi_assets.release.deep_tiers import tiers_again
from lofi_assets.release.deep_verification import FORMS, MERGE, Deep, MeasuredAgain, Status, compared
from lofi_assets.release.files import Approver, Part, ReleaseRecord
from lofi_assets.release.verification import Finding, Report, belong_together
from lofi_assets.store import Store
from lofi_assets_tests.release.cleared import publish
from lofi_assets_tests.release.stand_in_release import profile_for


def record(part: Part, *, release: str = "r" * 64) -> ReleaseRecord:
    return ReleaseRecord(
        checkpoint="epoch=0-step=10_lora",
        adapter_sha256="a" * 64,
        base_fingerprint="b" * 64,
        dataset_sha256="d" * 64,
        config_sha256="c" * 64,
        card_sha256="e" * 64,
        approval=Approver("R. Manager", "2025-12-22T12:00:00+00:00"),
        constitution="1.3.0",
        gates=(),
        tools={},
        files={},
        part=part,
        release=release,
    )


@pytest.mark.parametrize(
    ("recorded", "measured", "status"),
    [(3.0, 3.4, "same"), (3.0, 3.6, "differs"), (None, 3.0, "not measured"), (3.0, None, "not measured")],
)
def test_two_numbers_are_the_same_within_what_is_said(
    recorded: float | None, measured: float | None, status: Status
) -> None:
    found = compared("a", recorded=recorded, measured=measured, within=0.5, unit="dB", text="how")
    assert found.status == status
    if status == "differs":
        assert (found.recorded, found.measured) == ("3 dB", "3.6 dB") and "within 0.5 dB" in found.text


def test_nothing_measured_is_not_complete() -> None:
    assert not Deep(()).complete and not Deep(()).differs
    assert Deep((MeasuredAgain("a", "same"),)).complete
    assert not Deep((MeasuredAgain("a", "same"), MeasuredAgain("b", "not measured"))).complete


def test_repositories_of_two_releases_are_told_apart() -> None:
    assert belong_together([record("adapter"), record("tiers")]) == []
    assert belong_together([record("adapter")]) == []
    assert "different releases" in belong_together([record("adapter"), record("tiers", release="s" * 64)])[0]
    assert "different releases" in belong_together([record("adapter", release=""), record("tiers", release="")])[0]
    assert belong_together([record("tiers"), record("tiers")]) == ["the part tiers is there twice"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`lofi verify --deep` of a release whose files hold or do not, and whose measurements come to what is given."""
    gate = Gate("quality.fad", "III", "asset", "fad", "<", 5.0, "why", asset="quality_metrics")

    def run(*statuses: Status, sound: bool = True, options: tuple[str, ...] = ("--deep",)) -> Result:
        findings = () if sound else (Finding("fault", "README.md", "was changed"),)
        report = Report(record("adapter"), findings, (Verdict(gate, "pass", 3.0),), "")
        monkeypatch.setattr(verification_module, "verify", lambda folder, *, key: report)
        deep = Deep(tuple(MeasuredAgain(f"check {n}", status) for n, status in enumerate(statuses)))
        monkeypatch.setattr(deep_module, "measure_again", lambda *_, **__: deep)
        return CliRunner().invoke(main, ["verify", str(tmp_path), *options])

    return run


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["same", "same"], 0),
        (["same", "differs"], 1),
        (["same", "not measured"], 3),
        (["differs", "not measured"], 1),
        ([], 3),
    ],
)
def test_the_exit_status_says_what_the_measurements_came_to(
    place: Callable[..., Result], statuses: list[Status], code: int
) -> None:
    done = place(*statuses)
    assert done.exit_code == code, done.output
    assert "Not measured by anybody who has the release alone" in done.output


def test_what_was_altered_is_not_measured(place: Callable[..., Result]) -> None:
    done = place("same", sound=False)
    assert done.exit_code == 1 and "Nothing was measured again" in done.output


def test_the_report_as_data(place: Callable[..., Result]) -> None:
    told: dict[str, Any] = json.loads(place("same", "not measured", options=("--deep", "--json")).output)
    assert told["holds"] is True and told["complete"] is False
    assert [row["status"] for row in told["measured_again"]] == ["same", "not measured"]
    assert told["repositories"][0]["gates"] == [{"gate": "quality.fad", "verdict": "pass", "text": told_text()}]
    assert len(told["not_carried"]) == 3
    told = json.loads(place("differs", options=("--deep", "--json")).output)
    assert told["holds"] is False
    told = json.loads(place("same", sound=False, options=("--deep", "--json")).output)
    assert told["holds"] is False and told["measured_again"] is None and told["complete"] is False


def told_text() -> str:
    return "fad = 3, must be < 5.0"


def test_a_base_goes_with_deep(place: Callable[..., Result], tmp_path: Path) -> None:
    assert place("same", options=("--base", str(tmp_path))).exit_code == 2


def test_the_forms_of_an_adapter_are_compared_and_merging_needs_the_base(released: Store, tmp_path: Path) -> None:
    publish(released, profile_for("folder"))
    folder = released.release / "published" / "adapter"
    about = ReleaseRecord(**{**vars(record("adapter")), "adapter_sha256": adapter_sha256(folder)})
    found = {row.about: row for row in adapter_again(folder, about, base=None, scratch=tmp_path)[0]}
    assert found[FORMS].status == "same"
    assert found[MERGE].status == "not measured" and "--base FOLDER" in found[MERGE].text
    (folder / "pytorch_lora_weights.safetensors").write_bytes((folder / "adapter_model.safetensors").read_bytes())
    found = {row.about: row for row in adapter_again(folder, about, base=None, scratch=tmp_path)[0]}
    assert found[FORMS].status == "differs" and "hold different adapters" in found[FORMS].text
    other = replace(about, adapter_sha256="0" * 64)
    assert adapter_again(folder, other, base=None, scratch=tmp_path)[0][0].status == "differs"


def adapter_sha256(folder: Path) -> str:
    from lofi_assets.files.hashing import sha256_file

    return sha256_file(folder / "adapter_model.safetensors")


def test_tiers_that_are_no_graphs_are_found_by_the_proof(released: Store, tmp_path: Path) -> None:
    publish(released, profile_for("folder"))
    folder = released.release / "published" / "tiers"
    for tier in ("fp16", "int4"):  # each proof is a process
        shutil.rmtree(folder / "bundle" / tier)
    found = {row.about: row.status for row in tiers_again(folder, record("tiers"), merged=None, scratch=tmp_path)}
    assert found["tiers.policy int8"] == "differs", "its components are absent"
    assert found["tiers.adapter int8"] == "differs", "it is of another adapter than this record names"
    assert found["tiers.policy int4"] == "not measured", "it says nothing of itself"
    assert found["tiers.snr int8"] == found["bundle.parity int8"] == found["bundle.samples"] == "not measured"


PARITY_GATE = Gate(
    "bundle.parity",
    "Development Workflow / Export",
    "asset",
    "variants_far_from_torch",
    "==",
    0,
    "A tier in its own runtime plays what the merged model plays in torch, to the decibels that its precision leaves.",
    asset="onnx_artifacts",
    holds=("hub_release",),
)
"""The row that an amendment would add."""


def parity(**decibels: float | None) -> Parity:
    """A report of 60 dB for each variant but those named."""
    told = {name: 60.0 for name in FLOORS_DB} | decibels
    asked = Asked(prompt="lofi", lyrics="", seconds=4.0, steps=6, seed=7, guidance_scale=3.0)
    return Parity(against="torch", note="", asked=asked, tiers={name: variant(told[name]) for name in told})


def variant(decibel: float | None) -> VariantParity:
    """One way to run a tier, of which no FAD was measured."""
    return VariantParity(
        audio_snr_db=decibel,
        largest_difference=None,
        component_snr_db_to_fp32={"vocoder": 60.0},
        fad_increase=None,
        fad_increase_upper_95=None,
        fad_pairs=None,
        fad_encoder=None,
        fad_encoder_trained=None,
        fad_note="not measured",
    )


def test_parity_counts_the_variants_below_their_floor_and_none_is_inconclusive() -> None:
    def status(told: Parity | None) -> str:
        (found,) = judge_asset([PARITY_GATE], {"variants_far_from_torch": parity_measure(told)})
        return found.status

    assert parity_measure(parity())["value"] == 0 and status(parity()) == "pass"
    assert status(parity(int4=11.0)) == "fail" and status(parity(int8=None)) == status(None) == "inconclusive"
    low = parity_measure(parity(fp16=39.9, int4=-5.0))
    assert low["value"] == 2 and "below the floor: fp16, int4" in low["note"]
    assert parity_measure(parity(int8=None))["value"] is None
    missing = parity_measure(replace(parity(), tiers={}, note="not compared with torch"))
    assert missing["value"] is None and "not compared with torch" in missing["note"]


def test_a_clip_with_what_is_no_number_is_not_compared() -> None:
    sound = np.ones((2, 8), np.float32)
    for value in (np.nan, np.inf):
        broken = sound.copy()
        broken[1, 3] = value
        assert difference(sound, broken) == {"audio_snr_db": None, "largest_difference": None}
