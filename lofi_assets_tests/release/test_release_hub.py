"""Publication on the Hub: nothing is visible until everything was read back, and it is what the gates judged."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lofi_assets.defs.reporting import metadata
from lofi_assets.release.files import ReleaseError
from lofi_assets.release.hub_commit import OnHub
from lofi_assets.store import Store
from lofi_assets_tests.release.cleared import publish
from lofi_assets_tests.release.fake_hub import FakeHub, requests_of
from lofi_assets_tests.release.stand_in_release import (
    ADAPTER,
    CARD,
    REPOS,
    list_bundle,
    on_hub,
    profile_for,
    published,
    put,
    write_card,
)

REPO, TIERS = REPOS["adapter"], REPOS["tiers"]
HUB = profile_for("hub")


def test_each_repository_gets_one_merged_pull_request_with_the_same_bytes_and_is_private(
    released: Store, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by `upload_folder`, which makes several commits where hf_xet is on; it is off here."""
    from huggingface_hub import HfApi

    monkeypatch.setattr(HfApi, "upload_folder", None)
    outcome = publish(released, HUB)
    assert on_hub(hub) == published(released) and hub.files(REPO).keys() == ADAPTER
    for part, repo in REPOS.items():
        initial, merged = hub.repositories[repo]
        assert (merged.parent, outcome.details[f"{part} parent"]) == (initial.oid, initial.oid)
        assert hub.visibility[repo] == "private" and outcome.details[f"{part} private"] is True
        assert outcome.details[f"{part} commit"] == merged.oid
        assert outcome.details[f"{part} published"].endswith(merged.oid)
        assert requests_of(hub, repo) == ["merged"]
    assert {row["state"] for row in outcome.rows} == {"new"}
    assert metadata(outcome)["adapter commit"].value == outcome.details["adapter commit"]


def test_what_will_be_sent_is_said_before_it_is_sent(released: Store, hub: FakeHub) -> None:
    lines: list[str] = []
    hub.commit_status = 500
    with pytest.raises(ReleaseError):
        publish(released, HUB, progress=lines.append)
    assert any(f"{len(ADAPTER)} of {len(ADAPTER)} files" in line and f"to {REPO}" in line for line in lines)
    assert any("adapter/comfyui_lora.safetensors" in line for line in lines)


def test_publishing_the_same_again_makes_no_commit(released: Store, hub: FakeHub) -> None:
    first = publish(released, HUB)
    again = publish(released, HUB)
    assert [len(hub.repositories[repo]) for repo in REPOS.values()] == [2, 2]
    assert requests_of(hub, REPO) == ["merged"]
    assert (again.details["adapter commit"], again.details["adapter uploaded"]) == (first.details["adapter commit"], 0)


def test_a_later_release_sends_what_changed_and_removes_what_is_gone_and_nothing_else(
    released: Store, hub: FakeHub
) -> None:
    publish(released, HUB)
    hub.add_commit(TIERS, {"samples/rain.mp3": b"put there by hand"})
    (released.export / "fp16" / "vocoder.onnx").unlink()
    put(released.export / "int8" / "transformer.onnx", b"better" * 500)
    list_bundle(released)
    outcome = publish(released, HUB)
    assert on_hub(hub) == published(released) | {"tiers/samples/rain.mp3": b"put there by hand"}
    assert outcome.details["tiers removed"] == ["bundle/fp16/vocoder.onnx"]
    states = {row["path"]: row["state"] for row in outcome.rows}
    assert [name for name, state in states.items() if state == "changed"] == [
        *("adapter/release.intoto.json", "adapter/release.json"),
        *("tiers/bundle/bundle.json", "tiers/bundle/int8/transformer.onnx"),
        *("tiers/release.intoto.json", "tiers/release.json"),
    ]
    assert states["adapter/adapter_model.safetensors"] == "unchanged" and outcome.details["tiers uploaded"] == 4


