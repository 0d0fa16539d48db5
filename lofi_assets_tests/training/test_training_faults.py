"""What ends a run, on purpose: each fault with its exit code, its sentence, and what it costs."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from lofi_assets.cli import train as command
from lofi_assets.errors import DiskError
from lofi_assets.training import __main__ as trainer
from lofi_assets.training import launch, stopping
from lofi_assets.training.checkpoints import room
from lofi_assets.training.checkpoints import state as resume
from lofi_assets.training.checkpoints.manifest import read_manifest
from lofi_assets.training.checkpoints.runs import exclusive
from lofi_assets.training.checkpoints.state import FOLDER, TENSORS, resume_point
from lofi_assets.training.checkpoints.tensor_file import write_hashed
from lofi_assets.training.config import TrainingRun, save_run
from lofi_assets.training.distributed import ALONE
from lofi_assets.training.ending import (
    CONFIGURATION,
    CRASHED,
    DIVERGED,
    DONE,
    FILES,
    INTERRUPTED,
    Ending,
    begin,
    read_ending,
    write_ending,
)
from lofi_assets.training.explaining import ending_of
from lofi_assets.training.launch import STOPPING, Launched
from lofi_assets.training.stopping import Stop
from lofi_assets.training.trainer import saving
from lofi_assets.training.trainer.log import StepLog
from lofi_assets.training.trainer.loop import Trainer
from lofi_assets.training.trainer.progress import Progress
from lofi_assets_tests.training.fixtures import MakeRun, Settings
from lofi_assets_tests.training.test_training_runs import digests, logged
from lofi_assets_tests.training.test_training_state import flip

SETTINGS: Settings = {"max_steps": 5, "checkpoint_interval": 4, "validation_limit": 0}
EVERY_STEP = 1e-9
"""Minutes between states."""


@pytest.fixture(autouse=True)
def the_tests_own_signals() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in STOPPING}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "run.json"


@pytest.fixture
def run(make_run: MakeRun, config: Path) -> TrainingRun:
    made = make_run(**SETTINGS)
    save_run(config, made)
    return made


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """What the run comes to that nothing happens to: made by the first test that asks."""
    return {}


def start(config: Path, *flags: str) -> tuple[int, Ending]:
    """Exit code and ending of a call of the trainer."""
    code = trainer.main(["--config", str(config), *flags])
    ending = read_ending(config)
    assert ending is not None and ending.code == code
    return code, ending


def at_step(step: int, what: Callable[[], Any]) -> Callable[..., Any]:
    """`Trainer._accumulate`, the first part of a step, with something that happens in it first."""
    plain = Trainer._accumulate

    def accumulate(self: Trainer, number: int) -> Any:
        if number == step:
            what()
        return plain(self, number)

    return accumulate


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def saved(run: TrainingRun) -> int:
    point = resume_point(run.checkpoints_dir)
    assert point is not None
    return point.step


def assert_it_ends_as_without(run: TrainingRun, config: Path, make_run: MakeRun, whole: dict[str, Any]) -> None:
    """The same call again goes on to the same bits and the same log as a run that nothing happened to."""
    if not whole:
        untouched = make_run("untouched", **SETTINGS)
        save_run(config.with_name("untouched.json"), untouched)
        assert start(config.with_name("untouched.json"))[0] == DONE
        whole |= {"digests": digests(untouched), "logged": logged(untouched)}
    code, ending = start(config)
    assert (code, ending.kind) == (DONE, "complete")
    assert digests(run) == whole["digests"] and logged(run) == whole["logged"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1], ids=lambda number: signal.Signals(number).name)
def test_a_signal_saves_the_step_that_it_came_in(
    run: TrainingRun, config: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(Trainer, "_accumulate", at_step(3, lambda: signal.raise_signal(number)))
    code, ending = start(config)
    assert (code, ending.kind) == (INTERRUPTED, "interrupted")
    assert f"interrupted and saved ({signal.Signals(number).name}); the same command goes on" in ending.message
    assert saved(run) == 3, "nothing is lost"


def test_an_error_that_nothing_explains_saves_the_step_before_it(
    run: TrainingRun, config: Path, monkeypatch: pytest.MonkeyPatch, make_run: MakeRun, whole: dict[str, Any]
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(Trainer, "_accumulate", at_step(3, raising(KeyError("a defect"))))
        with pytest.raises(KeyError, match="a defect"):
            trainer.main(["--config", str(config)])
    ending = read_ending(config)
    assert ending is not None and (ending.code, ending.kind) == (CRASHED, "unknown")
    assert "KeyError: 'a defect' (test_training_faults.py, line " in ending.message
    assert ending.message.endswith("The state of step 2 is saved.") and saved(run) == 2
    assert_it_ends_as_without(run, config, make_run, whole)


@pytest.mark.parametrize("number", STOPPING, ids=lambda number: signal.Signals(number).name)
def test_every_signal_that_announces_an_end_asks_the_trainer_to_save(number: int) -> None:
    stop = Stop()
    assert not stop()
    signal.raise_signal(number)
    assert stop() and stop.reason == signal.Signals(number).name


OUT_OF_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.50 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried 1 bytes"),
    MemoryError("of the host"),
)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_memory_that_runs_out_is_known_whoever_says_it(error: Exception) -> None:
    ending = ending_of(error, None)
    assert (ending.code, ending.kind) == (CONFIGURATION, "out of memory") and str(error) in ending.message


def test_memory_that_runs_out_says_what_to_change(
    run: TrainingRun, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "_accumulate", at_step(3, raising(OUT_OF_MEMORY[0])))
    code, ending = start(config)
    assert (code, ending.kind) == (CONFIGURATION, "out of memory")
    assert "by the plan this run takes " in ending.message and "base_quantization: int8 (then " in ending.message
    assert saved(run) == 2


def test_an_error_within_an_update_keeps_the_state_before_it(
    run: TrainingRun, config: Path, monkeypatch: pytest.MonkeyPatch, make_run: MakeRun, whole: dict[str, Any]
) -> None:
    plain = Progress.observe

    def broken(self: Progress, step: int, loss: float | None, *, skipped: int) -> None:
        if step == 3:
            raise RuntimeError("weights of one step, optimiser of another")
        plain(self, step, loss, skipped=skipped)

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "observe", broken)
        with pytest.raises(RuntimeError, match="of another"):
            trainer.main(["--config", str(config)])
    assert saved(run) == 0
    assert_it_ends_as_without(run, config, make_run, whole)


def test_an_error_before_a_checkpoint_is_written_leaves_it_to_be_written(
    run: TrainingRun, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(saving.Saving, "save_checkpoint", raising(OSError(errno.EIO, "the terminal is gone")))
        assert start(config)[0] == FILES
    assert saved(run) == 0, "gone on from the state of step 4, the run would have no checkpoint of it"


# --- the disk ---------------------------------------------------------------------------------------------------------


def test_a_run_that_the_disk_has_no_room_for_is_not_started_unless_forced(
    run: TrainingRun, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as small:
        small.setattr(room, "free_bytes", lambda folder: 17_000_000)
        code, ending = start(config)
    assert (code, ending.kind) == (FILES, "disk full")
    assert "the run, with 1 checkpoint to come (" in ending.message and "and 17.0 MB are free;" in ending.message
    assert "training.checkpoint_interval; --force starts all the same" in ending.message
    assert not run.checkpoints_dir.exists()


@pytest.mark.parametrize(("step", "minutes", "what"), [(4, 10, "checkpoint"), (2, EVERY_STEP, "state")])
def test_a_disk_that_fills_up_is_seen_before_something_is_half_written(
    make_run: MakeRun, config: Path, monkeypatch: pytest.MonkeyPatch, step: int, minutes: float, what: str
) -> None:
    run = make_run(**SETTINGS, state_minutes=minutes)
    save_run(config, run)
    filled: list[bool] = []
    with monkeypatch.context() as small:
        small.setattr(Trainer, "_accumulate", at_step(step, lambda: filled.append(True)))
        small.setattr(room, "free_bytes", lambda folder: 1_000_000 if filled else 1e12)
        code, ending = start(config)
    assert (code, ending.kind) == (FILES, "disk full")
    assert f"the disk is full: the {what} of step {step} takes " in ending.message
    assert "and 1.0 MB are free; make room, and start again: the run goes on" in ending.message
    assert saved(run) == {"checkpoint": 0, "state": 1}[what], "at most what came since the last state"
    assert start(config)[0] == DONE
    assert [record.step for record in read_manifest(run.checkpoints_dir)] == [4], "the checkpoint is made up for"


def test_a_preview_without_room_is_left_out_and_said(
    run: TrainingRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said: list[str] = []
    monkeypatch.setattr(room, "free_bytes", lambda folder: 1_000_000)
    monkeypatch.setattr(saving, "write_previews", raising(AssertionError("previewed")))
    settings = run.training.model_copy(update={"preview_count": 1})
    shown = run.model_copy(update={"training": settings})

    class Stand:
        run, say, processes, progress = shown, staticmethod(said.append), ALONE, Progress(step=4)

    saving.Saving(Stand()).preview()  # type: ignore[arg-type]
    (line,) = said
    assert "the preview of step 4 takes" in line and line.endswith("training goes on without")


@pytest.mark.parametrize("written", ["state", "log"])
def test_a_disk_that_is_full_all_the_same_keeps_the_state_before(
    make_run: MakeRun, config: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, Any], written: str
) -> None:
    run = make_run(**SETTINGS, state_minutes=EVERY_STEP)
    save_run(config, run)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    plain_log, plain_write = StepLog.write, write_hashed

    def log(self: StepLog, step: int, values: Mapping[str, Any]) -> None:
        if step == 3:
            self._file.write('{"step": 3, "lo')  # what a disk takes before it is full
            raise DiskError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        plain_log(self, step, values)

    def write(tensors: Mapping[str, torch.Tensor], path: Path) -> str:
        if ".step=3." in str(path):
            path.write_bytes(b"the first part")
            raise full
        return plain_write(tensors, path)

    with monkeypatch.context() as small:
        small.setattr(*{"state": (resume, "write_hashed", write), "log": (StepLog, "write", log)}[written])
        code, ending = start(config)
    assert (code, ending.kind) == (FILES, "disk full")
    assert saved(run) == 2
    assert not list((run.checkpoints_dir / FOLDER).glob(".*")), "nothing half-written is left"
    assert_it_ends_as_without(run, config, make_run, whole)


# --- damaged states, numbers that are none, two trainers --------------------------------------------------------------


@pytest.mark.parametrize("damage", ["flipped", "cut short"])
def test_a_damaged_state_costs_what_came_since_the_one_before(
    make_run: MakeRun,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    whole: dict[str, Any],
    damage: str,
) -> None:
    run = make_run(**SETTINGS, state_minutes=EVERY_STEP)
    save_run(config, run)
    with monkeypatch.context() as stopped:
        stopped.setattr(Trainer, "_accumulate", at_step(3, lambda: signal.raise_signal(signal.SIGTERM)))
        start(config)
    tensors = run.checkpoints_dir / FOLDER / "step=3" / TENSORS
    if damage == "flipped":
        flip(tensors, byte=-9)
    else:
        tensors.write_bytes(tensors.read_bytes()[:-1])
    assert_it_ends_as_without(run, config, make_run, whole)
    said = capsys.readouterr().out
    assert f"{tensors}: " in said and "the run goes on from step 2, and what came after is done again" in said


def test_states_that_are_all_damaged_end_the_run_by_name(
    run: TrainingRun, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as stopped:
        stopped.setattr(Trainer, "_accumulate", at_step(2, lambda: signal.raise_signal(signal.SIGTERM)))
        start(config)
    for tensors in run.checkpoints_dir.rglob(TENSORS):
        flip(tensors, byte=-9)
    code, ending = start(config)
    assert (code, ending.kind) == (FILES, "files")
    assert f"step=2/{TENSORS}: holds other bytes than were saved" in ending.message
    assert f"step=0/{TENSORS}: holds other bytes" in ending.message and "--fresh" in ending.message


def test_weights_that_are_no_numbers_are_never_saved_to_go_on_from(
    make_run: MakeRun, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(**SETTINGS, state_minutes=EVERY_STEP)
    save_run(config, run)
    plain = Progress.observe
    found: list[Trainer] = []
    plain_step = Trainer.step

    def step(self: Trainer) -> None:
        found[:] = [self]
        plain_step(self)

    def spoil(self: Progress, step: int, loss: float | None, *, skipped: int) -> None:
        plain(self, step, loss, skipped=skipped)
        if self.step == 3:
            with torch.no_grad():
                next(iter(found[0].parameters.values()))[0, 0] = float("nan")

    monkeypatch.setattr(Trainer, "step", step)
    monkeypatch.setattr(Progress, "observe", spoil)
    code, ending = start(config)
    assert (code, ending.kind) == (DIVERGED, "diverged")
    assert "training diverged: step 3: " in ending.message and "not finite" in ending.message
    assert ending.message.endswith("The state of step 2 is saved.") and saved(run) == 2


def test_a_second_trainer_is_refused_and_the_first_goes_on(run: TrainingRun, config: Path) -> None:
    with exclusive(run.checkpoints_dir):
        code, ending = start(config)
    assert (code, ending.kind) == (FILES, "files")
    assert "another process trains into it; wait for it or stop it" in ending.message


def test_states_are_saved_by_minutes_apart_from_checkpoints(
    make_run: MakeRun, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10_000))
    run = make_run(max_steps=9, checkpoint_interval=5, validation_limit=0, state_minutes=2.5 / 60)
    save_run(config, run)
    steps: list[int] = []
    plain = resume.save_state

    def save_state(folder: Path, *, step: int, **options: Any) -> None:
        steps.append(step)
        plain(folder, step=step, **options)

    class Time:
        monotonic = staticmethod(lambda: float(next(clock)))

    monkeypatch.setattr(saving, "time", Time)
    monkeypatch.setattr(resume, "save_state", save_state)
    assert start(config)[0] == DONE
    assert steps == [0, 2, 5, 7, 9], "a clock that is read once a step, and once at each save"


# --- endings that the trainer cannot write ----------------------------------------------------------------------------

CHILD = """
import signal, sys, time
from lofi_assets.training.stopping import Stop
stop, came = Stop(), []
for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, lambda number, frame: came.append(signal.Signals(number).name))
print("ready", flush=True)
until = time.monotonic() + 100
while not stop() and time.monotonic() < until:
    time.sleep(0.02)
