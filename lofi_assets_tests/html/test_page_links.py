"""Addresses of pages: what metadata links to opens in a browser, on this machine or behind a proxy."""

from pathlib import Path

import pytest

from lofi_assets.html.links import docs_url, page_url
from lofi_assets.store import Store


def test_a_file_of_the_data_root_has_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOFI_PAGES_URL", raising=False)
    store = Store(tmp_path)
    page = tmp_path / "samples" / "reports" / "index.html"
    assert page_url(store, page) == "http://127.0.0.1:3001/data/samples/reports/index.html"


def test_a_name_that_a_browser_would_misread_is_quoted(tmp_path: Path) -> None:
    page = tmp_path / "logs" / "run #1 é" / "index.html"
    assert page_url(Store(tmp_path), page).endswith("/data/logs/run%20%231%20%C3%A9/index.html")


def test_a_file_outside_the_data_root_has_no_address(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        page_url(Store(tmp_path / "data"), tmp_path / "secret.html")


@pytest.mark.parametrize("base", ["https://lofi.example/pages", "https://lofi.example/pages/"])
def test_behind_a_proxy_the_base_is_a_setting(monkeypatch: pytest.MonkeyPatch, base: str) -> None:
    monkeypatch.setenv("LOFI_PAGES_URL", base)
    assert docs_url("gates.md", "audio.clipping") == "https://lofi.example/pages/docs/gates.md#audio.clipping"


def test_a_blank_base_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOFI_PAGES_URL", " ")
    assert docs_url("gates.md") == "http://127.0.0.1:3001/docs/gates.md"