def test_a_release_without_a_signature_takes_the_earlier_ones_signature_away(
    released: Store, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Ed25519PrivateKey.generate()
    pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    monkeypatch.setenv("LOFI_SIGNING_KEY", key.private_bytes(*pem).decode())
    publish(released, HUB)
    assert "release.dsse.json" in hub.files(REPO)
    monkeypatch.delenv("LOFI_SIGNING_KEY")
    publish(released, HUB)
    assert on_hub(hub) == published(released) and "release.dsse.json" not in hub.files(REPO)


def test_the_card_on_the_hub_is_ours_whatever_was_there(released: Store, hub: FakeHub) -> None:
    hub.create(REPO, files={"README.md": b"# made by the web page\n"})
    publish(released, HUB)
    assert hub.files(REPO)["README.md"] == CARD


def test_an_empty_repository_without_a_head_can_be_published_to(released: Store, hub: FakeHub) -> None:
    hub.initial_commit = False
    publish(released, HUB)
    assert on_hub(hub) == published(released)


def test_a_repository_of_something_else_is_left_alone(released: Store, hub: FakeHub) -> None:
    hub.create(REPO, files={"model.safetensors": b"another model"})
    with pytest.raises(ReleaseError, match=r"holds model\.safetensors and no release\.json.*another repository"):
        publish(released, HUB)
    assert len(hub.repositories[REPO]) == 1 and not hub.objects and not hub.pull_requests


def test_repositories_that_were_confused_are_left_alone(released: Store, hub: FakeHub) -> None:
    publish(released, HUB)
    before = on_hub(hub)
    with pytest.raises(ReleaseError, match="holds the adapter of a release, not the tiers"):
        publish(released, profile_for("hub", repo_id=TIERS, tiers_repo_id=REPO))
    assert on_hub(hub) == before
    with pytest.raises(ReleaseError, match="repo_id and tiers_repo_id are the same"):
        publish(released, profile_for("hub", tiers_repo_id=REPO))


@pytest.mark.parametrize("status", [403, 503])
def test_an_upload_that_fails_leaves_no_commit_and_names_the_file(released: Store, hub: FakeHub, status: int) -> None:
    hub.put_status[b"weights" * 500] = status
    with pytest.raises(ReleaseError, match=r"not published.*int8/transformer\.onnx.*storage says no"):
        publish(released, HUB)
    assert on_hub(hub) == {} and len(hub.repositories[TIERS]) == 1
    hub.put_status.clear()
    publish(released, HUB)
    assert on_hub(hub) == published(released)


def test_a_commit_that_breaks_leaves_the_earlier_release(released: Store, hub: FakeHub) -> None:
    publish(released, HUB)
    earlier, folder = on_hub(hub), published(released)
    put(released.export / "example.py", b"print('other music')\n")
    list_bundle(released)
    hub.commit_status = 500
    with pytest.raises(ReleaseError, match=r"not published.*Run hub_release again"):
        publish(released, HUB)
    assert on_hub(hub) == earlier and published(released) == folder


def test_a_card_whose_metadata_the_hub_refuses_stops_before_any_upload(released: Store, hub: FakeHub) -> None:
    write_card(released, b"---\nlicense: [broken\n---\n\n# Lofi\n")
    with pytest.raises(ReleaseError, match=r"Invalid metadata in README\.md"):
        publish(released, HUB)
    assert not hub.objects


def test_without_write_access_it_says_which_token_to_make(released: Store, hub: FakeHub) -> None:
    for repo in REPOS.values():
        hub.create(repo)
    hub.read_only = True
    with pytest.raises(ReleaseError, match=r"The token may not write there.*set HF_TOKEN"):
        publish(released, HUB)


# --- what the Hub says that it holds ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"adapter_config.json": b'{"r": 4, "lora_alpha": 3200}'}, r"adapter_config\.json is not as sent"),
        ({"adapter_model.safetensors": b"another adapter"}, r"adapter_model\.safetensors is not as sent"),
        ({"steal.py": b"import os"}, r"steal\.py was not sent"),
    ],
)
def test_a_pull_request_that_does_not_hold_what_was_sent_is_closed_with_the_reason_and_main_is_as_it_was(
    released: Store, hub: FakeHub, files: dict[str, bytes], said: str
) -> None:
    def meddle(hub: FakeHub) -> None:
        if hub.pull_requests.get(REPO):
            hub.tamper(REPO, **files)

    hub.after_pull_request = meddle
    with pytest.raises(ReleaseError, match=rf"{REPO}, refs/pr/1: {said}"):
        publish(released, HUB)
    assert on_hub(hub) == {}
    assert [requests_of(hub, repo) for repo in REPOS.values()] == [["closed"], ["closed"]]
    assert all("Not merged." in hub.pull_requests[repo][0].comments[-1] for repo in REPOS.values())
    stands = OnHub.read(released)
    assert stands and {part.state for part in stands.parts.values()} == {"refused"}
    assert not (released.release / "published").exists()


