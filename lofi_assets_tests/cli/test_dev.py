"""`lofi dev`: one daemon on a home, both parts told of and ended."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from lofi_assets.cli.dev import Part, _started, end, watch
from lofi_assets.cli.ports import require_free
from lofi_assets.defs.dagster_home import TEMPLATE, DaemonRunsError, daemons_on, dagster_home, own_settings, sole_daemon
from lofi_assets_tests.conftest import REPOSITORY

SLEEP = "import time; time.sleep(60)"
READY = f"print('ready', flush=True); {SLEEP}"
HOLD = """
import sys
from pathlib import Path
from lofi_assets.defs.dagster_home import sole_daemon
with sole_daemon(Path(sys.argv[1]), url="http://127.0.0.1:3000"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def processes() -> Iterator[list["subprocess.Popen[bytes]"]]:
    live: list[subprocess.Popen[bytes]] = []
    yield live
    for process in live:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def test_a_second_start_on_one_home_is_told_which_process_works_there_and_a_killed_one_holds_nothing(
    tmp_path: Path,
) -> None:
    holder = subprocess.Popen(
        python(HOLD, str(tmp_path)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(DaemonRunsError) as refused, sole_daemon(tmp_path, url="http://127.0.0.1:3010"):
            pass
        said = str(refused.value)
        assert f"process {holder.pid}" in said and "http://127.0.0.1:3000" in said and str(tmp_path) in said
        with sole_daemon(tmp_path / "another", url=""):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with sole_daemon(tmp_path, url="http://127.0.0.1:3010"):
        pass


def test_a_daemon_that_was_started_by_hand_is_noticed(
    tmp_path: Path, processes: list["subprocess.Popen[bytes]"]
) -> None:
    home = tmp_path / "home"
    command = [sys.executable, "-c", SLEEP, "dagster._daemon", "run"]
    processes.append(subprocess.Popen(command, env={**os.environ, "DAGSTER_HOME": str(home)}))
    assert daemons_on(home) == [processes[0].pid]
    assert daemons_on(tmp_path) == []
    with pytest.raises(DaemonRunsError, match=f"process {processes[0].pid}"), sole_daemon(home, url=""):
        pass


def test_a_home_gets_the_template_once_and_keeps_its_own_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    home = dagster_home()
    assert (home / "dagster.yaml").read_bytes() == TEMPLATE.read_bytes() and not own_settings(home)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    assert dagster_home() == home and own_settings(home)


def test_each_data_root_has_a_home_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lofi_assets.defs.dagster_home.CONFIG_DIR", tmp_path / "config")

    def home_of(root: str) -> Path:
        monkeypatch.delenv("DAGSTER_HOME", raising=False)
        monkeypatch.setenv("LOFI_DATA_DIR", str(tmp_path / root))
        home = dagster_home()
        assert os.environ["DAGSTER_HOME"] == str(home) and (home / "dagster.yaml").is_file()
        return home

    first, second, third = (home_of(root) for root in ("data", "a/library", "b/library"))
    assert first == tmp_path / ".dagster"
    assert second != third and {second.parent, third.parent} == {first / "roots"}
    assert [home_of(root) for root in ("a/library", "data", "b/library")] == [second, first, third]


def test_a_checkout_that_is_moved_with_its_data_keeps_its_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for checkout in ("here", "there"):
        if checkout == "there":
            (tmp_path / "here").rename(tmp_path / "there")
        monkeypatch.setattr("lofi_assets.defs.dagster_home.CONFIG_DIR", tmp_path / checkout / "config")
        monkeypatch.delenv("DAGSTER_HOME", raising=False)
        monkeypatch.setenv("LOFI_DATA_DIR", str(tmp_path / checkout / "data"))
        assert dagster_home() == tmp_path / checkout / ".dagster"


def test_a_home_that_is_named_is_taken_for_any_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    for root in ("data", "library"):
        monkeypatch.setenv("LOFI_DATA_DIR", str(tmp_path / root))
        assert dagster_home() == tmp_path / "home"


def test_no_settings_lie_where_dagster_warns_of_them() -> None:
    assert not (TEMPLATE.parent.parent / "dagster.yaml").exists()


def part(name: str, process: "subprocess.Popen[bytes]") -> Part:
    return Part(name, process, "remedy")


def test_a_page_server_that_ends_is_told_and_the_ui_goes_on_until_it_ends_too(
    processes: list["subprocess.Popen[bytes]"],
) -> None:
    said: list[str] = []
    processes += [_started(python(SLEEP), os.environ), _started(python("raise SystemExit(3)"), os.environ)]
    ui, pages = part("the UI", processes[0]), part("the page server", processes[1])

    def say(message: str) -> None:
        said.append(message)
        if "the page server ended" in message:
            assert ui.process.poll() is None
            ui.process.kill()

    assert watch(ui, pages, daemons=list, say=say) == 1
    assert said[0].startswith("the page server ended by itself with code 3; the UI goes on")
    assert said[1].startswith("the UI ended by itself with code -9") and len(said) == 2


def test_a_daemon_that_somebody_starts_later_is_told_once(
    processes: list["subprocess.Popen[bytes]"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lofi_assets.cli.dev.SEARCH_S", 0.0)
    monkeypatch.setattr("lofi_assets.cli.dev.LOOK_S", 0.01)
    said: list[str] = []
    looks = iter(range(5))
    processes += [_started(python(SLEEP), os.environ), _started(python(SLEEP), os.environ)]
    own = processes[1].pid

    def daemons() -> list[int]:
        if next(looks, None) is None:
            processes[0].kill()
        return [own, 1]

    watch(part("the UI", processes[0]), part("the page server", processes[1]), daemons=daemons, say=said.append)
    assert [message for message in said if "process 1 is a second daemon" in message] == said[:1]
    assert not [message for message in said if str(own) in message]


def test_each_part_is_interrupted_once_and_waited_for(processes: list["subprocess.Popen[bytes]"]) -> None:
    orderly = textwrap.dedent("""
        import signal, sys, time
        seen = []
        signal.signal(signal.SIGINT, lambda *_: seen.append(1))
        print("ready", flush=True)
        while not seen: time.sleep(0.01)
        time.sleep(0.3)
        sys.exit(40 + len(seen))
    """)
    processes.append(subprocess.Popen(python(orderly), stdout=subprocess.PIPE, start_new_session=True))
    assert processes[0].stdout is not None and processes[0].stdout.readline() == b"ready\n"
    end(processes)
    assert processes[0].returncode == 41


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal at a parent's death is Linux's")
def test_a_killed_start_leaves_nothing_running() -> None:
    code = f"""
        import os, signal
        from lofi_assets.cli.dev import _started
        child = _started([{sys.executable!r}, "-c", {READY!r}], os.environ)
        print(child.pid, flush=True)
        os.read(0, 1)
    """
    command = python(textwrap.dedent(code))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY) as parent:
        assert parent.stdout is not None
        lines = sorted([parent.stdout.readline(), parent.stdout.readline()])
        assert lines[1] == b"ready\n" and int(lines[0]) > 0
        parent.kill()
        # the pipe closes when the child, which shares it, is gone too
        assert parent.stdout.read() == b""


def test_a_port_in_use_is_said_with_the_process_and_the_way_out() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(click.ClickException) as refused:
            require_free(port, option="--pages-port")
        assert f"port {port}" in refused.value.message and "--pages-port" in refused.value.message
        assert f"process {os.getpid()}" in refused.value.message
    require_free(port, option="--port")


def test_a_background_start_can_still_be_interrupted(processes: list["subprocess.Popen[bytes]"]) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        processes.append(_started(python(SLEEP), os.environ))
        end(processes)
    finally:
        signal.signal(signal.SIGINT, before)
    assert processes[0].returncode not in (0, None)
