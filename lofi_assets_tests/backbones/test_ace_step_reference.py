"""The backbone against tensors of upstream's code; what `lofi verify-reference` must notice."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lofi_assets.backbones.ace_step_v1.verification.reference import format_comparisons, verify_reference


@pytest.fixture
def folder(reference_dir: Path, tmp_path: Path) -> Path:
    """A reference folder whose flow-matching file may be changed; the other files are links."""
    for path in (reference_dir / "ace_step_v1").iterdir():
        if path.name != "flow_matching.safetensors" and "dcae" not in path.name and "lyric" not in path.name:
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


def flow_tensors(reference_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(reference_dir / "ace_step_v1" / "flow_matching.safetensors")


def failures(folder: Path) -> dict[str, str]:
    return {item.output: item.problem for item in verify_reference(folder) if not item.passed and "flow" in item.file}


def test_every_reference_output_is_inside_its_tolerance(reference_dir: Path) -> None:
    comparisons = verify_reference(reference_dir / "ace_step_v1")
    assert all(item.passed for item in comparisons), format_comparisons(comparisons)
    assert len(comparisons) == 33


def test_an_output_outside_the_tolerance_fails(reference_dir: Path, folder: Path) -> None:
    tensors = flow_tensors(reference_dir)
    tensors["sigmas_60"][3] += 2e-4
    save_file(tensors, folder / "flow_matching.safetensors")
    assert list(failures(folder)) == ["sigmas_60"]


def test_a_nan_in_an_output_fails(reference_dir: Path, folder: Path) -> None:
    tensors = flow_tensors(reference_dir)
    tensors["apg.out.1"][0, 0, 0, 0] = float("nan")
    save_file(tensors, folder / "flow_matching.safetensors")
    assert list(failures(folder)) == ["apg.out.1"]


def test_a_missing_and_an_unknown_output_fail(reference_dir: Path, folder: Path) -> None:
    tensors = flow_tensors(reference_dir)
    del tensors["loss.total"]
    tensors["surprise"] = torch.zeros(2)
    save_file(tensors, folder / "flow_matching.safetensors")
    found = failures(folder)
    assert set(found) == {"loss.total", "surprise"}
    assert "lacks" in found["loss.total"] and "unknown" in found["surprise"]


def test_a_schedule_of_another_length_is_read_from_its_name(reference_dir: Path, folder: Path) -> None:
    tensors = flow_tensors(reference_dir)
    tensors["timesteps_27"] = torch.zeros(27)
    save_file(tensors, folder / "flow_matching.safetensors")
    (item,) = [item for item in verify_reference(folder) if item.output == "timesteps_27"]
    assert item.error == pytest.approx(1000.0, rel=1e-3) and not item.passed


def test_a_missing_file_fails_and_does_not_hide_the_others(reference_dir: Path, folder: Path) -> None:
    comparisons = verify_reference(folder)
    whole_files = [item.file for item in comparisons if item.output == "*"]
    assert whole_files == ["music_dcae.safetensors", "flow_matching.safetensors"]
    assert all(item.passed for item in comparisons if item.output != "*")
    assert "FAIL" in format_comparisons(comparisons)
