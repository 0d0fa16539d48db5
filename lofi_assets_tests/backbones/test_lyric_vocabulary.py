"""The lyric vocabulary is the pinned one or none: from a path, or downloaded once."""

import io
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from lofi_assets.backbones.ace_step_v1.lyric_vocabulary import VocabularyError, vocabulary_file
from lofi_assets.files.hashing import sha256_file

URL = "https://example.org/vocab.json"
CONTENT = b'{"model": {}}'
Server = Callable[[bytes | None], list[str]]


@pytest.fixture
def sha256(tmp_path: Path) -> str:
    path = tmp_path / "vocab.json"
    path.write_bytes(CONTENT)
    return sha256_file(path)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """What the network answers; counts how often it is asked."""
    asked: list[str] = []

    def answer(content: bytes | None) -> list[str]:
        def urlopen(url: str, timeout: float) -> io.BytesIO:
            asked.append(url)
            if content is None:
                raise urllib.error.URLError("no route to host")
            return io.BytesIO(content)

        monkeypatch.setattr(urllib.request, "urlopen", urlopen)
        return asked

    return answer


def fetch(source: str, sha256: str, root: Path) -> Path:
    return vocabulary_file(source, sha256=sha256, root=root, downloads=root / "models")


def test_a_path_is_relative_to_the_data_root_and_its_hash_is_checked(tmp_path: Path, sha256: str) -> None:
    assert fetch("vocab.json", sha256, tmp_path) == tmp_path / "vocab.json"
    with pytest.raises(VocabularyError, match=r"vocab\.json: has sha256 .*, the profile pins 0000"):
        fetch("vocab.json", "0" * 64, tmp_path)
    with pytest.raises(VocabularyError, match=r"other\.json: no such file"):
        fetch("other.json", sha256, tmp_path)


def test_a_url_is_downloaded_once(tmp_path: Path, sha256: str, server: Server) -> None:
    asked = server(CONTENT)
    path = fetch(URL, sha256, tmp_path)
    assert path.read_bytes() == CONTENT and fetch(URL, sha256, tmp_path) == path
    assert asked == [URL]


def test_a_damaged_download_is_fetched_again(tmp_path: Path, sha256: str, server: Server) -> None:
    server(CONTENT)
    path = fetch(URL, sha256, tmp_path)
    path.write_bytes(b"{}")
    assert fetch(URL, sha256, tmp_path).read_bytes() == CONTENT


def test_another_file_than_was_pinned_is_not_kept(tmp_path: Path, sha256: str, server: Server) -> None:
    server(b"<html>moved</html>")
    with pytest.raises(VocabularyError, match=r"sent 18 bytes with sha256 .* the profile pins"):
        fetch(URL, sha256, tmp_path)
    assert not (tmp_path / "models").exists()


def test_a_download_that_fails_says_what_to_do_by_hand(tmp_path: Path, sha256: str, server: Server) -> None:
    server(None)
    with pytest.raises(VocabularyError, match=r"cannot be downloaded .* by hand"):
        fetch(URL, sha256, tmp_path)
