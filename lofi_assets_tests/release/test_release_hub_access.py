"""Who may read a release on the Hub, where it goes, what would go, and what others get of it."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lofi_assets.defs.reporting import metadata
from lofi_assets.release.files import ReleaseError
from lofi_assets.release.hub_release import preview
from lofi_assets.release.read_back import read_back
from lofi_assets.store import Store
from lofi_assets_tests.release.cleared import publish
from lofi_assets_tests.release.fake_hub import TOKEN, FakeHub, requests_of
from lofi_assets_tests.release.stand_in_release import (
    ADAPTER,
    REPOS,
    list_bundle,
    on_hub,
    profile_for,
    published,
)

REPO, TIERS = REPOS["adapter"], REPOS["tiers"]
HUB = profile_for("hub")


# --- who may read it, and where it goes ------------------------------------------------------------------------------


def test_a_repository_that_everybody_can_read_needs_a_word_of_its_own(released: Store, hub: FakeHub) -> None:
    hub.create(REPO, visibility="public")
    with pytest.raises(ReleaseError, match=rf"{REPO}: everybody can read it.*--publish --public"):
        publish(released, HUB)
    assert not hub.objects and not hub.pull_requests
    publish(released, HUB, public=True)
    assert hub.files(REPO).keys() == ADAPTER
    publish(released, profile_for("hub", public=True))


def test_a_repository_that_becomes_public_before_the_merge_is_left_alone(released: Store, hub: FakeHub) -> None:
    hub.after_pull_request = lambda hub: hub.visibility.update(dict.fromkeys(REPOS.values(), "public"))
    with pytest.raises(ReleaseError, match="everybody can read it"):
        publish(released, HUB)
    assert on_hub(hub) == {} and requests_of(hub, TIERS) == ["closed"]


@pytest.mark.parametrize(
    ("address", "setting", "said"),
    [
        ("https://hub.example.com", "", "release.endpoint .* is empty"),
        ("https://huggingface.co.example.com", "", "is empty"),
        ("https://huggingface.co@example.com", "", "is empty"),
        ("http://huggingface.co", "", "is empty"),
        ("https://huggingface.co", "https://hub.example.com", "names https://hub.example.com"),
        ("http://hub.example.com", "http://hub.example.com", "is not https"),
    ],
)
def test_an_address_that_nobody_chose_gets_neither_release_nor_token(
    released: Store, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, address: str, setting: str, said: str
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", address)
    with pytest.raises(ReleaseError, match=said):
        publish(released, profile_for("hub", endpoint=setting))
    assert not hub.requests


def test_without_a_repository_or_a_token_nothing_is_assembled_or_sent(
    released: Store, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("repo_id", "tiers_repo_id"):
        with pytest.raises(ReleaseError, match=rf"demo\.yaml: release\.{key} is empty"):
            publish(released, profile_for("hub", **{key: ""}))
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ReleaseError, match=r"no Hugging Face token.*set HF_TOKEN in the environment"):
        publish(released, HUB)
    assert not (released.release / "published").exists() and not hub.requests


def test_a_hub_that_cannot_be_reached_is_said_to_be(
    released: Store, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ReleaseError, match=r"not published.*Run hub_release again"):
        publish(released, HUB)


def test_the_token_is_in_no_log_no_metadata_no_comment_and_no_error(
    released: Store, hub: FakeHub, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("huggingface_hub").setLevel(logging.DEBUG)
    hub.echo_token, hub.merge_status = True, {TIERS: 500}
    with pytest.raises(ReleaseError, match="<HF_TOKEN>") as caught:
        publish(released, HUB)
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    hub.merge_status = {}
    outcome = publish(released, HUB)
    told = [str(caught.value), caplog.text, *capfd.readouterr(), repr(metadata(outcome)), repr(outcome)]
    told += [comment for made in hub.pull_requests.values() for request in made for comment in request.comments]
    assert not [text for text in told if TOKEN in text]
    files = [path for path in released.root.rglob("*") if path.is_file()]
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]


# --- what would go ---------------------------------------------------------------------------------------------------


def test_a_preview_says_what_would_go_where_and_changes_nothing(released: Store, hub: FakeHub) -> None:
    found = preview(released, HUB)
    assert {row["path"] for row in found.rows if row["path"].startswith("adapter/")} == {
        f"adapter/{n}" for n in ADAPTER
    }
    assert {row["state"] for row in found.rows} == {"new"}
    assert any("is not there yet and would be private" in note for note in found.notes)
    assert not hub.repositories and not hub.objects
    assert {method for method, _ in hub.requests} <= {"GET", "HEAD"}
    assert not (released.release / "published").exists() and not list(released.release.glob(".sealed-*"))


def test_a_preview_of_a_later_release_names_what_changes_and_what_goes(released: Store, hub: FakeHub) -> None:
    publish(released, HUB)
    hub.visibility[REPO] = "public"
    (released.export / "fp16" / "vocoder.onnx").unlink()
    list_bundle(released)
    found = preview(released, HUB)
    changed = [row["path"] for row in found.rows if row["state"] == "changed"]
    assert changed == [
        *("adapter/release.intoto.json", "adapter/release.json"),
        *("tiers/bundle/bundle.json", "tiers/release.intoto.json", "tiers/release.json"),
    ]
    assert found.removed == ["tiers/bundle/fp16/vocoder.onnx"]
    assert any(REPO in note and "everybody can read: refused without --public" in note for note in found.notes)


def test_a_preview_without_a_token_says_that_nothing_was_compared(
    released: Store, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    found = preview(released, HUB)
    assert {row["state"] for row in found.rows} == {"not compared"} and "no Hugging Face token" in found.notes[0]


PUBLISH = """
import sys
from pathlib import Path
from lofi_assets.profiles import load_profile
from lofi_assets_tests.release.cleared import publish
from lofi_assets.store import Store
demo = load_profile("demo")
named = {"target": "hub", "repo_id": sys.argv[2], "tiers_repo_id": sys.argv[3]}
release = demo.release.model_copy(update=named)
print(publish(Store(Path(sys.argv[1])), demo.model_copy(update={"release": release})).details["adapter commit"])
"""


def test_a_process_with_nothing_but_its_environment_publishes(released: Store, hub: FakeHub, tmp_path: Path) -> None:
    environment: dict[str, Any] = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_TOKEN": TOKEN,
        "HF_DEBUG": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", PUBLISH, str(released.root), REPO, TIERS],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    head = hub.head(REPO)
    assert head and done.stdout.splitlines()[-1] == head.oid
    assert TOKEN not in done.stdout + done.stderr
    assert on_hub(hub) == published(released)


def test_a_release_file_on_the_hub_that_is_none_is_named_and_nothing_is_sent(released: Store, hub: FakeHub) -> None:
    publish(released, HUB)
    hub.add_commit(REPO, {"release.json": b'{"files": ["README.md"]}'})
    with pytest.raises(ReleaseError, match=rf"release\.json: is of another version .*mend or remove .* in {REPO}"):
        publish(released, HUB)
    assert hub.files(REPO)["release.json"] == b'{"files": ["README.md"]}'


# --- what others get -------------------------------------------------------------------------------------------------


def test_a_release_is_read_back_from_the_hub_at_its_own_commit(released: Store, hub: FakeHub) -> None:
    """Whatever is committed on top of it later; only the gates miss here, since no asset was made."""
    publish(released, HUB)
    hub.add_commit(REPO, {"adapter_model.safetensors": b"somebody else's"})
    found = read_back(released, HUB)
    assert set(found) == {"adapter", "tiers"}
    about_files = [one.about for report in found.values() for one in report.findings if "changed" in one.text]
    assert about_files == []


def test_before_anything_was_published_there_is_nothing_to_read_back(released: Store, hub: FakeHub) -> None:
    with pytest.raises(ReleaseError, match="nothing was published"):
        read_back(released, HUB)
    with pytest.raises(ReleaseError, match="this is no release"):
        read_back(released, profile_for("folder"))
