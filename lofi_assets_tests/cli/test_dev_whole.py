"""`lofi dev` as people start it: both parts answer, nothing warns, a second one refuses, Ctrl-C ends all."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from lofi_assets_tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow

PATIENCE_S = 180.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(home: Path, log: Path, *ports: int) -> "subprocess.Popen[bytes]":
    command = [
        sys.executable,
        "-m",
        "lofi_assets.cli.main",
        "dev",
        "--port",
        str(ports[0]),
        "--pages-port",
        str(ports[1]),
    ]
    settings = {"DAGSTER_HOME": str(home), "LOFI_DATA_DIR": str(home.parent / "data"), "VIRTUAL_ENV": "/opt/another"}
    with log.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **settings}, cwd=REPOSITORY)


def answers(port: int, within: "subprocess.Popen[bytes]") -> bool:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and within.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                return answer.status == 200
        except OSError:
            time.sleep(0.5)
    return False


def test_ui_and_pages_start_together_without_a_warning_and_end_together(tmp_path: Path) -> None:
    ports = free_port(), free_port()
    one = start(tmp_path / "home", tmp_path / "log", *ports)
    try:
        assert answers(ports[1], one) and answers(ports[0], one), (tmp_path / "log").read_text()
        parts = psutil.Process(one.pid).children(recursive=True)
        second = start(tmp_path / "home", tmp_path / "second", free_port(), free_port())
        assert second.wait(timeout=PATIENCE_S) == 1
        assert f"process {one.pid}" in (tmp_path / "second").read_text()
        one.send_signal(signal.SIGINT)
        assert one.wait(timeout=PATIENCE_S) == 0
        gone, left = psutil.wait_procs(parts, timeout=10)
        assert gone and not left
    finally:
        one.kill()
        one.wait()
    said = (tmp_path / "log").read_text()
    assert not re.search(r"warn|error|deprecat|traceback|aborted", said, re.IGNORECASE), said
