"""`verify_weights`: a base model on disk, component by component, in words (`lofi verify-weights`).

The checks are in `files` and `runs`; here is their order, and what is not run because something before it failed.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lofi_assets.backbones.ace_step_v1.loading import DCAE, FOLDERS, TEXT_ENCODER, TRANSFORMER, VOCODER
from lofi_assets.backbones.ace_step_v1.verification import runs as weight_runs
from lofi_assets.backbones.ace_step_v1.verification.files import ComponentReport, Finding, check_component


@dataclass
class Verification:
    """What was found in a base model so far."""

    say: Callable[[Finding], None]
    findings: list[Finding] = field(default_factory=list)
    reports: dict[str, ComponentReport] = field(default_factory=dict)

    @property
    def failed(self) -> list[Finding]:
        """What is wrong."""
        return [finding for finding in self.findings if not finding.passed]

    @property
    def published(self) -> bool:
        """Every component is of the published size."""
        return all(report.published for report in self.reports.values())

    def add(self, findings: Iterable[Finding]) -> None:
        """Take findings in, and tell of them."""
        for finding in findings:
            self.findings.append(finding)
            self.say(finding)


def verify_weights(
    directory: Path, *, device: str = "cpu", files_only: bool = False, say: Callable[[Finding], None]
) -> Verification:
    """Check files first, then run one component at a time.

    The published model needs 1.2 GB of memory for the text encoder, 1.1 GB for the codec and 5.3 GB for the
    transformer, one after the other.

    Args:
        directory: a base model in the Hub's layout.
        device: where the components are run.
        files_only: leave the runs out.
        say: told of each finding as it comes.
    """
    verification = Verification(say)
    for component in FOLDERS:
        report = check_component(directory, component)
        verification.reports[component] = report
        verification.add(report.findings)
    verification.add(weight_runs.check_lyric_vocabulary(directory))
    if not files_only:
        _run(directory, verification, device=device)
    return verification


def _run(directory: Path, verification: Verification, *, device: str) -> None:
    reports, text = verification.reports, None
    if reports[TEXT_ENCODER].passed:
        findings, text = weight_runs.run_text_encoder(directory, device=device)
        verification.add(findings)
        gc.collect()
    if reports[DCAE].passed and reports[VOCODER].passed:
        judged = reports[DCAE].published and reports[VOCODER].published
        verification.add(weight_runs.run_codec(directory, device=device, judged=judged))
        gc.collect()
    else:
        verification.add([Finding(DCAE, False, "the codec was not run: the files of DCAE or vocoder are at fault")])
    transformer = reports[TRANSFORMER]
    if transformer.passed and text is not None:
        verification.add(
            weight_runs.run_transformer(
                directory, text, device=device, half=transformer.half, judged=transformer.published
            )
        )
    else:
        verification.add([Finding(TRANSFORMER, False, "no sampler step was run: its files or the texts are at fault")])
