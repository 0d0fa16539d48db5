"""A release ready to go, and a Hub on this machine."""

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    """A hub on 127.0.0.1 that huggingface_hub talks to instead of the real one."""
    with FakeHub() as hub, local_hub(hub, tmp_path):
        yield hub


@contextmanager
def local_hub(hub: FakeHub, folder: Path) -> Iterator[None]:
    """For the block, huggingface_hub talks to `hub` with its token, and keeps what it keeps below `folder`."""
    from huggingface_hub import constants

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "ENDPOINT": hub.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_DISABLE_XET": True,
            "HF_TOKEN_PATH": str(folder / "token"),
            "HF_STORED_TOKENS_PATH": str(folder / "tokens"),
            "AGENT_HARNESSES_PATH": str(folder / "harnesses.json"),
        }.items():
            patch.setattr(constants, name, value)
        patch.setattr(time, "sleep", lambda seconds: None)
        patch.setenv("HF_TOKEN", TOKEN)
        yield
