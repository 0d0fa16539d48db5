"""Started by torchrun or `accelerate launch`, the trainer is stopped and goes on like under its own launcher."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lofi_assets.training.checkpoints.runs import log_path
from lofi_assets.training.checkpoints.state import resume_point
from lofi_assets.training.config import save_run
from lofi_assets.training.ending import DONE, INTERRUPTED, read_ending
from lofi_assets.training.trainer.log import read_log
from lofi_assets_tests.training.fixtures import MakeRun
from lofi_assets_tests.training.test_training_agreement import free_port

LAUNCHERS = {
    "torchrun": ("torch.distributed.run", "--nproc_per_node", "--master_port"),
    "accelerate": ("accelerate.commands.launch", "--num_processes", "--main_process_port"),
}


def launched(name: str, config: Path) -> "subprocess.Popen[str]":
    module, count, port = LAUNCHERS[name]
    more = ["--multi_gpu"] if name == "accelerate" else []  # which is torchrun; the run's device is the CPU
    command = [sys.executable, "-m", module, *more, count, "2", port, str(free_port())]
    command += ["-m", "lofi_assets.training", "--config", str(config)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(LAUNCHERS))
def test_a_stop_is_a_success_and_the_next_start_goes_on(make_run: MakeRun, tmp_path: Path, name: str) -> None:
    run, config = make_run(processes=2, max_steps=100_000, checkpoint_interval=50_000), tmp_path / "run.json"
    save_run(config, run)
    launcher = launched(name, config)
    while not any("loss" in line for line in read_log(log_path(run))):
        assert launcher.poll() is None, launcher.communicate()[0]
        time.sleep(0.1)
    for trainer in psutil.Process(launcher.pid).children(recursive=True):
        if "lofi_assets.training" in trainer.cmdline():
            trainer.send_signal(signal.SIGTERM)
    output, _ = launcher.communicate(timeout=120)
    assert launcher.returncode == 0, output
    ending, point = read_ending(config), resume_point(run.checkpoints_dir)
    assert ending is not None and ending.code == INTERRUPTED and point is not None and point.step > 0
    assert output.count("interrupted and saved") == 1

    settings = run.training.model_copy(update={"max_steps": point.step + 2})
    save_run(config, run.model_copy(update={"training": settings}))
    launcher = launched(name, config)
    output, _ = launcher.communicate(timeout=300)
    assert launcher.returncode == 0 and f"going on after step {point.step}" in output, output
    ending = read_ending(config)
    assert ending is not None and (ending.code, ending.kind) == (DONE, "complete")
