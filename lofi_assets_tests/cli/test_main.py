"""The command line as a process."""

import gc
import subprocess
import sys

import pytest
from click.testing import CliRunner

from lofi_assets.cli.main import main

AT_THE_END = "import atexit, gc; atexit.register(lambda: print('frozen', gc.get_freeze_count() > 10_000))"


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["--no-such-option"], 2)])
def test_a_process_that_ends_searches_nothing_for_garbage(arguments: list[str], code: int) -> None:
    run = f"{AT_THE_END}; import lofi_assets.cli.main as cli, sys; sys.argv[1:] = {arguments!r}; cli.main()"
    ended = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=False)
    assert ended.returncode == code and ended.stdout.endswith("frozen True\n")


def test_a_command_within_another_program_leaves_its_garbage_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "freeze", lambda: pytest.fail("garbage of the program is kept for good"))
    assert CliRunner().invoke(main, ["--help"]).exit_code == 0
