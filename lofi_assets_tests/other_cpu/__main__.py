"""Run a command as on a CPU without AVX-512, VNNI and AMX; its exit code is this one's."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from lofi_assets_tests.other_cpu import NoOtherCpu, environment


def main(command: list[str]) -> int:
    if not command:
        print("Usage: python -m lofi_assets_tests.other_cpu COMMAND [ARGUMENT ...]", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        try:
            variables = environment(Path(folder))
        except NoOtherCpu as reason:
            print(reason, file=sys.stderr)
            return 70  # EX_SOFTWARE of sysexits.h
        return subprocess.run(command, env=variables).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
