"""A LoRA from elsewhere is sampled and measured as the checkpoints are: the same weights give the same numbers."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from lofi_assets.evaluation import lora
from lofi_assets.evaluation.generated_samples import generate_samples
from lofi_assets.evaluation.lora import NUMBERS, evaluate_lora, lora_name
from lofi_assets.evaluation.quality_metrics import evaluate_checkpoints
from lofi_assets.evaluation.samples import clips_of
from lofi_assets.store import Store
from lofi_assets.training.adapter_forms.reading import layers_of, read_lora
from lofi_assets.training.checkpoints.files import COMFYUI_WEIGHTS
from lofi_assets.training.feature_cache import FeatureRecord
from lofi_assets_tests.evaluation.test_before_and_after import profile, trained  # noqa: F401 (a fixture)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LAST = "epoch=0-step=2_lora"


@pytest.mark.slow
def test_the_weights_of_a_checkpoint_in_another_form_have_its_clips_and_its_numbers(
    trained: Store,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    style = tmp_path / "style.safetensors"
    style.write_bytes((trained.checkpoints / LAST / COMFYUI_WEIGHTS).read_bytes())
    generate_samples(trained, profile())
    evaluate_checkpoints(trained, profile(), now=NOW)
    features = FeatureRecord.read(trained)
    adapter = read_lora(style, layers_of(features.backbone, Path(features.base)))
    found = evaluate_lora(trained, profile(), adapter)
    own, last, *others = found.rows
    assert (own["model"], last["model"]) == (lora_name(adapter), LAST)
    assert [row["model"] for row in others] == ["epoch=0-step=1_lora", "base"] and not found.notes
    assert {**own, "model": ""} == {**last, "model": ""}
    pairs = zip(clips_of(trained, found.name), clips_of(trained, LAST), strict=True)
    assert all(one.file(trained).read_bytes() == other.file(trained).read_bytes() for one, other in pairs)

    for name in ("generate", "evaluate_models"):
        monkeypatch.setattr(lora, name, lambda *_, **__: pytest.fail("made again"))
    assert evaluate_lora(trained, profile(), adapter).evaluation == found.evaluation
    assert (trained.cache / "loras" / found.name / NUMBERS).is_file()
