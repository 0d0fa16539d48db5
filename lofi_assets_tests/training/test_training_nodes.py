"""Machines that share no folder, and steps that are shared out otherwise, train the same run to the same bits.

Each process is a fork of one server (`started`), with the variables that a launcher sets.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lofi_assets.training import __main__ as trainer
from lofi_assets.training.config import TrainingRun, save_run
from lofi_assets.training.ending import DONE, INTERRUPTED, read_ending
from lofi_assets.training.trainer.loop import train
from lofi_assets_tests.training.fixtures import MakeRun, Settings
from lofi_assets_tests.training.started import STARTED, server
from lofi_assets_tests.training.test_training_agreement import free_port
from lofi_assets_tests.training.test_training_runs import digests, logged, quiet
from lofi_assets_tests.training.test_training_track_losses import spoil

SHORT: Settings = {"max_steps": 4, "checkpoint_interval": 2, "warmup_steps": 0, "validation_limit": 1}


def _nothing() -> None:
    pass


def on_nodes(
    runs: Sequence[TrainingRun], *, seconds: float = 200.0, prepare: Callable[[], None] = _nothing
) -> list[Any]:
    """What a process of each run came to, by rank: its steps, or its error's sentence.

    Args:
        prepare: a module's function, called in each process before it trains.
    """
    context = server()
    results, port = context.Queue(), free_port()
    nodes = [
        context.Process(target=_node, args=(run, rank, len(runs), port, results, prepare))
        for rank, run in enumerate(runs)
    ]
    for node in nodes:
        node.start()
    try:
        found = dict(results.get(timeout=seconds) for _ in nodes)
    finally:
        for node in nodes:
            node.join(10)
            node.kill()
    return [found[rank] for rank in range(len(runs))]


def _node(run: TrainingRun, rank: int, count: int, port: int, results: Any, prepare: Callable[[], None]) -> None:
    place = {"RANK": rank, "LOCAL_RANK": 0, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()}, LOFI_JOIN_SECONDS="60", OMP_NUM_THREADS="1")
    prepare()
    try:
        summary = train(run, say=quiet)
        results.put((rank, summary.steps_now))
    except Exception as error:
        results.put((rank, str(error)))


def stopped_after(run: TrainingRun, steps: int) -> None:
    asked = iter([False] * (steps + 1))
    train(run, say=quiet, stop=lambda: next(asked, True))


@pytest.mark.xdist_group(STARTED)
@pytest.mark.parametrize(
    "more",
    [
        {},
        pytest.param({"lora": {"lora_dropout": 0.3}}, marks=pytest.mark.slow),
        pytest.param({"optimizer": "prodigy", "learning_rate": 1.0}, marks=pytest.mark.slow),
    ],
    ids=["plain", "dropout", "estimated rate"],
)
def test_a_run_of_one_process_goes_on_in_two_that_share_no_folder_to_the_same_bits(
    make_run: MakeRun, more: Settings
) -> None:
    settings: Settings = {**SHORT, **more}
    whole, begun = make_run("whole", accumulate=2, **settings), make_run("a", accumulate=2, **settings)
    node_a, node_b = (make_run(name, processes=2, **settings) for name in ("a", "b"))
    assert node_a.run_id == node_b.run_id == whole.run_id == begun.run_id
    train(whole, say=quiet)
    stopped_after(begun, 2)
    assert digests(begun).keys() == {2}
    assert on_nodes([node_a, node_b]) == [2, 2], "both go on after step 2, of which one had nothing"
    assert digests(node_a) == digests(whole)
    assert logged(node_a) == logged(whole)
    assert not node_b.checkpoints_dir.exists(), "the main process alone writes"


@pytest.mark.slow
@pytest.mark.xdist_group(STARTED)
@pytest.mark.parametrize(("parallel", "second"), [("ddp", "a"), ("fsdp", "b")], ids=["shared folder", "none shared"])
def test_two_machines_go_on_to_the_same_bits(make_run: MakeRun, parallel: str, second: str) -> None:
    settings: Settings = {**SHORT, "processes": 2, "parallel": parallel, "ema_decay": 0.9}
    whole = make_run("whole", **settings)
    nodes = [make_run("a", **settings), make_run(second, **settings)]
    assert on_nodes([whole, whole]) == [4, 4]
    short = whole.training.model_copy(update={"max_steps": 2})
    assert on_nodes([node.model_copy(update={"training": short}) for node in nodes]) == [2, 2]
    assert on_nodes(nodes) == [2, 2]
    assert digests(nodes[0]) == digests(whole)
    assert on_nodes(nodes) == [0, 0], "complete, though the second of two folders does not say so"


def spoil_two() -> None:
    spoil(pytest.MonkeyPatch())


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_what_one_process_skips_is_skipped_in_all(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, parallel: str
) -> None:
    """One of two processes meets the item without a number; the step is that of one process that meets both."""
    settings: Settings = {**SHORT, "skip_share": 0.6}
    one = make_run("one", accumulate=2, **settings)
    two = make_run("two", processes=2, parallel=parallel, **settings)
    spoil(monkeypatch)
    train(one, say=quiet)
    assert on_nodes([two, two], prepare=spoil_two) == [4, 4]
    assert [line["losses"].count(None) for line in logged(one) if "losses" in line] == [1] * 4
    assert [line.get("skipped") for line in logged(two)] == [line.get("skipped") for line in logged(one)]
    if parallel == "ddp":
        assert digests(two) == digests(one) and logged(two) == logged(one)
    few = [make_run(name, processes=2, parallel=parallel, **{**settings, "skip_share": 0.4}) for name in "ab"]
    told = on_nodes(few, prepare=spoil_two)
    assert told[0] == told[1] and "more than training.skip_share 0.4 allows" in told[0]


@pytest.mark.slow
@pytest.mark.xdist_group(STARTED)
def test_machines_in_another_order_are_refused_and_nothing_is_lost(make_run: MakeRun) -> None:
    first, second = (make_run(name, processes=2, **SHORT) for name in ("a", "b"))
    assert on_nodes([first, second]) == [4, 4]
    before = digests(first)
    told = on_nodes([second, first])
    assert told[0] == told[1] and "has saved this run up to step 4" in told[0]
    assert digests(first) == before and not second.checkpoints_dir.exists()


@pytest.mark.slow
@pytest.mark.xdist_group(STARTED)
def test_a_machine_with_another_base_ends_both_with_its_name(make_run: MakeRun, tmp_path: Path) -> None:
    whole = make_run("a", processes=2, **SHORT)
    shutil.copytree(whole.base, tmp_path / "base")
    (tmp_path / "base" / "ace_step_transformer" / "config.json").write_text("{}", encoding="utf-8")
    other = make_run("b", processes=2, **SHORT).model_copy(update={"base": tmp_path / "base"})
    main, second = on_nodes([whole, other])
    assert "process 1 on " in main and "cannot start: " in main and str(tmp_path / "base") in main
    assert str(tmp_path / "base") in second and not whole.checkpoints_dir.exists()


class AskedAtOnce:
    reason = "SIGTERM"

    def __call__(self) -> bool:
        return True


@pytest.mark.parametrize(("elastic", "code"), [(False, INTERRUPTED), (True, DONE)])
def test_a_graceful_stop_is_a_success_for_torchrun_and_on_record_as_a_stop(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elastic: bool, code: int
) -> None:
    """torchrun, and `accelerate launch` with it, start a process that ends with another code again, or report it."""
    monkeypatch.setattr(trainer, "Stop", AskedAtOnce)
    if elastic:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    config = tmp_path / "run.json"
    save_run(config, make_run())
    assert trainer.main(["--config", str(config)]) == code
    ending = read_ending(config)
    assert ending is not None and ending.code == INTERRUPTED and "stopped before the first step" in ending.message
