"""What is measured again: whatever the numbers depend on is in the key by its bytes."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from lofi_assets.evaluation import quality_metrics
from lofi_assets.evaluation.samples import BASE, Clip, ModelSamples
from lofi_assets.files.typed import write_typed
from lofi_assets.profiles import load_profile
from lofi_assets.store import Store


@pytest.fixture
def measured(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The base with one clip, and weights of both encoders."""
    monkeypatch.setattr(
        quality_metrics, "trained_dataset", lambda store: SimpleNamespace(record=SimpleNamespace(hash="d"))
    )
    clip = Clip(path="samples/base/000.mp3", prompt="lofi", style_id="CORE-01", seed=1, problems=())
    write_typed(store.samples / BASE / "samples.json", ModelSamples(key="k", clips=(clip,)))
    for name in ("samples/base/000.mp3", "models/vggish.pth", "models/clap/model.safetensors"):
        path = store.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"first")
    return store


def key(store: Store) -> str:
    profile = load_profile("demo")
    settings = profile.evaluation.model_copy(update={"encoder_weights": "models/vggish.pth", "clap": "models/clap"})
    return quality_metrics.metrics_key(store, profile.model_copy(update={"evaluation": settings}), BASE)


@pytest.mark.parametrize("name", ["samples/base/000.mp3", "models/vggish.pth", "models/clap/model.safetensors"])
def test_other_bytes_under_the_same_name_and_time_are_measured_again(name: str, measured: Store) -> None:
    before, path = key(measured), measured.root / name
    assert key(measured) == before
    times = path.stat()
    replaced(path, b"other", times)
    changed = key(measured)
    replaced(path, b"first", times)
    assert changed != before and key(measured) == before
    path.unlink()
    assert key(measured) not in (before, changed)


def replaced(path: Path, content: bytes, times: os.stat_result) -> None:
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
