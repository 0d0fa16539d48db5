"""What is no file of its own is refused by name; the sealed copy that everything else goes through."""

import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from lofi_assets.files.documents import read_json, write_json
from lofi_assets.release.files import ReleaseError
from lofi_assets.release.sealed_copy import open_below, sealed_copy
from lofi_assets.store import Store
from lofi_assets_tests.release.cleared import adapter, refused_by_name, secret
from lofi_assets_tests.release.stand_in_release import (
    CHECKPOINT,
    put,
)

DIFFUSERS = "pytorch_lora_weights.safetensors"


def replaced_by_link(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


# --- what is no file of its own --------------------------------------------------------------------------------------


def link_card(store: Store) -> None:
    replaced_by_link(store.release / "README.md", secret(store))


def link_weights(store: Store) -> None:
    replaced_by_link(store.export / "int8" / "transformer.onnx", secret(store))


def link_to_the_same_bytes(store: Store) -> None:
    """What it leads to has the right bytes when it is looked at, and others when it is sent."""
    elsewhere = store.root.parent / "elsewhere.onnx"
    elsewhere.write_bytes((store.export / "int8" / "transformer.onnx").read_bytes())
    replaced_by_link(store.export / "int8" / "transformer.onnx", elsewhere)


def link_folder(store: Store) -> None:
    (store.export / "int8").rename(store.root.parent / "int8")
    (store.export / "int8").symlink_to(store.root.parent / "int8")


def link_config(store: Store) -> None:
    replaced_by_link(adapter(store) / "config.json", secret(store))


def link_bundle_manifest(store: Store) -> None:
    (store.export / "bundle.json").rename(store.root.parent / "bundle.json")
    (store.export / "bundle.json").symlink_to(store.root.parent / "bundle.json")


def link_checkpoint(store: Store) -> None:
    adapter(store).rename(store.root.parent / CHECKPOINT)
    adapter(store).symlink_to(store.root.parent / CHECKPOINT)


def pipe(store: Store) -> None:
    (adapter(store) / DIFFUSERS).unlink()
    os.mkfifo(adapter(store) / DIFFUSERS)


def a_socket(store: Store) -> None:
    (store.export / "example.py").unlink()
    # An address of a socket has at most 108 characters, which the folder's descriptor is not.
    folder = os.open(store.export, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{folder}/example.py")
    os.close(folder)


def folder_in_place(store: Store) -> None:
    (store.export / "example.py").unlink()
    (store.export / "example.py").mkdir()


def outside(store: Store) -> None:
    manifest = read_json(store.export / "bundle.json")
    write_json(store.export / "bundle.json", manifest | {"files": manifest["files"] | {"../../id": "0" * 64}})


def absolute(store: Store) -> None:
    manifest = read_json(store.export / "bundle.json")
    write_json(store.export / "bundle.json", manifest | {"files": manifest["files"] | {"/etc/hostname": "0" * 64}})


NO_FILE = [
    (link_card, r"README\.md: is a link to .*id_ed25519; a release follows none"),
    (link_weights, r"int8/transformer\.onnx: is a link to .*id_ed25519"),
    (link_to_the_same_bytes, r"int8/transformer\.onnx: is a link to .*elsewhere\.onnx"),
    (link_folder, r"export/int8: is a link to"),
    (link_config, r"config\.json: is a link to .*id_ed25519"),
    (link_bundle_manifest, r"bundle\.json: is a link to"),
    (link_checkpoint, rf"checkpoints/{CHECKPOINT}: is a link to"),
    (pipe, rf"{DIFFUSERS}: is a pipe; a release takes regular files alone"),
    (a_socket, r"example\.py: cannot be opened for a release"),
    (folder_in_place, r"example\.py: is a folder; a release takes regular files alone"),
    (outside, r"id: is no file below the data root"),
    (absolute, r"/etc/hostname: is no file below the data root"),
]


@pytest.mark.parametrize(("attack", "said"), NO_FILE, ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_no_file_of_the_data_root_is_refused_by_name(
    released: Store, attack: Callable[[Store], None], said: str
) -> None:
    refused_by_name(released, attack, said)


# --- the copy itself -------------------------------------------------------------------------------------------------


def test_the_copy_is_private_and_goes_with_the_block(store: Store) -> None:
    put(store.root / "a.txt", b"text")
    with sealed_copy(store) as sealed:
        made = sealed.take(store.root / "a.txt", "deep/a.txt", sha256=None, remedy="")
        assert sealed.folder.stat().st_mode & 0o777 == 0o700
        assert sealed.path("deep/a.txt").stat().st_mode & 0o777 == 0o600
        assert (made.bytes, made.links) == (4, 1) and made.blob == hashlib.sha1(b"blob 4\0text").hexdigest()
        with pytest.raises(ReleaseError, match="another release is being made here"), sealed_copy(store):
            pass
    assert not sealed.folder.exists()


def test_a_name_of_the_copy_is_written_once(store: Store) -> None:
    with sealed_copy(store) as sealed:
        sealed.write("a.txt", b"first")
        with pytest.raises(ReleaseError, match="two files of the release would have this name"):
            sealed.write("a.txt", b"second")


def test_a_hard_link_is_noted(store: Store) -> None:
    put(store.root / "a.txt", b"text")
    (store.root / "b.txt").hardlink_to(store.root / "a.txt")
    with sealed_copy(store) as sealed:
        assert sealed.take(store.root / "a.txt", "a.txt", sha256=None, remedy="").links == 2


def test_a_data_root_that_is_a_link_is_the_administrators(tmp_path: Path) -> None:
    put(tmp_path / "disk" / "a.txt", b"text")
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    descriptor = open_below(tmp_path / "data", tmp_path / "data" / "a.txt")
    try:
        assert os.read(descriptor, 10) == b"text"
    finally:
        os.close(descriptor)
