"""The process pool: what a job can do to itself and to the others."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from lofi_assets.workers import process_pool as workers
from lofi_assets.workers.child_process import without_interrupts
from lofi_assets.workers.mapping import RULE, WorkerFailure
from lofi_assets.workers.process_pool import LocalProcesses


def behave(job: str) -> str:
    """What the jobs of these tests do in a worker."""
    name, _, argument = job.partition(":")
    if name == "exit":
        os._exit(3)
    if name == "abort":
        os.abort()
    if name == "hang":
        time.sleep(600)
    if name == "once":
        # Dies the first time only: the file tells whether it has been here.
        marker = Path(argument)
        if not marker.exists():
            marker.touch()
            os._exit(9)
    if name == "raise":
        raise ValueError("no such key")
    if name == "hoard":
        return str(len(bytearray(3 << 30)))
    if name == "noise":
        os.system("echo from a C library; echo and another >&2")
    if name == "threads":
        return os.environ["OMP_NUM_THREADS"]
    return f"done {job}"


def _run(jobs: list[str], *, timeout_s: float = 30.0, workers: int = 2) -> dict[str, str | WorkerFailure]:
    return dict(LocalProcesses(workers, timeout_s, 2.0)(behave, jobs, label="test"))


def test_jobs_that_kill_or_hang_their_worker_do_not_touch_the_others(tmp_path: Path) -> None:
    good = [f"job:{index}" for index in range(6)]
    bad = ["exit", "abort", "hang", "raise", "hoard", f"once:{tmp_path / 'marker'}"]
    results = _run([*good[:3], *bad, *good[3:]], timeout_s=2.0)
    assert all(results[job] == f"done {job}" for job in good)
    failures = {job: result for job, result in results.items() if isinstance(result, WorkerFailure)}
    assert failures.keys() == {"exit", "abort", "hang", "raise", "hoard"}
    assert all(failure.rule == RULE for failure in failures.values())
    assert "exit status 3" in failures["exit"].reason and failures["exit"].retried
    assert "SIGABRT" in failures["abort"].reason
    assert "2 s" in failures["hang"].reason
    assert "ValueError: no such key" in failures["raise"].reason and not failures["raise"].retried
    assert "memory" in failures["hoard"].reason


def test_a_worker_that_died_once_by_accident_costs_no_track(tmp_path: Path) -> None:
    job = f"once:{tmp_path / 'marker'}"
    assert _run([job]) == {job: f"done {job}"}


def test_a_job_that_takes_long_is_named_beside_the_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "TICK_S", 0.1)
    seen: list[str] = []
    (outcome,) = workers._run_once(behave, ["hang"], LocalProcesses(1, 2.0, 2.0), seen.append)
    assert isinstance(outcome, workers._Died)
    # Nothing while it starts and runs for less than a tenth of its time, and maybe nothing again once it has ended.
    named = [text for text in seen if text]
    assert seen[0] == "" and named
    assert all(text.startswith("'hang' takes") and text.endswith("of 2 s") for text in named)


def test_workers_write_nothing_into_the_streams_of_the_command(capfd: pytest.CaptureFixture[str]) -> None:
    assert _run(["noise", "job:1"])["noise"] == "done noise"
    assert capfd.readouterr().out == ""


def test_a_worker_uses_one_thread() -> None:
    assert _run(["threads"], workers=1) == {"threads": "1"}


def test_a_worker_is_started_deaf_to_ctrl_c(tmp_path: Path) -> None:
    """Before it could ignore it by itself. Only in a fresh process does Python start its tracker of resources."""
    script = tmp_path / "run.py"
    script.write_text(
        "import os, signal\n"
        "from lofi_assets.workers.process_pool import LocalProcesses\n"
        "def deaf(job):\n"
        "    return os._exit(3) if job == 'exit' else signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])\n"
        "if __name__ == '__main__':\n"
        "    done = LocalProcesses(1, 30, 2)(deaf, ['0', 'exit', '1', '2'], label='test')\n"
        "    print(*[result for job, result in done if job != 'exit'])\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["True"] * 3


def test_an_interrupt_that_another_thread_takes_waits_until_the_end_of_the_block() -> None:
    over = threading.Event()
    other = threading.Thread(target=over.wait)
    other.start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    reached = False
    try:
        with pytest.raises(KeyboardInterrupt), without_interrupts():
            assert other.ident is not None
            signal.pthread_kill(other.ident, signal.SIGINT)
            time.sleep(0.1)
            reached = True
        assert reached and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
        over.set()
        other.join()


ENDING = """
import os, signal, threading, time
if __name__ == "__mp_main__":
    time.sleep(1.0)  # a worker that is only just starting, on a machine with much to do
from multiprocessing import popen_spawn_posix
from pebble import ProcessPool
from lofi_assets.workers import process_pool

launch, stop, starting = popen_spawn_posix.Popen._launch, ProcessPool.stop, threading.Event()

def slowly(self, process):
    launch(self, process)
    if threading.current_thread() is not threading.main_thread():
        starting.set()
        time.sleep(1.5)

def interrupted(self):
    assert starting.wait(60)
    stop(self)
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process_pool.TASKS_PER_WORKER = 1  # the next worker starts when the last job is done
    popen_spawn_posix.Popen._launch, ProcessPool.stop = slowly, interrupted
    try:
        list(process_pool.LocalProcesses(1, 30, 2)(len, ["job"], label="test"))
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_an_interrupt_while_the_pool_ends_leaves_no_worker_that_is_only_just_starting(tmp_path: Path) -> None:
    script = tmp_path / "ending.py"
    script.write_text(ENDING)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=True)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


def test_without_workers_an_exception_is_still_a_failure_of_one_job() -> None:
    results = _run(["raise", "job:1"], workers=0)
    assert results["job:1"] == "done job:1"
    assert results["raise"] == WorkerFailure("ValueError: no such key")


def test_no_jobs_start_no_processes() -> None:
    assert _run([]) == {}


def test_closing_the_iterator_ends_the_workers() -> None:
    results = LocalProcesses(2, 60, 2)(behave, ["job:1", "hang", "hang"], label="test")
    next(results)
    results.close()
    assert not [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_parent_leaves_no_orphans(tmp_path: Path, signum: signal.Signals) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import signal\n"
        "from lofi_assets.workers.process_pool import LocalProcesses\n"
        "from lofi_assets_tests.test_workers import behave\n"
        "if __name__ == '__main__':\n"
        # A shell that starts the tests in the background lets them inherit an ignored SIGINT.
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    jobs = ['job:1', 'hang', 'hang']\n"
        "    for job, _ in LocalProcesses(2, 60, 2)(behave, jobs, label='test'):\n"
        "        print(job, flush=True)\n",
        encoding="utf-8",
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    parent = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True
    )
    assert parent.stdout is not None and parent.stdout.readline() == "job:1\n"
    children = psutil.Process(parent.pid).children(recursive=True)
    assert children
    parent.send_signal(signum)
    parent.wait(timeout=20)
    parent.stdout.close()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


SCRIPT = """
from lofi_assets.workers import process_pool
process_pool.START_S = 3.0
print(list(process_pool.LocalProcesses(1, 30.0, 2.0)(len, ["job"], label="test")))
"""


def test_a_script_that_starts_itself_in_its_workers_is_told_so_rather_than_hanging(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "WorkersDoNotStart" in done.stderr and "__main__" in done.stderr
