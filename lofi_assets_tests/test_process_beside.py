"""A process beside this one: the same results in the same order, and nothing lost with it."""

import logging
import os
import time
from collections.abc import Iterator

import pytest

from lofi_assets.workers.process_beside import ProcessBeside

HERE = os.getpid()
"""In the process beside, which imports this module anew, another."""


def square(item: int) -> tuple[int, int]:
    time.sleep(0.05)
    return item * item, os.getpid()


def fail_there(parent: int) -> int:
    time.sleep(0.05)
    if os.getpid() != parent:
        raise TimeoutError("asked too much")
    return parent


def fail_here(parent: int) -> int:
    if os.getpid() == parent:
        time.sleep(1)
        raise ValueError("asked too much")
    time.sleep(60)
    return parent


def die_there(parent: int) -> int:
    time.sleep(0.05)
    if os.getpid() != parent:
        os._exit(9)
    return os.getpid()


def draw_a_bar(item: int) -> tuple[int, bool]:
    """Which process did, and whether it made a semaphore for it."""
    from tqdm import auto
    from tqdm.std import TqdmDefaultWriteLock

    time.sleep(0.05)
    auto.tqdm(total=1, disable=True).close()
    return os.getpid(), hasattr(TqdmDefaultWriteLock, "mp_lock")


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessBeside]:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with ProcessBeside() as process:
        yield process


def test_a_bar_there_leaves_no_semaphore_behind(beside: ProcessBeside) -> None:
    drawn = dict(beside.share(draw_a_bar, range(40), done=lambda _: None))
    del drawn[HERE]
    assert list(drawn.values()) == [False]


def test_two_processes_do_the_work_and_the_results_are_in_its_order(beside: ProcessBeside) -> None:
    told: list[tuple[int, int]] = []
    results = beside.share(square, range(80), done=told.append)
    assert [number for number, _ in results] == [item * item for item in range(80)]
    assert sorted(told) == sorted(results)
    processes = [process for _, process in results]
    assert processes[0] == HERE != processes[-1] and len(set(processes)) == 2
    assert processes == sorted(processes, key=lambda process: process != HERE), "the first here, the last there"
    again = beside.share(square, range(20), done=told.append)
    assert {process for _, process in again} == set(processes), "the process is started once"


@pytest.mark.parametrize(("processors", "items"), [("1", 5), ("2", 1), ("2", 0)])
def test_what_nobody_can_share_is_done_here(monkeypatch: pytest.MonkeyPatch, processors: str, items: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", processors)
    with ProcessBeside() as alone:
        results = alone.share(square, range(items), done=lambda result: None)
    assert results == [(item * item, HERE) for item in range(items)]


def test_what_the_work_raises_there_is_raised_here_and_nothing_more_is_begun(beside: ProcessBeside) -> None:
    told: list[int] = []
    with pytest.raises(TimeoutError, match="asked too much"):
        beside.share(fail_there, [HERE] * 2000, done=told.append)
    assert len(told) < 2000


def test_what_the_work_raises_here_ends_the_process_there(beside: ProcessBeside) -> None:
    started = time.monotonic()
    with pytest.raises(ValueError, match="asked too much"):
        beside.share(fail_here, [HERE] * 3, done=lambda result: None)
    assert time.monotonic() - started < 50
    assert beside.share(square, range(3), done=lambda result: None)[2][0] == 4, "it can be asked again"


def test_what_the_process_died_of_is_done_here_and_all_that_follows(
    beside: ProcessBeside, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="lofi_assets.workers.process_beside"):
        results = beside.share(die_there, [HERE] * 80, done=lambda result: None)
        assert results == [HERE] * 80
        assert [record.message for record in caplog.records] == [
            "the process beside this one died (exit status 9); its work is done here"
        ]
        assert beside.share(die_there, [HERE] * 3, done=lambda result: None) == [HERE] * 3
    assert len(caplog.records) == 1
