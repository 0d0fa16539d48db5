"""The fingerprint of a base is that of its bytes, whatever its folder says of itself and whatever is remembered."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from lofi_assets.backbones.ace_step_v1 import identity
from lofi_assets.backbones.ace_step_v1.identity import NOTE, base_fingerprint
from lofi_assets.errors import DiskError
from lofi_assets.files import recorded_hashes
from lofi_assets.files.hashing import sha256_file
from lofi_assets.files.recorded_hashes import FileHashes

FILES = {"ace_step_transformer/config.json": b"{}", "ace_step_transformer/model.safetensors": b"weights" * 9}
WEIGHTS = "ace_step_transformer/model.safetensors"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    base = tmp_path / "base"
    for name, content in FILES.items():
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(content)
    return base


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a user who has computed nothing yet; any model counts as large."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(identity, "REMEMBERED_FROM", 0)
    return tmp_path / "cache" / "lofi_assets" / "models"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read for their sums."""
    names: list[str] = []

    def reading(path: Path) -> str:
        names.append(path.name)
        return sha256_file(path)

    monkeypatch.setattr(recorded_hashes, "sha256_file", reading)
    return names


def of_bytes(base: Path) -> str:
    """By the definition, which checkpoints on record rely on."""
    names = sorted(str(path.relative_to(base)) for path in base.rglob("*") if path.is_file() and path.name != NOTE)
    lines = [f"{name}\0{hashlib.sha256((base / name).read_bytes()).hexdigest()}\n" for name in names]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def test_it_is_the_hash_of_names_and_sums(base: Path) -> None:
    assert base_fingerprint(base) == of_bytes(base)


def test_what_a_folder_brings_along_about_itself_is_not_believed(base: Path, cache: Path) -> None:
    honest = base_fingerprint(base)
    (base / WEIGHTS).write_bytes(b"another" * 9)
    status = (base / WEIGHTS).stat()
    note = {WEIGHTS: {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": sha256_of(FILES[WEIGHTS])}}
    (base / NOTE).write_text(json.dumps(note))
    assert base_fingerprint(base) == of_bytes(base) != honest


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_large_model_is_read_once_and_its_folder_stays_as_it_is(base: Path, cache: Path, read: list[str]) -> None:
    before = sorted(base.rglob("*"))
    first = base_fingerprint(base)
    assert sorted(read) == ["config.json", "model.safetensors"] and len(list(cache.iterdir())) == 1
    assert base_fingerprint(base) == first == of_bytes(base) and len(read) == 2
    assert sorted(base.rglob("*")) == before


def test_other_weights_of_the_same_size_and_time_are_read(base: Path, cache: Path, read: list[str]) -> None:
    before, status = base_fingerprint(base), (base / WEIGHTS).stat()
    (base / WEIGHTS).write_bytes(b"another" * 9)
    os.utime(base / WEIGHTS, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (base / WEIGHTS).stat().st_size == status.st_size
    assert base_fingerprint(base) == of_bytes(base) != before
    assert read[2:] == ["model.safetensors"]


def test_another_folder_with_the_same_content_is_the_same_model(base: Path, cache: Path, tmp_path: Path) -> None:
    before = base_fingerprint(base)
    moved = base.rename(tmp_path / "elsewhere")
    assert base_fingerprint(moved) == before


@pytest.mark.parametrize("content", ["[]", '{"model.safetensors": 3}', '{"a": ["b"]}', '{"a": [1, 2]}'])
def test_a_memory_of_another_form_is_as_none(base: Path, cache: Path, content: str) -> None:
    base_fingerprint(base)
    (path,) = cache.iterdir()
    path.write_text(content)
    assert base_fingerprint(base) == of_bytes(base)


def refused(hashes: FileHashes) -> None:
    raise DiskError("the disk is full")


def test_without_a_place_to_remember_it_is_read_each_time(
    base: Path, cache: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FileHashes, "save", refused)
    assert base_fingerprint(base) == base_fingerprint(base) == of_bytes(base)
    assert len(read) == 4 and not cache.exists()
    cache.parent.parent.write_text("a file where the cache would be")
    assert base_fingerprint(base) == of_bytes(base)
    monkeypatch.setattr(identity, "user_cache", lambda name: None)
    assert base_fingerprint(base) == of_bytes(base)


def test_a_small_model_leaves_nothing(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert base_fingerprint(base) == of_bytes(base)
    assert not (tmp_path / "cache").exists()
