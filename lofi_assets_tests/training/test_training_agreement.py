"""Processes that do not mean the same end with a sentence each, before they wait for each other in vain."""

import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from lofi_assets.training import agreement
from lofi_assets.training.agreement import Peers, Place, Stand, agreed, disagreement, lead, stand
from lofi_assets.training.checkpoints.files import CheckpointError
from lofi_assets.training.checkpoints.runs import RunIdentity, open_run
from lofi_assets.training.checkpoints.state import save_state
from lofi_assets.training.config import ConfigError
from lofi_assets_tests.training.test_training_config import a_run


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def of_each(count: int, work: Callable[[Peers], Any], *, started: int | None = None, wait_s: float = 20) -> list[Any]:
    """What `work` gives, or raises, in each of `count` processes; threads stand for them, each with its own client."""
    port, held = free_port(), []

    def one(rank: int) -> Any:
        peers = Peers(Place(rank, count, "127.0.0.1", port), wait_s=wait_s)
        held.append(peers)  # a process holds its own for as long as it trains
        return work(peers)

    with ThreadPoolExecutor(count) as pool:
        futures: list[Future[Any]] = [pool.submit(one, rank) for rank in range(started or count)]
        return [future.exception() or future.result() for future in futures]


def test_processes_that_mean_the_same_go_on() -> None:
    alike = Stand("node-a", {"run": "3f2a", "training.betas": (0.8, 0.9)}, step=5)
    found = of_each(3, lambda peers: agreed(peers, lambda: (alike, f"device {peers.place.rank}")))
    assert found == ["device 0", "device 1", "device 2"]


def test_a_difference_is_told_by_every_process_with_rank_host_name_and_both_values() -> None:
    def look(peers: Peers) -> Any:
        other = peers.place.rank == 1
        return Stand("node-b" if other else "node-a", {"run": "9b1c" if other else "3f2a", "torch": "2.14"}), None

    told = of_each(2, lambda peers: agreed(peers, lambda: look(peers)))
    assert [type(error) for error in told] == [ConfigError] * 2 and str(told[0]) == str(told[1])
    assert str(told[0]) == (
        "process 1 on node-b has run 9b1c, process 0 on node-a has 3f2a: start every process with the same file, "
        "arguments, code and packages"
    )


def test_what_hinders_one_process_ends_all_and_keeps_its_own_error() -> None:
    def look(peers: Peers) -> Any:
        if peers.place.rank == 1:
            raise CheckpointError("features/x: absent; materialise feature_cache")
        return Stand("node-a"), None

    main, own = of_each(2, lambda peers: agreed(peers, lambda: look(peers)))
    assert isinstance(own, CheckpointError) and isinstance(main, ConfigError)
    assert "process 1 on " in str(main) and "cannot start: features/x: absent" in str(main)


def test_what_hinders_the_main_process_in_its_own_work_ends_all() -> None:
    def work() -> None:
        raise CheckpointError("checkpoints: another process trains into it")

    main, other = of_each(2, lambda peers: lead(peers, work))
    assert isinstance(main, CheckpointError) and isinstance(other, ConfigError)
    assert str(other) == "process 0 cannot start: checkpoints: another process trains into it"


def test_the_main_process_alone_works_and_the_others_wait_for_it() -> None:
    done: list[str] = []
    assert of_each(3, lambda peers: lead(peers, lambda: done.append("once"))) == [None] * 3
    assert done == ["once"]


def test_a_process_that_does_not_come_is_named() -> None:
    told = of_each(3, lambda peers: agreed(peers, lambda: (Stand("node-a"), None)), started=2, wait_s=0.5)
    assert all("waited 0.5 s for process 2 of 3 in vain" in str(error) for error in told)


def test_a_main_process_that_is_not_there_is_named_with_what_to_check() -> None:
    with pytest.raises(ConfigError, match=r"process 1 of 2: the store at 127.0.0.1:\d+ answered nothing within 1 s"):
        Peers(Place(1, 2, "127.0.0.1", free_port()), wait_s=1)


