"""A release ready to go, and a Hub on this machine."""

import functools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lofi_assets.constitution.gates import load_constitution, load_gates
from lofi_assets.release import contents as contents_module
from lofi_assets.store import Store
from lofi_assets_tests.release.fake_hub import TOKEN, FakeHub
from lofi_assets_tests.release.stand_in_release import write_checkpoint, write_release

CONSTITUTION = functools.cache(load_constitution)
GATES = functools.cache(load_gates)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a checkpoint alone; only read."""
    root = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(root)
    return root


@pytest.fixture
def released(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """All that a release reads. Parsing the table of gates takes longer than everything else here: once is enough."""
    monkeypatch.setattr(contents_module, "load_constitution", CONSTITUTION)
    monkeypatch.setattr(contents_module, "load_gates", GATES)
    store = Store(tmp_path / "data")
    write_release(store, checkpoint)
    return store


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub on 127.0.0.1 that huggingface_hub talks to instead of the real one."""
    from huggingface_hub import constants

    with FakeHub() as hub:
        for name, value in {
            "ENDPOINT": hub.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_DISABLE_XET": True,
            "HF_TOKEN_PATH": str(tmp_path / "token"),
            "HF_STORED_TOKENS_PATH": str(tmp_path / "tokens"),
            "AGENT_HARNESSES_PATH": str(tmp_path / "harnesses.json"),
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub
