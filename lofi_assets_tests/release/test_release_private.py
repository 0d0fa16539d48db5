"""No published file says a folder of a machine, a user or a track, whatever kind of file it is."""

import getpass
import json
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from lofi_assets.constitution.dsse import coded, envelope
from lofi_assets.constitution.gates import Gate, Verdict, load_gates
from lofi_assets.release import private_search as private_module
from lofi_assets.release.files import ReleaseError
from lofi_assets.release.private_names import private_names
from lofi_assets.release.private_search import PrivateNames, private_in
from lofi_assets.release.published_text import published_text
from lofi_assets.store import PACKAGE, Store
from lofi_assets_tests.release.cleared import publish
from lofi_assets_tests.release.stand_in_release import (
    CARD,
    list_bundle,
    profile_for,
    put,
    write_card,
)

FOLDER = profile_for("folder")
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
NAMES = PrivateNames(
    folders=("/srv/lofi/data", "/home/mkeller"),
    people=frozenset({"mkeller", "gpu-box-3"}),
    tracks=frozenset({"rain_walk_01", "Kopf-hoch", "Morning", "int8", "17"}),
)


def as_text(path: Path, said: str) -> None:
    path.write_text(f"Some text about it: {said}, and more.\n", encoding="utf-8")


def as_json(path: Path, said: str) -> None:
    path.write_text(json.dumps({"note": [{"deep": said}]}), encoding="utf-8")


def as_long_json(path: Path, said: str) -> None:
    path.write_text(json.dumps({"filler": "x" * 1_200_000, "note": said}), encoding="utf-8")


def as_envelope(path: Path, said: str) -> None:
    path.write_text(envelope(json.dumps({"note": [{"deep": said}]}), KEY), encoding="utf-8")


def as_code(path: Path, said: str) -> None:
    path.write_text(f"# made by hand\nPLACE = {said!r}\n", encoding="utf-8")


def as_safetensors(path: Path, said: str) -> None:
    save_file({"a": np.zeros(4, np.float32)}, path, metadata={"note": json.dumps({"base": said})})


def as_tensor_name(path: Path, said: str) -> None:
    save_file({f"{said}": np.zeros(4, np.float32)}, path)


def graph(weights: np.ndarray, *, name: str = "graph") -> onnx.ModelProto:
    node = helper.make_node("Add", ["x", "w"], ["y"], name="/model/layers/0/Add")
    kinds = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [len(weights)]) for name in "xy"]
    made = helper.make_graph([node], name, kinds[:1], kinds[1:], [numpy_helper.from_array(weights, "w")])
    return helper.make_model(made)


def as_onnx_doc(path: Path, said: str) -> None:
    model = graph(np.random.default_rng(1).normal(size=300_000).astype(np.float32))
    model.graph.node[0].doc_string = f"traced at {said}:12"
    onnx.save(model, path)


def as_onnx_metadata(path: Path, said: str) -> None:
    model = graph(np.random.default_rng(1).normal(size=300_000).astype(np.float32))
    helper.set_model_props(model, {"stack_trace": said})
    onnx.save(model, path)


def as_onnx_name(path: Path, said: str) -> None:
    onnx.save(graph(np.zeros(4, np.float32), name=said), path)


KINDS: list[tuple[str, Callable[[Path, str], None]]] = [
    ("README.md", as_text),
    ("requirements.txt", as_text),
    ("NOTICE", as_text),
    ("config.json", as_json),
    ("large.json", as_long_json),
    ("signed.dsse.json", as_envelope),
    ("example.py", as_code),
    ("weights.safetensors", as_safetensors),
    ("named.safetensors", as_tensor_name),
    ("doc.onnx", as_onnx_doc),
    ("props.onnx", as_onnx_metadata),
    ("name.onnx", as_onnx_name),
]


@pytest.mark.parametrize(
    "said", ["/srv/lofi/data", "/home/mkeller", "/home/somebody", "rain_walk_01", "mkeller", "gpu-box-3"]
)
@pytest.mark.parametrize(("name", "write"), KINDS, ids=[name for name, _ in KINDS])
def test_a_private_name_is_found_in_a_file_of_each_kind(
    tmp_path: Path, name: str, write: Callable[[Path, str], None], said: str
) -> None:
    write(tmp_path / name, "nothing")
    assert private_in(tmp_path / name, NAMES) == []
    (tmp_path / name).unlink()
    write(tmp_path / name, said)
    assert any(said in found for found in private_in(tmp_path / name, NAMES))


@pytest.mark.parametrize("write", [as_text, as_json, as_code, as_safetensors])
def test_a_path_of_another_machine_is_found_in_what_is_written_as_text(
    tmp_path: Path, write: Callable[[Path, str], None]
) -> None:
    suffix = ".safetensors" if write is as_safetensors else ".json" if write is as_json else ".md"
    write(tmp_path / f"file{suffix}", "/work/main/weights")
    assert private_in(tmp_path / f"file{suffix}", NAMES) == ["the path /work/main/weights"]


@pytest.mark.parametrize(
    "text",
    [
        "https://huggingface.co/team/lofi/blob/main/README.md and docs/a/b/c.md, ../a/b/c, ~/a/b/c",
        "python generate.py --bundle /path/to/bundle/int8 -o /tmp/out.wav",
        "tiers int8 and int4, opset 17, rain walk, Morning rain, kopf, hoch, rain_walk_0, brain_walk_01x",
        "the data, /data, a root, data/lofi, srv/lofi/data2",
    ],
)
def test_what_is_no_private_name_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    assert private_in(tmp_path / "README.md", NAMES) == []


