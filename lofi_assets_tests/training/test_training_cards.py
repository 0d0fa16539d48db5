"""The plan knows cards by name, says what it does not know, and goes by what a run measured."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.backbones.sizes import ModelSize
from lofi_assets.cli.main import main
from lofi_assets.training.checkpoints.runs import log_path
from lofi_assets.training.config import TrainingSettings, load_lora_settings
from lofi_assets.training.planning import profile_plan
from lofi_assets.training.planning.calibration import Calibration, recorded, step_choices
from lofi_assets.training.planning.cards import (
    CARDS,
    Card,
    UnknownCardError,
    card_named,
    card_present,
    device_name,
    matching,
)
from lofi_assets.training.planning.memory import Choices
from lofi_assets.training.planning.model_size import measure
from lofi_assets.training.planning.plan import Plan, make_plan
from lofi_assets.training.planning.profile_plan import assumed_workload, cached_workload
from lofi_assets.training.planning.text import plan_text
from lofi_assets.training.trainer import pace
from lofi_assets.training.trainer.log import read_log
from lofi_assets.training.trainer.loop import train
from lofi_assets_tests.conftest import REPOSITORY
from lofi_assets_tests.training.fixtures import MakeRun

WORK = assumed_workload(ACE_STEP_V1)
CHIPS: dict[str, tuple[int, int, float, int, float]] = {
    "RTX 3060 12GB": (28, 512, 1.777, 192, 15),
    "RTX 3090": (82, 512, 1.695, 384, 19.5),
    "RTX 4060 Ti 8GB": (34, 512, 2.535, 128, 18),
    "RTX 4060 Ti 16GB": (34, 512, 2.535, 128, 18),
    "RTX 4080": (76, 512, 2.505, 256, 22.4),
    "RTX 4090": (128, 512, 2.520, 384, 21),
    "RTX 5090": (170, 512, 2.407, 512, 28),
    "RTX 6000 Ada": (142, 1024, 2.505, 384, 20),
    "RTX PRO 6000 Blackwell": (188, 1024, 2.617, 512, 28),
    "L4": (58, 1024, 2.040, 192, 12.5),
    "L40S": (142, 1024, 2.520, 384, 18),
    "A10G": (80, 512, 1.710, 384, 12.5),
    "T4": (40, 128, 1.590, 256, 10),
    "A100 40GB": (108, 2048, 1.410, 5120, 2.43),
    "H100": (132, 4096, 1.830, 5120, 5.23),
}
"""Multiprocessors, operations of each per clock, boost clock in GHz, bits of the memory bus, Gbit/s of each."""


@pytest.fixture(scope="module")
def published() -> ModelSize:
    return measure(ACE_STEP_V1, None, load_lora_settings(REPOSITORY / "config" / "lofi_lora_config.json"))


@pytest.fixture
def planned(published: ModelSize) -> Callable[..., Plan]:
    def plan(card: Card, **changes: Any) -> Plan:
        return make_plan(published, TrainingSettings(), WORK, card, architecture="ace_step_v1", **changes)

    return plan


def test_a_name_of_two_editions_is_asked_about() -> None:
    with pytest.raises(UnknownCardError, match="more than one card"):
        card_named("RTX PRO 6000", headless=True)


@pytest.mark.parametrize("name", CHIPS)
def test_a_sheet_says_what_the_chip_comes_to(name: str) -> None:
    sheet = next(sheet for sheet in CARDS if sheet.name == name)
    processors, operations, clock, bits, rate = CHIPS[name]
    assert sheet.tflops == pytest.approx(processors * operations * clock / 1000, rel=0.015)
    assert sheet.bandwidth == pytest.approx(bits * rate / 8, rel=0.002)


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 3060", "RTX 3060 12GB"),
        ("4060 ti 16 GB", "RTX 4060 Ti 16GB"),
        ("Tesla T4", "T4"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTX PRO 6000 Blackwell"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO 6000 Blackwell Server"),
    ],
)
def test_a_card_is_known_by_what_people_and_drivers_call_it(name: str, card: str) -> None:
    assert [sheet.name for sheet in matching(name)] == [card]


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA L40",
        "NVIDIA A10",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA H100 NVL",
        "NVIDIA RTX 6000",
        "",
    ],
)
def test_another_card_is_unknown_and_not_planned_as_one_like_it(name: str, planned: Callable[..., Plan]) -> None:
    plan = planned(card_present(name, total=24e9, free=20e9))
    assert plan.card.unknown and plan.card.is_gpu and plan.fits
    assert plan.assumed_seconds is None and plan.seconds_per_step is None
    text = plan_text(plan)
    assert "its speed is unknown" in text and "steps per hour" not in text and "TFLOP/s" not in text


def test_a_name_that_says_too_little_is_asked_for_again() -> None:
    with pytest.raises(UnknownCardError, match="A100 40GB, A100 80GB"):
        card_named("A100", headless=True)
    with pytest.raises(UnknownCardError, match=r"not in the table of cards: .*RTX 5090.*--tflops"):
        card_named("RTX 7090", headless=True)


def test_every_row_says_where_it_is_from_and_is_found_by_its_own_name() -> None:
    for sheet in CARDS:
        assert matching(sheet.name) == [sheet] and len(sheet.source) > 10
        assert 4 <= sheet.gib <= 200 and 5 < sheet.tflops < 3000 and 200 < sheet.bandwidth < 10_000
    assert not card_named("T4", headless=True).bfloat16


def test_a_desktop_takes_its_share_of_a_card_that_drives_screens(planned: Callable[..., Plan]) -> None:
    shared, whole = card_named("RTX 4090", headless=False), card_named("RTX 4090", headless=True)
    assert shared.memory is not None and whole.memory == 24 * 2**30 == shared.memory + shared.desktop
    assert "--headless" in plan_text(planned(shared)) and "--headless" not in plan_text(planned(whole))
    assert card_named("H200", headless=False).desktop == 0


def test_a_fast_card_waits_for_the_host(planned: Callable[..., Plan]) -> None:
    """0.36 to 0.53 s were measured on an H200 with 12,617 kernels; 30 % of its data sheet would be 0.1 s."""
    plan = planned(card_named("H200", headless=True))
    assert plan.card.tflops is not None and plan.operations / (plan.card.tflops * 0.3e12) < 0.15
    assert plan.seconds_per_step is not None and 0.36 * 380 / 525 - 0.01 < plan.seconds_per_step < 0.55
    slow = planned(card_named("RTX 3060", headless=True)).seconds_per_step
    assert slow is not None and slow > 2 and "launch floor" in plan_text(plan)


def test_what_a_run_measured_on_the_card_counts_and_grows_with_the_tracks(planned: Callable[..., Plan]) -> None:
    card = card_named("RTX 4090", headless=True)
    choices = step_choices(Choices.of(TrainingSettings()))
    found = Calibration(card.name, 0.9, float(WORK.mean_frames), 24, "ace_step_v1", choices)
    assert planned(card, calibrations=[found]).seconds_per_step == pytest.approx(0.9)
    longer = planned(card, calibrations=[replace(found, frames=WORK.mean_frames / 2)]).seconds_per_step
    assert longer is not None and 1.7 < longer < 2.1
    assert "measured on RTX 4090: 0.9 s per step" in plan_text(planned(card, calibrations=[found]))
    for other in ({"layers": 12}, {"architecture": "toy"}, {"choices": {**choices, "batch_size": 2}}):
        plan = planned(card, calibrations=[replace(found, **other)])
        assert plan.calibration is None and plan.seconds_per_step == plan.assumed_seconds
    unknown = planned(Card("RTX 9090", 48e9, None, unknown=True), calibrations=[found])
    assert unknown.seconds_per_step == pytest.approx(0.9) and "nobody has measured" not in plan_text(unknown)


def test_a_run_measures_its_first_steps_and_the_next_plan_goes_by_them(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "STEPS", 10)
    run = make_run(max_steps=12, checkpoint_interval=12, validation_limit=0)
    said: list[str] = []
    train(run, say=said.append)
    lines = [line for line in read_log(log_path(run)) if "calibration" in line]
    assert [line["step"] for line in lines] == [10]
    (found,) = recorded(run.logs_dir, card=device_name("cpu"))
    frames = [15, 21]
    assert frames[0] <= found.frames <= frames[1] and found.layers == 4 and found.seconds > 0
    assert sum("left, validation and checkpoints not counted" in line for line in said) == 1
    size = measure(run.backbone, run.base, run.lora)
    work = cached_workload(run.backbone, run.features_dir, run.of_split("train"))
    plan = make_plan(
        size,
        run.training,
        work,
        Card(device_name("cpu"), 8e9, None),
        architecture=run.architecture,
        calibrations=recorded(run.logs_dir, card=device_name("cpu")),
    )
    assert plan.seconds_per_step == pytest.approx(found.seconds, rel=0.2)
    assert recorded(run.logs_dir, card="RTX 4090") == []


def test_a_run_on_a_card_is_found_by_the_name_that_a_person_gives_it(tmp_path: Path) -> None:
    driver = Calibration("NVIDIA GeForce RTX 4090", 0.5, 800.0, 24, "ace_step_v1", {})
    lines = [{"step": 50, **driver.line()}, {"step": 50, "calibration": {"card": "RTX 4090", "of": "another version"}}]
    (tmp_path / "train-abc.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert recorded(tmp_path, card="RTX 4090") == [driver]
    assert recorded(tmp_path, card="NVIDIA GeForce RTX 4090 Laptop GPU") == [] == recorded(tmp_path, card="RTX 3090")


def test_what_is_still_to_be_written_is_held_against_the_free_disk(planned: Callable[..., Plan]) -> None:
    card = card_named("RTX 4090", headless=True)
    enough, short = planned(card, free_disk=200e9), planned(card, free_disk=50e9)
    assert enough.disk_fits and short.disk_fits is False and planned(card).disk_fits is None
    assert "not enough" in plan_text(short) and "to spare" in plan_text(enough)
    cached = replace(enough, work=replace(enough.work, cached=True))
    assert cached.disk_needed < enough.disk_needed


def test_the_command_plans_a_named_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOFI_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    command = ["train", "--plan", "--profile", "production", "--card"]
    wrong = CliRunner().invoke(main, [*command, "RTX 7090"])
    assert wrong.exit_code != 0 and "not in the table of cards" in f"{wrong.output}{wrong.exception}"
    monkeypatch.setattr(profile_plan, "_free_disk", lambda folder: 50e9)
    told = CliRunner().invoke(main, [*command, "NVIDIA L40S"])
    assert told.exit_code == 1 and "GB short" in told.output
    assert "L40S: 362 TFLOP/s (NVIDIA L40S data sheet)" in told.output and "GB to spare" in told.output