def test_a_further_state_elsewhere_is_never_trained_over(tmp_path: Path) -> None:
    """The machines were named in another order than at the last start, and share no folder."""
    behind, ahead = a_run(checkpoints_dir=tmp_path / "a"), a_run(checkpoints_dir=tmp_path / "b")
    stands = [stand(run, device="cpu", fresh=False) for run in (behind, ahead)]
    assert disagreement(stands) == "" and [one.step for one in stands] == [0, 0]
    RunIdentity.of(ahead).write(ahead.checkpoints_dir)
    save_state(ahead.checkpoints_dir, run_id=ahead.run_id, step=6, tensors={"a/weight": torch.ones(1)}, extra={})
    stands = [stand(run, device="cpu", fresh=False) for run in (behind, ahead)]
    assert [one.step for one in stands] == [0, 6]
    assert f"has saved this run up to step 6, process 0 on {stands[0].host} up to step 0" in disagreement(stands)
    assert disagreement(list(reversed(stands))) == "", "the main process hands its state on"
    assert disagreement([stand(run, device="cpu", fresh=True) for run in (behind, ahead)]) == ""


def test_of_a_run_in_the_archive_the_latest_start_counts_as_it_does_for_whoever_brings_it_back(tmp_path: Path) -> None:
    run = a_run(checkpoints_dir=tmp_path)
    for name, step in ((run.run_id, 3), (f"{run.run_id}-2", 6)):
        folder = tmp_path / "archive" / name
        RunIdentity.of(run).write(folder)
        save_state(folder, run_id=run.run_id, step=step, tensors={"a/weight": torch.ones(1)}, extra={})
    assert stand(run, device="cpu", fresh=False).step == 6
    open_run(run)
    assert stand(run, device="cpu", fresh=False).step == 6


def test_a_stand_names_what_the_processes_have_to_share(monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run()
    longer = run.model_copy(update={"training": run.training.model_copy(update={"max_steps": 7})})
    mine, theirs = (stand(which, device="cpu", fresh=False) for which in (run, longer))
    assert mine.facts["run"] == theirs.facts["run"], "a run may go on to more steps, but not in one of its processes"
    assert "has training.max_steps 7, " in disagreement([mine, theirs])
    monkeypatch.setattr(agreement, "code", lambda: type("Code", (), {"source_sha256": "f" * 64}))
    assert "has lofi_assets' source ffffffffffff" in disagreement([mine, stand(run, device="cpu", fresh=False)])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"RANK": None}, "RANK is ''"),
        ({"RANK": "2"}, "RANK is 2, but WORLD_SIZE is 2"),
        ({"MASTER_ADDR": None}, "MASTER_ADDR is not set"),
        ({"MASTER_PORT": "x"}, "MASTER_PORT is 'x'"),
        ({"WORLD_SIZE": "many"}, "WORLD_SIZE is 'many'"),
        ({"LOCAL_RANK": None}, "LOCAL_RANK is ''"),
    ],
)
def test_a_launchers_variables_are_checked_by_name(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str | None], told: str
) -> None:
    usual = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for name, value in {**usual, **changes}.items():
        monkeypatch.setenv(name, value) if value is not None else monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=told):
        Place.here()


def test_without_a_launcher_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert Place.here() == Place()


def test_a_file_that_one_process_cannot_read_is_told_to_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lofi_assets.training import __main__ as trainer

    with pytest.raises(ConfigError, match="no such file"):
        trainer._load(tmp_path / "run.json")
    heard: list[str] = []
    monkeypatch.setattr(Place, "here", classmethod(lambda cls: Place(1, 2, "127.0.0.1", 1)))
    monkeypatch.setattr(trainer, "Peers", lambda place: place)
    monkeypatch.setattr(trainer, "withdraw", lambda peers, error: heard.append(str(error)))
    with pytest.raises(ConfigError, match="no such file"):
        trainer._load(tmp_path / "run.json")
    assert len(heard) == 1 and "no such file" in heard[0]
