"""Three tiers of two tiny files each in a data root of their own, and a bundle of them that is taken to have run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from lofi_assets.files.hashing import sha256_file
from lofi_assets.outcome import Outcome
from lofi_assets.profiles import load_profile
from lofi_assets.release import onnx_artifacts as bundle_module
from lofi_assets.release.bundle_runs import Run
from lofi_assets.release.onnx_artifacts import (
    ExampleRun,
    build_bundle,
)
from lofi_assets.sources.inventory import SourceRow
from lofi_assets.store import Store
from lofi_assets_tests.dataset.stand_in_version import deliver, track_record
from lofi_assets_tests.quantization.stand_in_manifest import MANIFEST as MANIFEST_OF_TIER
from lofi_assets_tests.stage_rows import source_row, write_sources

TIERS = ("fp16", "int8", "int4")
RAN = ExampleRun(True, "")
PROFILE = load_profile("demo")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three tiers of two tiny files each, and the tracks that they were trained on."""
    store = Store(tmp_path / "data")
    for tier in TIERS:
        write_tier(store, tier)
    deliver(store, "lofi-0123", [track_record("rain_01"), track_record("snow_02", split="validation")])
    write_sources(store, [source_row("rain_01"), source_row("snow_02")])
    return store


def put(path: Path, text: str) -> None:
    """Write as the assets do: a new file in the place of the old one, never into it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")


def graph(about: str, *, inputs: tuple[str, ...] = ("sample",)) -> bytes:
    """A valid ONNX file that adds nothing to its first input."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 8, 16, "frames"]) for name in inputs]
    output = helper.make_tensor_value_info("velocity", TensorProto.FLOAT, ["batch", 8, 16, "frames"])
    made = helper.make_graph([helper.make_node("Identity", [inputs[0]], ["velocity"])], "transformer", values, [output])
    model: bytes = helper.make_model(made, doc_string=about).SerializeToString()
    return model


def write_tier(store: Store, tier: str, weights: str = "weights", **options: Any) -> None:
    """A tier of one graph, with its manifest."""
    folder = store.quantized / tier
    put(folder / "tokenizer.json", "{}")
    (folder / "transformer.onnx").unlink(missing_ok=True)
    (folder / "transformer.onnx").write_bytes(graph(f"{weights} of {tier}", **options))
    names = ("transformer.onnx", "tokenizer.json")
    files = {name: {"sha256": sha256_file(folder / name), "bytes": 1} for name in names}
    put(folder / "manifest.json", json.dumps(MANIFEST_OF_TIER | {"tier": tier, "files": files}))


def built(store: Store) -> Outcome:
    """What `onnx_artifacts` makes of it."""
    return build_bundle(store, PROFILE)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The bundle is taken to have run; returns the folders where it was."""
    return tried(monkeypatch, RAN)


def tried(monkeypatch: pytest.MonkeyPatch, example: ExampleRun) -> list[Path]:
    """Puts an outcome in the place of the runs; returns the folders where they would have been."""
    folders: list[Path] = []

    def stand_in(folder: Path, environments: Path, *, scratch: Path) -> tuple[ExampleRun, Mapping[str, Run]]:
        folders.append(folder)
        return example, {}

    monkeypatch.setattr(bundle_module, "try_bundle", stand_in)
    return folders


def faults(store: Store) -> Any:
    """What the manifest notices."""
    return built(store).values["missing_or_altered_files"]


def by(track_id: str, source_id: str, **changes: str) -> SourceRow:
    """A track under CC BY."""
    about = {"license_type": "CC BY 4.0", "provider": f"of {track_id}", "source_id": source_id} | changes
    return source_row(track_id, **about)