@pytest.mark.parametrize(
    ("text", "track"),
    [
        ("nearest: 002_rain_walk_01.mp3 at 0 s", "rain_walk_01"),
        ("rain_walk_01_b", "rain_walk_01"),
        ("(Kopf-hoch)", "Kopf-hoch"),
    ],
)
def test_a_track_is_found_as_a_part_of_a_longer_name(tmp_path: Path, text: str, track: str) -> None:
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    assert private_in(tmp_path / "README.md", NAMES) == [f"the track {track}"]


def test_a_track_whose_id_is_a_word_or_a_number_is_found_where_tracks_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"tier": "int8", "tracks": [{"id": "Morning"}, {"id": "17"}]}))
    assert private_in(path, NAMES) == ["the track Morning", "the track 17"]
    path.write_text(json.dumps({"by_track": {"int8": 1.0}}))
    assert private_in(path, NAMES) == ["the track int8"]


def test_a_signature_is_no_path_though_one_in_180_looks_as_if(tmp_path: Path) -> None:
    path, looked = tmp_path / "release.dsse.json", 0
    for number in range(1000):
        text = envelope(json.dumps({"number": number, "signer": coded(KEY.public_key().public_bytes_raw())}), KEY)
        looked += private_module._PATH.search(text) is not None
        path.write_text(text, encoding="utf-8")
        assert private_in(path, NAMES) == [], number
    assert looked


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("/home/mkeller/lofidata01", "the folder /home/mkeller"),
        ("/scratch/lofi/models/of/the/last/year/v2/abc", "the path /scratch/lofi/models/of/the/last/year/v2/abc"),
        ("eyesOfTheNightingale0001", "the track eyesOfTheNightingale0001"),
        ("ew" * 12, "the track ewewewewewewewewewewewew"),
    ],
)
def test_what_only_looks_coded_is_found_as_it_is(tmp_path: Path, value: str, found: str) -> None:
    names = replace(NAMES, tracks=frozenset({"eyesOfTheNightingale0001", "ew" * 12}))
    (tmp_path / "config.json").write_text(json.dumps({"track": value}), encoding="utf-8")
    assert found in private_in(tmp_path / "config.json", names)


def test_the_words_of_a_vocabulary_are_nobodys_names(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"vocab": ["rain_walk_01", "mkeller"]}))
    assert private_in(tmp_path / "tokenizer.json", NAMES) == []
    (tmp_path / "tokenizer.json").write_text(json.dumps({"from": "/srv/lofi/data/x"}))
    assert private_in(tmp_path / "tokenizer.json", NAMES)


def test_a_name_that_two_blocks_share_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_module, "READ_BLOCK", 1 << 16)
    path = tmp_path / "weights.bin"
    path.write_bytes(b"\0" * ((1 << 16) - 5) + b"/srv/lofi/data/models\0" + b"\0" * 70_000)
    assert private_in(path, NAMES) == ["the folder /srv/lofi/data"]


def test_the_names_of_this_process_are_its_data_root_its_checkout_and_its_user(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "mkeller")
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu-box-3.lan")
    found = private_names(store, ["a"])
    assert {str(store.root), str(PACKAGE.parent)} <= set(found.folders) and "/" not in found.folders
    assert {"mkeller", "gpu-box-3", "gpu-box-3.lan"} <= found.people and found.tracks == {"a"}
    for shared in ("root", "lofi", "ubuntu"):
        monkeypatch.setattr(getpass, "getuser", lambda name=shared: name)
        assert shared not in private_names(store, []).people


def in_card(store: Store) -> None:
    write_card(store, CARD + b"Nearest: 002_rain_walk_01.mp3.\n")


def in_bundle_graph(store: Store) -> None:
    as_onnx_doc(store.export / "fp16" / "extra.onnx", str(store.root / "models"))
    list_bundle(store)


def in_bundle_text(store: Store) -> None:
    put(store.export / "README.md", b"made in /home/mkeller/lofi\n")
    list_bundle(store)


@pytest.mark.parametrize(
    ("leak", "said"),
    [
        (in_card, r"adapter/README\.md names the track rain_walk_01; tiers/README\.md names"),
        (in_bundle_graph, r"tiers/bundle/fp16/extra\.onnx names the folder"),
        (in_bundle_text, r"tiers/bundle/README\.md names the folder /home/mkeller"),
    ],
)
def test_a_release_that_says_one_is_refused_and_the_file_is_named(
    released: Store, leak: Callable[[Store], None], said: str
) -> None:
    leak(released)
    with pytest.raises(ReleaseError, match=said):
        publish(released, FOLDER)
    assert not (released.release / "published").exists()


def test_who_approves_is_on_record_by_name_even_if_it_is_the_users(
    released: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "Manager")
    publish(released, FOLDER)
    write_card(released, CARD + b"Made by Manager.\n")
    publish(released, FOLDER)
    monkeypatch.setattr(getpass, "getuser", lambda: "Someone")
    write_card(released, CARD + b"Made by Someone.\n")
    with pytest.raises(ReleaseError, match=r"README\.md names the user or machine Someone"):
        publish(released, FOLDER)


def gate(name: str) -> Gate:
    return next(found for found in load_gates() if found.id == name)


@pytest.mark.parametrize("value", [0.58, None])
def test_a_verdict_keeps_its_number_and_loses_a_note_that_names_a_track(value: float | None) -> None:
    kept = Verdict(gate("quality.copies"), "pass", value, "validation tracks reach 0.70")
    assert published_text(kept, NAMES) == kept.text and "0.70" in kept.text
    named = Verdict(gate("quality.copies"), "pass", value, "nearest: 002_rain_walk_01.mp3 at 14 s")
    text = published_text(named, NAMES)
    assert "rain_walk" in named.text and "rain_walk" not in text and "must be < 0.73" in text
