"""What tells of a machine, its user or a track is found in every kind of file, and nothing else is taken for it."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, save_model
from safetensors.numpy import save_file

from lofi_assets.release import private_search as module
from lofi_assets.release.private_names import private_strings, user_name
from lofi_assets.release.private_search import PrivateNames, masked, private_in

NAMES = PrivateNames(folders=("/srv/lofi-platform",), people=frozenset(), tracks=frozenset())


def found(folder: Path, *, public: str = "", names: PrivateNames = NAMES) -> list[str]:
    words = {"mkessler", "rainy_window_01", "lofi", "ab", "Morning"}
    return private_strings(folder, names, words=words, public=public)


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
    assert any(line.startswith("vocoder.onnx: ") and hit in line for line in found(tmp_path))


def test_it_is_found_in_json_headers_and_raw_data(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.json").write_text(json.dumps({"base": "/work/main/weights"}), encoding="utf-8")
    save_file({"w": np.zeros(2, np.float32)}, tmp_path / "b.safetensors", metadata={"from": "/root/.cache/hub"})
    (tmp_path / "c.onnx.data").write_bytes(bytes(64) + b"/home/mkessler/x" + bytes(64))
    assert found(tmp_path) == [
        "b.safetensors: the folder /root/.cache",
        "b.safetensors: the path /root/.cache/hub",
        "c.onnx.data: the folder /home/mkessler",
        "deep/a.json: the path /work/main/weights",
    ]


def test_it_is_found_across_the_parts_that_a_large_file_is_read_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_BLOCK", 2048)
    (tmp_path / "weights").write_bytes(b" " * 2043 + b"rainy_window_01" + b" " * 5000)
    assert found(tmp_path) == ["weights: the name rainy_window_01"]


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
    (tmp_path / "BUNDLE.md").write_text("mkessler and Morning", encoding="utf-8")
    assert found(tmp_path) == ["BUNDLE.md: the name Morning", "tokenizer.json: the name rainy_window_01"]


def test_random_weights_hold_nothing(tmp_path: Path) -> None:
    (tmp_path / "w.onnx").write_bytes(np.random.default_rng(0).bytes(4 * 2**20))
    assert found(tmp_path) == []


def test_this_machine_is_known_by_its_user() -> None:
    assert user_name()


@pytest.mark.parametrize("before", [b"a", b"\x41", b"_"])
def test_a_folder_is_found_behind_a_length_that_looks_like_a_letter(tmp_path: Path, before: bytes) -> None:
    """Protobuf writes the length of a text before it."""
    (tmp_path / "w.onnx").write_bytes(bytes(8) + before + b"/srv/lofi-platform/data" + bytes(8))
    assert found(tmp_path) == ["w.onnx: the folder /srv/lofi-platform"]


def test_a_word_of_four_letters_is_found_alone_in_a_graph_and_not_among_tensors(tmp_path: Path) -> None:
    for name in ("w.onnx", "w.onnx.data"):
        (tmp_path / name).write_bytes(bytes(8) + b"kopf" + bytes(8))
    assert private_strings(tmp_path, NAMES, words={"kopf"}, public="") == ["w.onnx: the name kopf"]


def test_every_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "tokenizer.json": "{}",
        "config.json": '{"tracks": []}',
        "BUNDLE.md": "music",
        "w.onnx": "x" * 9000,
        "w.data": "y" * 9000,
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    opened: list[str] = []
    real = io.open

    def counted(file: Any, *rest: Any, **named: Any) -> Any:
        opened.append(Path(file).name)
        return real(file, *rest, **named)

    monkeypatch.setattr(io, "open", counted)
    assert found(tmp_path) == []
    assert sorted(opened) == sorted(files)


@pytest.mark.parametrize("text", ["made in /tmp/tmp8a2f", "under /srv/lofi-platform_old"])
def test_the_bundle_says_nothing_that_a_card_may_say_as_an_example(tmp_path: Path, text: str) -> None:
    (tmp_path / "BUNDLE.md").write_text(text, encoding="utf-8")
    assert len(found(tmp_path)) == 1
    (tmp_path / "README.md").write_text("-o /tmp/out.wav", encoding="utf-8")
    assert private_in(tmp_path / "README.md", NAMES) == []


def test_paths_are_masked_in_a_note() -> None:
    note = "File /work/main/x.py of C:\\Users\\Mk, see docs/tmp/file"
    assert masked(note) == "File .../x.py of ..., see docs/tmp/file"


def test_what_stands_behind_a_line_break_of_json_is_found(tmp_path: Path) -> None:
    note = "at\n/home/someone, https://a.org\n/home/other\nrainy_window_01\n/work/main/x of C:\\Users\\nina"
    (tmp_path / "a.json").write_text(json.dumps({"note": note}))
    assert [line.removeprefix("a.json: ") for line in found(tmp_path)] == [
        "the folder /home/other",
        "the folder /home/someone",
        "the folder C:\\\\Users\\\\nina",
        "the name rainy_window_01",
        "the path /work/main/x",
    ]