def test_a_small_file_that_the_hub_hands_out_as_something_else_stops_the_merge(
    released: Store, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says of its files is one thing, what people get is the other."""
    from huggingface_hub import HfApi

    download = HfApi.hf_hub_download

    def spoilt(api: HfApi, repo: str, name: str, **options: Any) -> str:
        path = Path(download(api, repo, name, **options))
        if name == "config.json":
            path.write_bytes(b"{}")
        return str(path)

    monkeypatch.setattr(HfApi, "hf_hub_download", spoilt)
    with pytest.raises(ReleaseError, match=r"config\.json reads back as something else"):
        publish(released, HUB)
    assert on_hub(hub) == {} and requests_of(hub, REPO) == ["closed"]


def test_files_that_the_repository_ignores_do_not_go_missing_in_silence(released: Store, hub: FakeHub) -> None:
    hub.ignored = {"config.json"}
    with pytest.raises(ReleaseError, match=r"config\.json is not as sent.*gitignore"):
        publish(released, HUB)
    assert on_hub(hub) == {}


def test_a_commit_by_somebody_else_in_between_is_not_overwritten(released: Store, hub: FakeHub) -> None:
    def colleague(hub: FakeHub) -> None:
        if hub.pull_requests.get(REPO):
            hub.add_commit(TIERS, {"README.md": b"a colleague was here"})

    hub.after_pull_request = colleague
    with pytest.raises(ReleaseError, match=r"somebody else committed there.*run hub_release again"):
        publish(released, HUB)
    assert on_hub(hub) == {"tiers/README.md": b"a colleague was here"}
    assert [requests_of(hub, repo) for repo in REPOS.values()] == [["closed"], ["closed"]]


def test_a_commit_to_the_same_file_in_the_last_instant_is_refused_by_the_hub(released: Store, hub: FakeHub) -> None:
    hub.before_merge = lambda hub, repo: hub.add_commit(repo, {"README.md": b"a colleague was here"}) and None
    with pytest.raises(ReleaseError, match="Somebody else changed the same files"):
        publish(released, HUB)
    assert on_hub(hub) == {"tiers/README.md": b"a colleague was here"}


def test_a_main_that_is_not_as_sent_after_the_merge_is_named_and_on_record(released: Store, hub: FakeHub) -> None:
    hub.after_merge = lambda hub: hub.add_commit(TIERS, {"bundle/example.py": b"import os"}) and None
    with pytest.raises(ReleaseError, match=rf"{TIERS}, main: bundle/example\.py is not as sent"):
        publish(released, HUB)
    stands = OnHub.read(released)
    assert stands and {part: found.state for part, found in stands.parts.items()} == {
        "tiers": "merged",
        "adapter": "refused",
    }


def test_a_release_that_breaks_off_between_two_repositories_says_what_is_where_and_goes_on(
    released: Store, hub: FakeHub
) -> None:
    hub.merge_status = {REPO: 500}
    with pytest.raises(ReleaseError, match="Run hub_release again"):
        publish(released, HUB)
    stands = OnHub.read(released)
    assert stands and stands.parts["tiers"].state == "published" and stands.parts["adapter"].state == "refused"
    assert stands.parts["tiers"].commit == hub.repositories[TIERS][-1].oid
    assert "the merge broke" in stands.parts["adapter"].reason
    assert hub.files(REPO) == {} and hub.files(TIERS)
    hub.merge_status = {}
    outcome = publish(released, HUB)
    assert on_hub(hub) == published(released)
    assert (outcome.details["tiers uploaded"], requests_of(hub, TIERS)) == (0, ["merged"])
    assert requests_of(hub, REPO) == ["closed", "merged"]
    stands = OnHub.read(released)
    assert stands and {found.state for found in stands.parts.values()} == {"published"}


def test_both_repositories_name_the_same_release(released: Store, hub: FakeHub) -> None:
    publish(released, HUB)
    said = {part: json.loads(hub.files(repo)["release.json"]) for part, repo in REPOS.items()}
    assert said["adapter"]["release"] == said["tiers"]["release"] != ""
    assert {part: record["part"] for part, record in said.items()} == {"adapter": "adapter", "tiers": "tiers"}
