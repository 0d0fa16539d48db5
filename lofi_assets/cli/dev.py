"""`lofi dev`: the Dagster UI with its daemon (`dg dev`), and the page server beside it, until Ctrl-C."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from lofi_assets.cli.ports import require_free
from lofi_assets.store import PACKAGE, data_root

HOST = "127.0.0.1"
CHECKOUT = PACKAGE.parent
LOOK_S = 0.5
"""Seconds between two looks at the processes."""
SEARCH_S = 30.0
"""Seconds between two searches for a daemon that somebody else started."""
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Part:
    """One of the two processes, and what is said when it ends by itself."""

    name: str
    process: "subprocess.Popen[bytes]"
    remedy: str


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Of the Dagster UI.")
@click.option(
    "--pages-port",
    type=click.IntRange(1, 65535),
    help="Of the page server. Default: the port of LOFI_PAGES_URL on this machine, else 3001.",
)
def dev(port: int, pages_port: int | None) -> None:
    """The Dagster UI with its daemon, and beside it the page server; Ctrl-C ends both."""
    command = dg()
    from lofi_assets.defs.dagster_home import DaemonRunsError, dagster_home, own_settings, sole_daemon
    from lofi_assets.environment import variable
    from lofi_assets.pages.server import pages_port as default_port

    home, pages_port = dagster_home(), pages_port or default_port()
    ui, pages = f"http://{HOST}:{port}", f"http://{HOST}:{pages_port}"
    for name, address in (("LOFI_UI_URL", ui), ("LOFI_PAGES_URL", pages)):
        os.environ[name] = variable(name) or address
    try:
        with sole_daemon(home, url=ui):
            bury_dead_demos()
            require_free(port, option="--port")
            require_free(pages_port, option="--pages-port")
            if own_settings(home):
                kept = f"{home}/dagster.yaml differs from the project's config/dagster.yaml and is kept"
                click.echo(f"{kept}; to take the project's: cp config/dagster.yaml {home}/")
            click.echo(f"data root: {data_root()}   Dagster's home: {home}")
            click.echo(f"UI: {ui}   pages: {pages}   Ctrl-C ends both")
            code = _run([command, "dev", "--host", HOST, "--port", str(port)], home, pages_port)
    except DaemonRunsError as error:
        raise click.ClickException(str(error)) from error
    sys.exit(code)


def bury_dead_demos() -> None:
    """A demo that was killed would hold its pools for ever: no run of the UI would start."""

    from lofi_assets.demo.run import fail_killed_runs, instance_of_home

    with instance_of_home() as instance:
        for run_id in fail_killed_runs(instance, alone=False):
            click.echo(f"run {run_id[:8]} of a demo that was killed is marked as failed")


def dg() -> str:
    """Dagster's command beside this interpreter."""
    command = Path(sys.executable).with_name("dg")
    if not command.is_file():
        raise click.ClickException(f"{command} is missing; install the UI with: pip install 'lofi_assets[ui]'")
    return str(command)


def _run(ui: Sequence[str], home: Path, pages_port: int) -> int:
    from lofi_assets.defs.dagster_home import daemons_on

    pages = [sys.executable, "-m", "lofi_assets.cli.main", "pages", "--port", str(pages_port)]
    # The environment that runs here, whichever is activated, or none: dg warns where the checkout's is another.
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix}
    with _interrupted_by(ENDINGS):
        parts = (
            Part("the UI with its daemon", _started(ui, environment), "what ended it stands above"),
            Part(
                "the page server", _started(pages, environment), f"start it again with: lofi pages --port {pages_port}"
            ),
        )
        try:
            return watch(*parts, daemons=lambda: daemons_on(home), say=click.echo)
        except KeyboardInterrupt:
            click.echo("ending the UI, its daemon and the page server; Ctrl-C again ends them at once")
            return 0
        finally:
            end([part.process for part in parts])


def watch(ui: Part, pages: Part, *, daemons: Callable[[], Sequence[int]], say: Callable[[str], None]) -> int:
    """Wait for the UI to end, which it only does by a fault, and tell of what else goes wrong meanwhile.

    The UI goes on without the page server: runs may be under way that a stop would interrupt.

    Returns:
        1
    """
    told: set[int] = set()
    looked = time.monotonic()
    pages_live = True
    while ui.process.poll() is None:
        if pages_live and pages.process.poll() is not None:
            pages_live = False
            say(f"{pages.name} ended by itself with code {pages.process.returncode}; {ui.name} goes on; {pages.remedy}")
        if time.monotonic() - looked >= SEARCH_S:
            looked = time.monotonic()
            strangers = {*daemons(), *told} - _descendants() - told
            for process in sorted(strangers):
                say(f"process {process} is a second daemon on this DAGSTER_HOME: every run starts twice; end one")
            told |= strangers
        time.sleep(LOOK_S)
    say(f"{ui.name} ended by itself with code {ui.process.returncode}; {ui.remedy}. {pages.name.capitalize()} ends too")
    return 1


def end(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Interrupt what still runs, once each, and wait for it; interrupted meanwhile, kill it with all it started."""
    live = [process for process in processes if process.poll() is None]
    try:
        for process in live:
            process.send_signal(signal.SIGINT)
        for process in live:
            process.wait()
    except KeyboardInterrupt:
        for process in live:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _started(command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """A process in a session of its own: the terminal's Ctrl-C reaches it through `end` only, and so just once."""
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def end_with_parent() -> None:
        set_parent_death_signal = 1
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if prctl:
            prctl(set_parent_death_signal, signal.SIGINT, 0, 0, 0)

    return subprocess.Popen(
        command, cwd=CHECKOUT, env=environment, stdin=subprocess.DEVNULL, start_new_session=True,
        preexec_fn=end_with_parent,
    )  # fmt: skip


@contextlib.contextmanager
def _interrupted_by(signals: Sequence[signal.Signals]) -> Iterator[None]:
    """Each of the signals is as Ctrl-C for the block."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _descendants() -> set[int]:
    import psutil

    return {process.pid for process in psutil.Process().children(recursive=True)}
