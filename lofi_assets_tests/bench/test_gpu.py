"""The rows of `make bench-gpu` run, at a tiny size on this machine; what they need of a GPU is left out and said."""

import json
from pathlib import Path

import pytest
import torch

from lofi_assets_tests.bench.gpu import main, share_of_peak


@pytest.mark.slow
def test_every_row_runs_at_a_tiny_size_and_a_failed_one_is_said(tmp_path: Path) -> None:
    assert main(["--tiny", "--to", str(tmp_path / "found.json"), "--upstream", str(tmp_path)]) == 1
    found = json.loads((tmp_path / "found.json").read_text())
    rows = found["rows"]
    failed = [row["why"] for row in rows if row["row"] == "failed"]
    assert len(failed) == 2 and all("No module named 'acestep'" in why for why in failed)  # upstream is not here
    exact = [row for row in rows if row["row"] == "exactness"]
    assert exact and all(row["same_again"] and row["same_resumed"] for row in exact)
    (killed,) = [row for row in rows if row["row"] == "killed and resumed"][:1]
    assert killed["same_losses"] and killed["same_weights"] and (killed["resumed_at"], killed["steps"]) == (1, 2)
    sampled = {(row["precision"], row["together"]) for row in rows if row["row"] == "sampling"}
    assert sampled == {("32", True), ("32", False), ("bf16", True), ("bf16", False)}
    steps = [row for row in rows if row["row"] == "training step"]
    assert {row["batch"] for row in steps} == {1, 2, 4} and all(row["seconds"] > 0 for row in steps)
    assert all((row["kernels"] is None) != torch.cuda.is_available() for row in steps)


def test_the_share_of_peak_is_of_the_cards_sheet_or_of_none() -> None:
    assert share_of_peak(98.9, "NVIDIA H200") == pytest.approx(0.1)
    assert share_of_peak(98.9, "NVIDIA H9000") is None
    assert share_of_peak(5.0, "Tesla T4") is None  # no bfloat16


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_real_size_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 1
    assert "--tiny runs anywhere" in capsys.readouterr().err
