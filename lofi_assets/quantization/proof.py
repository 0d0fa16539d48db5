"""The policy's proof in a process of its own: it knows nothing but the files, the layout and the rules.

    python -m lofi_assets.quantization.proof < request > report

What built a tier holds its graphs and weights in memory, and may have changed what its modules do. The proof starts
from none of that.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from pydantic.dataclasses import dataclass

import lofi_assets
from lofi_assets.backbones.export import ExportLayout
from lofi_assets.errors import LofiError
from lofi_assets.files.typed import STORED, parsed, plain
from lofi_assets.quantization.tier_manifest import PolicyReport, TierName

REMEDY = "this process and the one that it starts are of different versions; start again"


class ProofError(LofiError, RuntimeError):
    """The proof did not come to an end; the message says where."""


@dataclass(frozen=True, config=STORED)
class _Request:
    directory: Path
    tier: TierName
    layout: ExportLayout
    baseline: Path | None


def prove_tier(directory: Path, *, tier: TierName, layout: ExportLayout, baseline: Path | None) -> PolicyReport:
    """`policy.check_tier` in a fresh process.

    Args:
        baseline: the FP32 tier's folder; None: as in `policy.check_tier`.
    Raises:
        ProofError: it ended without a report, as where a component's file is absent.
    """
    request = _Request(directory.resolve(), tier, layout, baseline.resolve() if baseline else None)
    package = str(Path(lofi_assets.__file__).parents[1])
    inherited = os.environ.get("PYTHONPATH")
    done = subprocess.run(
        [sys.executable, "-m", "lofi_assets.quantization.proof"],
        input=json.dumps(plain(request)),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([package, *([inherited] if inherited else [])])},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ProofError(f"{directory}: the proof of tier {tier} ended with code {done.returncode}: {last}")
    return parsed(PolicyReport, json.loads(done.stdout), where="the proof's report", remedy=REMEDY)


def main() -> None:
    """One request in JSON on standard input, one report on standard output."""
    from lofi_assets.quantization.policy import check_tier

    asked = parsed(_Request, json.load(sys.stdin), where="standard input", remedy=REMEDY)
    report = check_tier(asked.directory, tier=asked.tier, layout=asked.layout, baseline=asked.baseline)
    json.dump(plain(report), sys.stdout)


if __name__ == "__main__":
    main()