with open(sys.argv[1], "w") as file:
    file.write(" ".join([*came, str(stop.reason)]))
sys.exit(75)
"""
"""Notes three signals, and ends by the fourth or without its parent."""
PARENT = """
import sys
from lofi_assets.training.launch import run_in_foreground
sys.exit(run_in_foreground(sys.argv[1:]))
"""
"""`lofi train`, without the time that its imports take."""


@contextmanager
def started(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that runs another in the foreground; both are there when the block begins."""
    child = [sys.executable, "-c", CHILD, str(tmp_path / "reason")]
    line = [sys.executable, "-c", PARENT, *child]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == "ready\n"
        yield parent


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 60
    while not (path.is_file() and path.read_text(encoding="utf-8")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return path.read_text(encoding="utf-8")


def test_lofi_train_passes_every_signal_on_and_waits(tmp_path: Path) -> None:
    with started(tmp_path) as parent:
        for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            parent.send_signal(number)
            time.sleep(0.2)  # in this order
        assert parent.wait(timeout=100) == INTERRUPTED
    assert set(wait_for(tmp_path / "reason").split()) == {"SIGUSR1", "SIGHUP", "SIGINT", "SIGTERM"}


def test_a_trainer_whose_lofi_train_is_killed_saves_and_ends(tmp_path: Path) -> None:
    with started(tmp_path) as parent:
        parent.kill()
    assert wait_for(tmp_path / "reason") == "the process that started it is gone"


def test_a_killed_trainer_is_explained_by_lofi_train(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "run.json"
    die = "import os, signal; os.write(2, b'CUDA is gone\\n'); os.kill(os.getpid(), signal.SIGKILL)"
    assert command._run([sys.executable, "-c", die], config) == 128 + signal.SIGKILL
    ending = read_ending(config)
    assert ending is not None and (ending.code, ending.kind) == (137, "killed")
    assert ending.message.startswith("the trainer was ended by SIGKILL; ") and "CUDA is gone" in ending.message
    assert f"error: {ending.message}" in capfd.readouterr().err


def test_of_several_processes_the_one_that_was_killed_is_named(
    make_run: MakeRun, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_run(config, make_run(processes=2))

    def killed(arguments: Sequence[str], *, processes: int, stop: Callable[[], bool]) -> Launched:
        monkeypatch.setattr("lofi_assets.training.launch.GRACE_SECONDS", 0.1)
        lives = ("import time; time.sleep(100)", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
        started = [subprocess.Popen([sys.executable, "-c", life]) for life in lives]
        try:
            return launch._watch(started, stop)
        finally:
            for process in started:
                process.kill()
                process.wait()

    monkeypatch.setattr(trainer, "launch", killed)
    code, ending = start(config)
    assert (code, ending.kind) == (128 + signal.SIGKILL, "killed")
    assert ending.message.startswith("process 1 of 2: the trainer was ended by SIGKILL; ")


def test_a_machine_that_stops_leaves_a_sentence_too(tmp_path: Path) -> None:
    config = tmp_path / "run.json"
    write_ending(config, Ending(FILES, "of the day before", "files", "another"))
    begin(config)
    assert read_ending(config) is None, "nobody has written how it ended"
    text = config.with_suffix(".ending.json").read_text()
    assert "it is at work, or it was killed, or the machine stopped" in text and f"(process {os.getpid()} on " in text


def test_of_several_processes_the_first_word_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "run.json"
    monkeypatch.setenv("WORLD_SIZE", "2")
    begin(config)
    write_ending(config, Ending(FILES, "a file of rank 1", "files"))
    begin(config)
    write_ending(config, Ending(CRASHED, "rank 0: connection closed by peer", "unknown"))
    assert read_ending(config).message == "a file of rank 1"
    monkeypatch.delenv("WORLD_SIZE")
    begin(config)
    write_ending(config, Ending(DONE, "another start", "complete"))
    assert read_ending(config).message == "another start"


def test_a_warning_that_the_end_announces_never_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM sends SIGUSR1, to `lofi train` and to the trainer, and SIGTERM minutes later, while the state is saved."""
    clock = iter([0.0, 100.0, 200.0, 201.0])

    class Time:
        monotonic = staticmethod(lambda: next(clock))

    monkeypatch.setattr(stopping, "time", Time)
    stop = Stop()
    for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
        signal.raise_signal(number)
    assert stop() and stop.reason == "SIGUSR1"


def test_a_hangup_that_is_ignored_stays_so() -> None:
    """Under `nohup`."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = Stop()
    signal.raise_signal(signal.SIGHUP)
    assert not stop()
