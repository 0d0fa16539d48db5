"""How far a long step is: the words, when they come, and that they reach the run's log in the UI."""

import io
import logging
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import click
import dagster as dg
import pytest
from click.testing import CliRunner
from transformers.utils import logging as transformers_logging

from lofi_assets import progress
from lofi_assets.cli.main import Explaining
from lofi_assets.defs.faults import explained
from lofi_assets.defs.resources import Platform
from lofi_assets.outcome import Outcome
from lofi_assets.progress import Pace, Progress, duration, over, transformers_bars_on_terminals
from lofi_assets.workers.process_pool import LocalProcesses

PACE = Pace("processing", 81, "track")


@pytest.mark.parametrize(
    ("done", "seconds", "line"),
    [
        (23, 120, "processing: 23 of 81 tracks (28%), 11.5 tracks/min, 5 min left"),
        (40, 10, "processing: 40 of 81 tracks (49%), 4 tracks/s, 10 s left"),
        (2, 7200, "processing: 2 of 81 tracks (2%), 1 tracks/h, 3 d 7 h left"),
        (0, 180, "processing: 0 of 81 tracks after 3 min"),
    ],
)
def test_a_line_says_count_rate_and_time_left(done: int, seconds: float, line: str) -> None:
    assert PACE.line(done, seconds=seconds) == line
    assert PACE.line(done, seconds=seconds, note="'x' takes 50 s of 180 s") == f"{line}; 'x' takes 50 s of 180 s"


def test_the_rate_of_a_step_that_goes_on_is_that_of_this_call() -> None:
    pace = Pace("training", 1000, "step", first=400)
    line = pace.line(412, seconds=60, note="loss 0.2500")
    assert line == "training: 412 of 1000 steps (41%), 12 steps/min, 49 min left; loss 0.2500"


def test_the_end_says_how_long_it_took_and_whether_it_got_there() -> None:
    assert PACE.end(81, seconds=420) == "processing: 81 of 81 tracks in 7 min, 11.6 tracks/min"
    assert PACE.end(12, seconds=60) == "processing: 12 of 81 tracks in 1 min, 12 tracks/min, stopped there"
    assert Pace("merging", 1, "model").end(1, seconds=90) == "merging: 1 of 1 model in 2 min"


@pytest.mark.parametrize(
    ("seconds", "text"), [(45, "45 s"), (719, "12 min"), (11_100, "3 h 05 min"), (187_200, "2 d 4 h")]
)
def test_durations_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def wait_for(lines: list[str], count: int) -> None:
    deadline = time.monotonic() + 20
    while len(lines) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_lines_come_while_one_unit_takes_long_and_end_with_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "INTERVAL_S", 0.02)
    said: list[str] = []
    with pytest.raises(KeyError), Progress("exporting", total=3, unit="component", say=said.append) as step:
        wait_for(said, 1)
        step.advance(note="int8")
        wait_for(said, len(said) + 2)
        raise KeyError
    assert said[0].startswith("exporting: 0 of 3 components after")
    assert "1 of 3 components (33%)" in said[-1] and said[-1].endswith("left; int8")
    told = len(said)
    time.sleep(0.1)
    assert len(said) == told


def test_a_step_that_has_nothing_to_do_or_is_done_at_once_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert list(over([], "none", unit="clip")) == []
        assert list(over([1, 2], "at once", unit="clip")) == [1, 2]
    assert caplog.text == ""


def slow(job: str) -> str:
    time.sleep(0.5)
    return job


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A minute is a tenth of a second."""
    monkeypatch.setattr(progress, "INTERVAL_S", 0.1)
    monkeypatch.setattr(progress, "WORTH_A_LINE_S", 0.0)
    yield


@pytest.mark.parametrize("workers", [0, 1])
def test_what_an_asset_does_in_its_workers_is_told_in_the_runs_log(tmp_path: Path, often: None, workers: int) -> None:
    @dg.asset
    @explained
    def tracks(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
        done = [job for job, _ in LocalProcesses(workers, 60.0, 2.0)(slow, ["a", "b"], label="processing tracks")]
        return dg.MaterializeResult(metadata=Outcome("v", {"tracks": len(done)}).counts)

    before = logging.getLogger("lofi_assets").handlers
    with dg.DagsterInstance.ephemeral() as instance:
        platform = Platform(data_dir=str(tmp_path), profile_name="demo")
        done = dg.materialize([tracks], instance=instance, resources={"platform": platform})
        told = [log for log in instance.all_logs(done.run_id) if log.message.startswith("processing tracks: ")]
    assert len(told) >= 2 and all(log.step_key == "tracks" and log.level == logging.INFO for log in told)
    assert any(" of 2 tracks after" in log.message or "left" in log.message for log in told)
    assert told[-1].message.startswith("processing tracks: 2 of 2 tracks in ")
    assert logging.getLogger("lofi_assets").handlers == before


def test_a_command_without_a_terminal_tells_on_standard_error(often: None, monkeypatch: pytest.MonkeyPatch) -> None:
    @click.group(cls=Explaining)
    def group() -> None:
        """Commands."""

    @group.command()
    def work() -> None:
        """Some of it."""
        click.echo(",".join(over(["a", "b"], "working", unit="clip")))

    done = CliRunner().invoke(group, ["work"])
    assert done.stdout == "a,b\n" and done.stderr.startswith("working: 2 of 2 clips in 0 s")
    assert logging.getLogger("lofi_assets").handlers == []


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    assert list(over("ab", "working", unit="clip")) == ["a", "b"]
    assert "working" in terminal.getvalue() and "2/2" in terminal.getvalue()
    with transformers_bars_on_terminals():
        assert list(transformers_logging.tqdm("ab", desc="Loading weights")) == ["a", "b"]
    assert "Loading weights: 100%" in terminal.getvalue()


def test_a_log_has_lines_of_this_package_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """What others write there unasked, a newcomer takes for a fault: half drawn bars, and kernels that are missing."""
    with transformers_bars_on_terminals():
        assert list(transformers_logging.tqdm("ab", desc="Loading weights")) == ["a", "b"]
    kernels = "bitsandbytes.backends.cpu.ops"
    assert find_spec(kernels) and not logging.getLogger(kernels).isEnabledFor(logging.WARNING)
    assert capsys.readouterr().err == ""
    assert list(transformers_logging.tqdm("ab", desc="Loading weights")) == ["a", "b"]
    assert "Loading weights" in capsys.readouterr().err
