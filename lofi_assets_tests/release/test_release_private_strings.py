"""What tells of a machine, its user or a track is found in every kind of file, and nothing else is taken for it."""

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, save_model
from safetensors.numpy import save_file

from lofi_assets.release import private_strings as module
from lofi_assets.release.private_strings import of_this_machine, private_strings


def found(folder: Path, *, public: str = "", paths: tuple[str, ...] = ("/srv/lofi-platform",)) -> list[str]:
    return private_strings(folder, names={"mkessler", "rainy_window_01", "lofi", "ab"}, paths=paths, public=public)


def onnx_file(path: Path, *, doc: str = "", prop: str = "", node_doc: str = "") -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    node = helper.make_node("Identity", ["x"], ["y"], doc_string=node_doc)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    model = helper.make_model(helper.make_graph([node], "g", [value], [output]), doc_string=doc)
    helper.set_model_props(model, {"source": prop})
    save_model(model, path)


@pytest.mark.parametrize(
    ("where", "text", "hit"),
    [
        ("doc", "exported by mkessler", "mkessler"),
        ("prop", "/home/someone/checkpoints", "/home/someone"),
        ("node_doc", 'File "/tmp/build/export.py", line 3', "/tmp/build"),
        ("prop", "trained on rainy_window_01", "rainy_window_01"),
        ("prop", "C:\\Users\\Mk\\models", ":\\Users\\Mk"),
        ("doc", "under /srv/lofi-platform-2", "/srv/lofi-platform"),
    ],
)
def test_it_is_found_in_every_text_of_an_onnx_file(tmp_path: Path, where: str, text: str, hit: str) -> None:
    onnx_file(tmp_path / "vocoder.onnx", **{where: text})
    assert f"vocoder.onnx: {hit}" in found(tmp_path)


def test_it_is_found_in_json_headers_and_raw_data(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.json").write_text(json.dumps({"base": "/work/main/weights"}), encoding="utf-8")
    save_file({"w": np.zeros(2, np.float32)}, tmp_path / "b.safetensors", metadata={"from": "/root/.cache/hub"})
    (tmp_path / "c.onnx.data").write_bytes(bytes(64) + b"/home/mkessler/x" + bytes(64))
    assert found(tmp_path) == [
        "b.safetensors: /root/.cache",
        "c.onnx.data: /home/mkessler",
        "deep/a.json: /work/main",
    ]


def test_it_is_found_across_the_parts_that_a_large_file_is_read_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", 2048)
    (tmp_path / "weights").write_bytes(b" " * 2043 + b"rainy_window_01" + b" " * 5000)
    assert found(tmp_path) == ["weights: rainy_window_01"]


@pytest.mark.parametrize(
    "text",
    [
        "lofi hip hop",
        "https://example.org/home/someone/page and docs/tmp/file",
        "a rainy_window_011 and unmkesslered",
        "ab",
        "runtime/lofi_onnx/pipeline.py, ./work/main",
        "the square root / the tmp",
    ],
)
def test_public_words_addresses_and_parts_of_words_are_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "BUNDLE.md").write_text(text, encoding="utf-8")
    assert found(tmp_path, public="Makes lofi music.") == []


def test_a_word_of_the_vocabulary_is_no_name_but_an_id_in_it_is(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"mkessler": 3, "rainy_window_01": 4}', encoding="utf-8")
    found = private_strings(
        tmp_path,
        names={"mkessler", "rainy_window_01"},
        paths=(),
        public="",
        vocabularies=[tmp_path / "tokenizer.json"],
    )
    assert found == ["tokenizer.json: rainy_window_01"]


def test_random_weights_hold_nothing(tmp_path: Path) -> None:
    (tmp_path / "w.onnx").write_bytes(np.random.default_rng(0).bytes(4 * 2**20))
    assert found(tmp_path) == []


def test_this_machine_is_known_by_its_user_and_its_checkout() -> None:
    names, paths = of_this_machine()
    assert names and str(Path(module.__file__).parents[2]) in paths
    assert all(path.count("/") >= 2 for path in paths)
