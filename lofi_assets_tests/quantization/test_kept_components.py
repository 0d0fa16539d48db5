"""What is kept of a build of the tiers: under everything that decides its bytes, and taken only as it was kept."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.backbones.export import Probe
from lofi_assets.constitution import evidence
from lofi_assets.constitution.chain import Chain, read_again
from lofi_assets.constitution.made_here import NotMadeHereError
from lofi_assets.outcome import Outcome
from lofi_assets.quantization import kept_components
from lofi_assets.quantization.components import Asked, Components, Placed, Recipe
from lofi_assets.quantization.graph import load, save
from lofi_assets.quantization.kept_components import KeptComponents
from lofi_assets.quantization.quantized_tiers import written
from lofi_assets.quantization.shards import data_files
from lofi_assets.quantization.tier_manifest import TIERS, HalfRange
from lofi_assets.store import PACKAGE, Store
from lofi_assets_tests.quantization.small_tiers import component_model
from lofi_assets_tests.recorded_evidence import Log

OLD, YOUNG = {"tier": "fp32", "checkpoint": "first"}, {"tier": "fp32", "checkpoint": "second"}
OWN = {"note": "of the component itself"}
FOLDERS = {"umt5-base", "music_dcae_f8c8", "music_vocoder", "ace_step_transformer"}


@pytest.fixture
def merged(tmp_path: Path) -> Path:
    """A merged model whose weights are a word each."""
    for name in FOLDERS:
        (tmp_path / "merged" / name).mkdir(parents=True)
        (tmp_path / "merged" / name / "model.safetensors").write_text(name)
    return tmp_path / "merged"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def kept(merged: Path, tmp_path: Path) -> KeptComponents:
    return reader(merged, tmp_path / "kept")


def reader(merged: Path, folder: Path | None, *, export_version: str = "1") -> KeptComponents:
    return KeptComponents(folder, merged=merged, backbone=ACE_STEP_V1, export_version=export_version)


def saved(folder: Path, properties: dict[str, str], *, beside: bool = False) -> Path:
    """The text encoder of a tier, in its folder."""
    model = component_model("text_encoder")
    onnx.helper.set_model_props(model, dict(sorted({**properties, **OWN}.items())))
    save(model, folder / "text_encoder.onnx", weights_beside=beside)
    return folder


def key_of(kept: KeptComponents, component: str = "text_encoder") -> str:
    key = kept.key("fp32", component, islands=())
    assert key is not None
    return key


@pytest.mark.parametrize("beside", [False, True])
def test_a_kept_file_has_the_bytes_that_an_export_for_the_next_model_would_have(
    kept: KeptComponents, tmp_path: Path, said: list[str], beside: bool
) -> None:
    first = saved(tmp_path / "first", OLD, beside=beside)
    wanted = saved(tmp_path / "wanted", YOUNG, beside=beside)
    kept.keep(key_of(kept), "fp32", "text_encoder", first, properties=OLD, origin="first")
    (tmp_path / "second").mkdir()
    taken = kept.take(key_of(kept), "fp32", "text_encoder", tmp_path / "second", properties=YOUNG, say=said.append)
    assert taken is not None and taken.origin == "first" and taken.own == OWN and not said
    files = {path.name: path.read_bytes() for path in (tmp_path / "second").iterdir()}
    assert files == {path.name: path.read_bytes() for path in wanted.iterdir()}
    assert len(files) == 1 + beside
    for data in data_files(tmp_path / "second", "text_encoder"):
        assert data.stat().st_nlink == 1, "ONNX refuses hard links"
    assert {entry.value for entry in load(tmp_path / "second" / "text_encoder.onnx").metadata_props} >= {"second"}


@pytest.mark.parametrize("damage", ["graph", "data", "absent data", "one too many", "record", "another version"])
def test_a_damaged_file_is_not_taken_and_named(
    kept: KeptComponents, tmp_path: Path, said: list[str], damage: str
) -> None:
    first = saved(tmp_path / "first", OLD, beside=True)
    kept.keep(key_of(kept), "fp32", "text_encoder", first, properties=OLD, origin="first")
    slot = tmp_path / "kept" / "fp32" / "text_encoder"
    record = json.loads((slot / "kept.json").read_text())
    if damage in ("graph", "data"):
        path = slot / ("text_encoder.onnx" if damage == "graph" else "text_encoder.onnx.data")
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    elif damage == "absent data":
        (slot / "text_encoder.onnx.data").unlink()
    elif damage == "one too many":
        (slot / "text_encoder-00001-of-00002.onnx.data").write_bytes(b"x")
    elif damage == "record":
        (slot / "kept.json").write_text("{")
    else:
        (slot / "kept.json").write_text(json.dumps(record | {"later": 1}))
    (tmp_path / "second").mkdir()
    assert (
        kept.take(key_of(kept), "fp32", "text_encoder", tmp_path / "second", properties=YOUNG, say=said.append) is None
    )
    assert len(said) == 1 and said[0].startswith("fp32: text_encoder was kept, but is not what it was (")
    assert not list((tmp_path / "second").iterdir())
    again = saved(tmp_path / "again", YOUNG, beside=True)
    kept.keep(key_of(kept), "fp32", "text_encoder", again, properties=YOUNG, origin="second")
    assert (
        kept.take(key_of(kept), "fp32", "text_encoder", tmp_path / "second", properties=YOUNG, say=said.append)
        is not None
    )


def test_a_file_of_other_weights_is_not_taken_and_makes_room_for_the_next(
    kept: KeptComponents, merged: Path, tmp_path: Path, said: list[str]
) -> None:
    first = saved(tmp_path / "first", OLD)
    kept.keep(key_of(kept), "fp32", "text_encoder", first, properties=OLD, origin="first")
    (merged / "umt5-base" / "model.safetensors").write_text("trained further")
    other = reader(merged, tmp_path / "kept")
    assert other.take(key_of(other), "fp32", "text_encoder", tmp_path, properties=YOUNG, say=said.append) is None
    other.keep(key_of(other), "fp32", "text_encoder", first, properties=OLD, origin="first")
    assert other.take(key_of(other), "fp32", "text_encoder", tmp_path, properties=YOUNG, say=said.append) is not None
    assert kept.take(key_of(kept), "fp32", "text_encoder", tmp_path, properties=YOUNG, say=said.append) is None
    assert not said


def test_the_key_is_of_all_that_decides_the_bytes(
    merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keys(**other: str) -> dict[str, str]:
        now = reader(merged, tmp_path, **other)
        return {component: key_of(now, component) for component in ("text_encoder", "dcae_decoder", "vocoder")}

    before = keys()
    assert len(set(before.values())) == 3
    kept = reader(merged, tmp_path)
    half = kept.key("fp16", "vocoder", islands=())
    assert len({half, before["vocoder"], kept.key("fp16", "vocoder", islands=["head"])}) == 3
    assert not set(keys(export_version="2").values()) & set(before.values())
    (merged / "ace_step_transformer" / "model.safetensors").write_text("another checkpoint")
    (merged / "merge.json").write_text("{}")
    assert keys() == before
    (merged / "music_vocoder" / "config.json").write_text("{}")
    changed = keys()
    assert {name for name, key in changed.items() if key != before[name]} == {"dcae_decoder", "vocoder"}
    with monkeypatch.context() as patch:
        patch.setattr(kept_components, "exporters", lambda: {"torch": "0"})
        assert not set(keys().values()) & set(changed.values())
    code = tmp_path / "package" / "quantization"
    shutil.copytree(PACKAGE / "quantization", code, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(kept_components, "PACKAGE", code.parent)
    assert keys() == changed, "the same code elsewhere"
    (code / "int8.py").write_text("# another way to round")
    assert not set(keys().values()) & set(changed.values())


@pytest.mark.parametrize("component", ["transformer", "condition_encoder"])
def test_what_an_adapter_changes_is_never_kept(kept: KeptComponents, component: str) -> None:
    assert kept.key("fp32", component, islands=()) is None


def test_nothing_is_kept_without_a_folder_nor_of_a_tier_that_is_derived(
    kept: KeptComponents, merged: Path, tmp_path: Path, said: list[str]
) -> None:
    assert reader(merged, None).key("fp32", "vocoder", islands=()) is None
    assert [kept.key(tier, "vocoder", islands=()) is None for tier in TIERS] == [False, False, True, True]
    assert kept.take(None, "fp32", "vocoder", tmp_path, properties={}, say=said.append) is None


# --- on record -------------------------------------------------------------------------------------------------------


def materialised(store: Store, *, before: str = "") -> str:
    """The evidence of `quantized_tiers` over what lies there, as a run that writes nothing leaves it."""
    outcome = Outcome("1", {}, written=written(store))
    return evidence.write(store, outcome, asset="quantized_tiers", upstream=(), before=before)


def test_a_kept_export_that_was_replaced_with_its_record_is_refused_by_name(
    kept: KeptComponents, tmp_path: Path
) -> None:
    """Its own record says what whoever replaced it says; the evidence of the run that kept it does not."""
    store = Store(tmp_path / "data")
    kept.keep(key_of(kept), "fp32", "text_encoder", saved(tmp_path / "made", OLD), properties=OLD, origin="first")
    shutil.copytree(tmp_path / "kept", store.cache / "tiers")
    before = materialised(store)
    assert materialised(store, before=before) == before
    graph = store.cache / "tiers" / "fp32" / "text_encoder" / "text_encoder.onnx"
    graph.write_bytes(b"other")
    with pytest.raises(
        NotMadeHereError, match=r"cache/tiers/fp32/text_encoder/text_encoder\.onnx: changed since a run"
    ):
        materialised(store, before=before)


def test_what_is_kept_may_be_removed_as_a_whole(kept: KeptComponents, tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    kept.keep(key_of(kept), "fp32", "text_encoder", saved(tmp_path / "made", OLD), properties=OLD, origin="first")
    shutil.copytree(tmp_path / "kept", store.cache / "tiers")
    materialised(store)
    log = Log(store)
    assert Chain(store, log, hasher=read_again).reason("quantized_tiers") == ""
    shutil.rmtree(store.cache / "tiers")
    assert Chain(store, log, hasher=read_again).reason("quantized_tiers") == ""


def test_what_makes_a_file_can_go_to_another_process(merged: Path, kept: KeptComponents, tmp_path: Path) -> None:
    key_of(kept)
    components = Components(ACE_STEP_V1, merged, tmp_path, Recipe(), kept, provenance={"a": "b"}, fingerprint="f")
    probe = Probe("vocoder", {"mel": np.zeros((1, 2))}, np.zeros(1))
    place, asked = pickle.loads(pickle.dumps((components.place, Asked("fp16", "vocoder", tmp_path, [probe]))))
    there = place.__self__
    assert there.properties("fp16", "vocoder") == components.properties("fp16", "vocoder")
    assert there.backbone.layout == ACE_STEP_V1.layout and key_of(there.kept) == key_of(kept)
    assert asked.calls[0].inputs["mel"].shape == (1, 2)
    placed = Placed("vocoder", "exported", 1.0, half=HalfRange({"model.conv": 3.0}, ("model.conv",)), said=("so",))
    assert pickle.loads(pickle.dumps(placed)) == placed
