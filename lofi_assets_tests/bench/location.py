"""Budget: the code location loads within 3 s, without torch."""

import json
import statistics
import subprocess
import sys

from lofi_assets_tests.bench.report import Row

LIMIT_S = 3.0
REPEATS = 5

PROBE = """
import json, sys, time
started = time.perf_counter()
import dagster as dg
with_dagster = time.perf_counter()
from lofi_assets.definitions import build_defs
dg.Definitions.validate_loadable(build_defs())
done = time.perf_counter()
heavy = [n for n in ("torch", "transformers", "diffusers", "onnxruntime", "librosa", "matplotlib") if n in sys.modules]
print(json.dumps({"seconds": done - started, "dagster": with_dagster - started, "heavy": heavy}))
"""


def rows() -> list[Row]:
    """Import and validation in a fresh process, median of five."""
    probes = [_probe() for _ in range(REPEATS)]
    dagster = statistics.median(probe["dagster"] for probe in probes)
    heavy = sorted({name for probe in probes for name in probe["heavy"]})
    note = f"fresh process, import and validation; {dagster:.2f} s of it are `import dagster`"
    return [
        Row("location load", statistics.median(probe["seconds"] for probe in probes), "s", LIMIT_S, note=note),
        Row("heavy packages it imports", len(heavy), "", 0, note=f"loaded: {', '.join(heavy)}" if heavy else ""),
    ]


def _probe() -> dict:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the code location does not load: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])
