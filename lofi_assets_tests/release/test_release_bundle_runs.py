"""A bundle of the tiny base runs in the environment that pip makes of its requirements, and gives what torch gives."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lofi_assets.cli.main import main
from lofi_assets.files.documents import read_json
from lofi_assets.lofi_onnx.pipeline import OnnxPipeline
from lofi_assets.outcome import Outcome
from lofi_assets.release.bundle_environment import environment, versions_in
from lofi_assets.release.bundle_parity import PARITY
from lofi_assets.store import Store
from lofi_assets_tests.dataset.stand_in_version import deliver, track_record
from lofi_assets_tests.quantization.stand_in_manifest import merged_model
from lofi_assets_tests.release.stand_in_bundle import TIERS, built
from lofi_assets_tests.stage_rows import source_row, write_sources


@pytest.fixture(scope="module")
def real(tiny_base: Path, tiny_tiers: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Outcome, Path]:
    """The bundle of the tiny base, and the interpreter of its environment, which pip made."""
    store = Store(tmp_path_factory.mktemp("real") / "data")
    shutil.copytree(tiny_tiers, store.quantized)
    merged = merged_model("epoch=0-step=1_lora")
    merged.write(store)
    shutil.copytree(tiny_base, merged.folder(store))
    deliver(store, "lofi-0123", [track_record("rain_01")])
    write_sources(store, [source_row("rain_01")])
    outcome = built(store)
    if outcome.values["example_runs"]["value"] is None:
        pytest.skip(outcome.values["example_runs"]["note"])
    text = (store.export / "requirements.txt").read_text(encoding="utf-8")
    return store, outcome, environment(text, store.cache / "bundle_environments")


def in_its_environment(python: Path, folder: Path, *command: object) -> None:
    done = subprocess.run([str(python), "-I", *map(str, command)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


PROMPT = "lofi hip hop, rhodes, 74 bpm"


@pytest.mark.slow
@pytest.mark.xdist_group("tiny_tiers")
def test_every_tier_of_a_real_bundle_makes_audio_in_a_fresh_environment(real: tuple[Store, Outcome, Path]) -> None:
    store, outcome, python = real
    assert outcome.values["example_runs"] == {"value": True, "note": ""}
    assert outcome.values["missing_or_altered_files"] == {"value": 0, "note": ""}
    assert outcome.values["private_strings"] == {"value": 0, "note": ""}
    listed = (store.export / "requirements.txt").read_text(encoding="utf-8").splitlines()[1:]
    assert versions_in(python) == dict(line.split("==") for line in listed)
    told = read_json(store.export / PARITY)["tiers"]
    print({variant: row["audio_snr_db"] for variant, row in told.items()})
    assert told["fp16"]["audio_snr_db"] > told["int8"]["audio_snr_db"] > 0


@pytest.mark.slow
@pytest.mark.xdist_group("tiny_tiers")
@pytest.mark.parametrize("tier", TIERS)
def test_a_script_written_from_the_readme_alone_gives_the_same_latents(
    real: tuple[Store, Outcome, Path], tmp_path: Path, tier: str
) -> None:
    """From an environment without torch and without lofi_assets; the script is at most 60 lines."""
    store, _, python = real
    script = Path(__file__).with_name("from_the_readme.py")
    assert len(script.read_text(encoding="utf-8").splitlines()) <= 60
    in_its_environment(python, tmp_path, script, store.export, tier, PROMPT, 5, 7, "mine.npy")
    options = [PROMPT, "--tier", tier, "--seconds", 5, "--seed", 7, "--no-cpu-graph", "--latents", "bundle.npy"]
    in_its_environment(python, tmp_path, store.export / "generate.py", *options, "-o", "out.wav")
    np.testing.assert_allclose(np.load(tmp_path / "mine.npy"), np.load(tmp_path / "bundle.npy"), atol=1e-5)
    for name in ("torch", "lofi_assets"):
        with pytest.raises(AssertionError, match="No module named"):
            in_its_environment(python, tmp_path, "-c", f"import {name}")


@pytest.mark.slow
@pytest.mark.xdist_group("tiny_tiers")
def test_the_command_of_this_package_and_the_bundle_s_own_script_give_the_same_clip(
    real: tuple[Store, Outcome, Path], tmp_path: Path
) -> None:
    store, _, python = real
    options = [PROMPT, "--tier", "int8", "--seconds", "2", "--seed", "3", "--threads", "1"]
    in_its_environment(python, tmp_path, store.export / "generate.py", *options, "-o", "bundle.wav")
    done = CliRunner().invoke(main, ["generate", "--bundle", str(store.export), *options, "-o", f"{tmp_path}/own.wav"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "own.wav").read_bytes() == (tmp_path / "bundle.wav").read_bytes()


@pytest.mark.slow
@pytest.mark.xdist_group("tiny_tiers")
def test_a_tier_is_called_with_the_words_that_torch_is_called_with(
    real: tuple[Store, Outcome, Path], tiny_base: Path
) -> None:
    """The ids of prompt and lyrics, whatever language they are in."""
    import torch

    from lofi_assets.backbones.ace_step_v1.loading import load_base
    from lofi_assets.backbones.ace_step_v1.sampler import conditions_for

    store, _, _ = real
    base, tier = load_base(tiny_base), OnnxPipeline(store.quantized / "fp32")
    for words in ("", "[verse]\nrain on the window", "[Language: de]\nRegen am Fenster"):
        wanted = conditions_for(base, prompts=[PROMPT], lyrics=[words])
        found = tier.conditions([PROMPT], lyrics=[words])
        assert torch.equal(wanted.lyric_token_ids, torch.from_numpy(found.lyric_token_ids)), words
        np.testing.assert_allclose(wanted.text_hidden_states.numpy(), found.text_hidden_states, atol=1e-4)
