"""Publication: a release is there whole or not at all, and it is what the gates judged."""

import functools
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lofi_assets.constitution.gates import load_constitution, load_gates
from lofi_assets.constitution.verdicts import Measures, record
from lofi_assets.defs.reporting import metadata
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.hashing import sha256_file, sha256_folder
from lofi_assets.profiles import Profile, load_profile
from lofi_assets.release import hub_release as hub_module
from lofi_assets.release.files import ADAPTER_FILES, ReleaseError
from lofi_assets.release.hub_release import publish
from lofi_assets.release.model_card import approve
from lofi_assets.release.onnx_artifacts import MANIFEST, Bundle, ExampleRun
from lofi_assets.store import Store
from lofi_assets_tests.defs.test_asset_pages import assert_reads_well
from lofi_assets_tests.quantization.stand_in_manifest import merged_model
from lofi_assets_tests.release.fake_hub import TOKEN, FakeHub

CHECKPOINT = "epoch=0-step=10_lora"
REPO = "team/lofi-lora"
NOW = datetime(2025, 12, 22, 12, 0, tzinfo=UTC)
CONSTITUTION = functools.cache(load_constitution)
CARD = b"---\nlicense: apache-2.0\n---\n\n# Lofi LoRA\n"


@pytest.fixture(autouse=True)
def constitution_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing the table takes longer than everything else here."""
    monkeypatch.setattr(hub_module, "load_constitution", CONSTITUTION)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A bundle, an adapter and an approved card: tiny files, all that publication reads."""
    store = Store(tmp_path / "data")
    put(store.export / "int8" / "transformer.onnx", b"weights" * 500)
    put(store.export / "fp16" / "vocoder.onnx", b"half" * 700)
    put(store.export / "example.py", b"print('music')\n")
    list_bundle(store)
    adapter = store.checkpoints / CHECKPOINT
    for name in ADAPTER_FILES:
        put(adapter / name, f"{name} of the adapter".encode())
    checkpoint = {
        "checkpoint_id": CHECKPOINT,
        "step": 10,
        "path": f"checkpoints/{CHECKPOINT}",
        "timestamp": "2025-12-20T10:00:00Z",
        "is_valid": True,
        "config_hash": "c" * 64,
        "dataset_hash": "d" * 64,
    }
    write_json(store.checkpoints / "manifest.json", [checkpoint])
    adapter_sha256 = sha256_file(adapter / "adapter_model.safetensors")
    merged_model(CHECKPOINT, adapter_sha256=adapter_sha256, base_fingerprint="b" * 64).write(store)
    record(store, Measures(asset="merged_model", data_version="1", values={"merge_max_error": 1e-6}))
    write_card(store, CARD)
    return store


def put(path: Path, data: bytes) -> None:
    """Write as the assets do: a new file in the place of the old one, never into it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def list_bundle(store: Store) -> None:
    files = {name: digest for name, digest in sha256_folder(store.export).items() if name != MANIFEST}
    Bundle("k", ExampleRun(True, ""), files).write(store.export)


def write_card(store: Store, text: bytes) -> None:
    put(store.release / "README.md", text)
    approve(store, card=hashlib.sha256(text).hexdigest(), by="R. Manager", now=NOW)


def expected(store: Store) -> dict[str, bytes]:
    """What a release of this store must hold, but for release.json."""
    files = {path.relative_to(store.export).as_posix(): path.read_bytes() for path in files_of(store.export)}
    lora = {f"lora/{name}": (store.checkpoints / CHECKPOINT / name).read_bytes() for name in ADAPTER_FILES}
    return files | lora | {"README.md": (store.release / "README.md").read_bytes()}


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def published(store: Store) -> dict[str, bytes]:
    folder = store.release / "published"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files_of(folder)}


def profile_for(target: str, repo: str = REPO) -> Profile:
    demo = load_profile("demo")
    settings = demo.release.model_copy(update={"target": target, "repo_id": repo})
    return demo.model_copy(update={"release": settings})


FOLDER = profile_for("folder")
HUB = profile_for("hub")


# --- the folder ------------------------------------------------------------------------------------------------------


def test_the_published_folder_is_bundle_adapter_card_and_release_file_byte_for_byte(store: Store) -> None:
    outcome = publish(store, FOLDER)
    found = published(store)
    assert found.pop("release.json")
    assert found == expected(store)
    assert outcome.details["published"] == "release/published"
    assert_reads_well(outcome, root=store.root)


def test_publishing_lists_path_size_and_hash_of_every_file_before_it_does_anything_else(store: Store) -> None:
    lines: list[str] = []
    outcome = publish(store, FOLDER, progress=lines.append)
    rows = {row["path"]: (row["bytes"], row["sha256"]) for row in outcome.rows}
    assert rows == {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in published(store).items()}
    assert all(any(name in line and rows[name][1][:12] in line for line in lines) for name in rows)
    assert outcome.counts["bytes"] == sum(size for size, _ in rows.values())
    assert metadata(outcome)["table"]


def test_publishing_the_same_again_changes_nothing(store: Store) -> None:
    first = publish(store, FOLDER)
    before = {path: path.stat().st_mtime_ns for path in (store.release / "published").rglob("*")}
    again = publish(store, FOLDER)
    assert (first.counts["recomputed"], again.counts["recomputed"]) == (1, 0)
    assert again.data_version == first.data_version
    assert {path: path.stat().st_mtime_ns for path in (store.release / "published").rglob("*")} == before


def test_a_file_that_is_gone_from_the_bundle_is_gone_from_the_folder(store: Store) -> None:
    first = publish(store, FOLDER)
    (store.export / "fp16" / "vocoder.onnx").unlink()
    list_bundle(store)
    assert publish(store, FOLDER).data_version != first.data_version
    assert "fp16/vocoder.onnx" not in published(store)


def test_a_published_folder_that_somebody_changed_is_put_right(store: Store) -> None:
    publish(store, FOLDER)
    put(store.release / "published" / "README.md", b"mine")
    put(store.release / "published" / "extra.txt", b"mine")
    assert publish(store, FOLDER).counts["recomputed"] == 1
    assert published(store)["README.md"] == CARD and "extra.txt" not in published(store)


def test_editing_the_published_card_in_place_leaves_the_approved_one_alone(store: Store) -> None:
    publish(store, FOLDER)
    (store.release / "published" / "README.md").write_bytes(b"edited in place")
    assert (store.release / "README.md").read_bytes() == CARD


KILLED = """
import sys
from pathlib import Path
from lofi_assets.profiles import load_profile
from lofi_assets.release import hub_release as hub
from lofi_assets.store import Store
copy = hub.copy_file
def slow(source, target):
    copy(source, target)
    print("copied", flush=True)
    sys.stdin.read()
hub.copy_file = slow
hub.publish(Store(Path(sys.argv[1])), load_profile("demo"))
"""


def test_a_killed_publication_leaves_the_earlier_one_whole_and_the_next_one_works(store: Store) -> None:
    publish(store, FOLDER)
    earlier = published(store)
    put(store.export / "example.py", b"print('other music')\n")
    list_bundle(store)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(store.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "copied\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert published(store) == earlier
    publish(store, FOLDER)
    assert published(store)["example.py"] == b"print('other music')\n"


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_bundle_that_changed_after_it_was_judged_is_refused_by_name(store: Store) -> None:
    put(store.export / "int8" / "transformer.onnx", b"other")
    put(store.export / "notes.txt", b"private")
    with pytest.raises(ReleaseError, match=r"altered int8/transformer\.onnx; not listed notes\.txt.*onnx_artifacts"):
        publish(store, FOLDER)
    assert not (store.release / "published").exists()


def test_what_python_cached_in_the_bundle_is_not_published(store: Store) -> None:
    put(store.export / "runtime" / "__pycache__" / "runtime.pyc", b"cache")
    publish(store, FOLDER)
    assert not [name for name in published(store) if "__pycache__" in name]


def test_the_comfyui_form_is_published_where_the_checkpoint_has_one(store: Store) -> None:
    publish(store, FOLDER)
    assert "lora/comfyui_lora.safetensors" not in published(store)
    put(store.checkpoints / CHECKPOINT / "comfyui_lora.safetensors", b"for ComfyUI")
    publish(store, FOLDER)
    assert "lora/comfyui_lora.safetensors" in published(store)


def test_a_card_that_changed_after_it_was_approved_is_refused(store: Store) -> None:
    put(store.release / "README.md", CARD + b"and more\n")
    with pytest.raises(ReleaseError, match=r"nobody approved this text.*lofi approve-card"):
        publish(store, FOLDER)


def test_an_adapter_that_is_not_the_one_in_the_tiers_is_refused(store: Store) -> None:
    put(store.checkpoints / CHECKPOINT / "adapter_model.safetensors", b"trained on")
    with pytest.raises(ReleaseError, match="not the adapter that the tiers were made from"):
        publish(store, FOLDER)


def test_an_absent_file_is_named(store: Store) -> None:
    (store.checkpoints / CHECKPOINT / "config.json").unlink()
    with pytest.raises(ReleaseError, match=rf"{CHECKPOINT}/config\.json: absent"):
        publish(store, FOLDER)


# --- release.json ----------------------------------------------------------------------------------------------------


def test_the_release_file_says_what_it_was_made_from_and_under_which_verdicts(store: Store) -> None:
    publish(store, FOLDER)
    about = read_json(store.release / "published" / "release.json")
    assert about["checkpoint"] == CHECKPOINT
    assert (about["dataset_sha256"], about["base_fingerprint"]) == ("d" * 64, "b" * 64)
    assert about["card_sha256"] == hashlib.sha256(CARD).hexdigest()
    assert about["approval"] == {"approved_by": "R. Manager", "date": "2025-12-22T12:00:00+00:00"}
    assert about["tools"]["onnxruntime"] and about["tools"]["python"]
    gates = {row["gate"]: row for row in about["gates"]}
    assert gates.keys() == {gate.id for gate in load_gates() if "hub_release" in gate.holds}
    assert gates["merge.parity"]["verdict"] == "pass" and "1e-06" in gates["merge.parity"]["value"]
    assert gates["quality.fad"]["verdict"] == "inconclusive"


def test_the_release_file_lists_every_other_file(store: Store) -> None:
    publish(store, FOLDER)
    found = published(store)
    listed = json.loads(found.pop("release.json"))["files"]
    assert listed == {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in found.items()
    }


# --- the Hub ---------------------------------------------------------------------------------------------------------


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
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


def test_a_release_is_one_commit_with_the_same_bytes_on_a_private_repository(
    store: Store, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by `upload_folder`, which makes several commits where hf_xet is on; it is off here."""
    from huggingface_hub import HfApi

    monkeypatch.setattr(HfApi, "upload_folder", None)
    outcome = publish(store, HUB)
    initial, commit = hub.repositories[REPO]
    assert hub.files(REPO) == published(store) and len(hub.files(REPO)) == 10
    assert (commit.parent, outcome.details["parent"]) == (initial.oid, initial.oid)
    assert hub.visibility[REPO] == "private" and outcome.details["private"] is True
    assert outcome.details["commit"] == commit.oid and outcome.details["published"].endswith(commit.oid)
    assert {row["state"] for row in outcome.rows} == {"new"}
    assert metadata(outcome)["commit"].value == commit.oid


def test_what_will_be_sent_is_said_before_it_is_sent(store: Store, hub: FakeHub) -> None:
    lines: list[str] = []
    hub.commit_status = 500
    with pytest.raises(ReleaseError):
        publish(store, HUB, progress=lines.append)
    total = sum(map(len, published(store).values()))
    assert any(f"10 of 10 files, {total:,} bytes, to {REPO}" in line for line in lines)


def test_publishing_the_same_again_makes_no_commit(store: Store, hub: FakeHub) -> None:
    first = publish(store, HUB)
    again = publish(store, HUB)
    assert len(hub.repositories[REPO]) == 2
    assert (again.details["commit"], again.details["uploaded"]) == (first.details["commit"], 0)


def test_a_later_release_sends_what_changed_and_removes_what_is_gone_and_nothing_else(
    store: Store, hub: FakeHub
) -> None:
    publish(store, HUB)
    hub.add_commit(REPO, {"samples/rain.mp3": b"put there by hand"})
    (store.export / "fp16" / "vocoder.onnx").unlink()
    put(store.export / "int8" / "transformer.onnx", b"better" * 500)
    list_bundle(store)
    outcome = publish(store, HUB)
    assert hub.files(REPO) == published(store) | {"samples/rain.mp3": b"put there by hand"}
    assert outcome.details["removed"] == ["fp16/vocoder.onnx"]
    states = {row["path"]: row["state"] for row in outcome.rows}
    assert [name for name, state in states.items() if state == "changed"] == [
        "bundle.json",
        "int8/transformer.onnx",
        "release.json",
    ]
    assert states["lora/adapter_model.safetensors"] == "unchanged" and outcome.details["uploaded"] == 3


def test_the_card_on_the_hub_is_ours_whatever_was_there(store: Store, hub: FakeHub) -> None:
    hub.create(REPO, **{"README.md": b"# made by the web page\n"})
    publish(store, HUB)
    assert hub.files(REPO)["README.md"] == CARD


def test_an_empty_repository_without_a_head_can_be_published_to(store: Store, hub: FakeHub) -> None:
    hub.initial_commit = False
    outcome = publish(store, HUB)
    assert outcome.details["parent"] is None
    assert hub.files(REPO) == published(store)


def test_a_repository_of_something_else_is_left_alone(store: Store, hub: FakeHub) -> None:
    hub.create(REPO, **{"model.safetensors": b"another model"})
    with pytest.raises(ReleaseError, match=r"holds model\.safetensors and no release\.json.*another repository"):
        publish(store, HUB)
    assert len(hub.repositories[REPO]) == 1


@pytest.mark.parametrize("status", [403, 503])
def test_an_upload_that_fails_leaves_no_commit_and_names_the_file(store: Store, hub: FakeHub, status: int) -> None:
    hub.put_status[b"weights" * 500] = status
    with pytest.raises(ReleaseError, match=r"not published.*int8/transformer\.onnx.*storage says no"):
        publish(store, HUB)
    assert hub.files(REPO) == {} and len(hub.repositories[REPO]) == 1
    hub.put_status.clear()
    publish(store, HUB)
    assert hub.files(REPO) == published(store)


def test_a_commit_by_somebody_else_in_between_is_not_overwritten(store: Store, hub: FakeHub) -> None:
    hub.before_commit = lambda hub: hub.add_commit(REPO, {"README.md": b"a colleague was here"})
    with pytest.raises(ReleaseError, match=r"Somebody else committed there.*run hub_release again"):
        publish(store, HUB)
    assert hub.files(REPO) == {"README.md": b"a colleague was here"}


def test_a_commit_that_breaks_leaves_the_earlier_release(store: Store, hub: FakeHub) -> None:
    publish(store, HUB)
    earlier = hub.files(REPO)
    put(store.export / "example.py", b"print('other music')\n")
    list_bundle(store)
    hub.commit_status = 500
    with pytest.raises(ReleaseError, match=f"{REPO}: not published.*Run hub_release again"):
        publish(store, HUB)
    assert hub.files(REPO) == earlier


def test_files_that_the_repository_ignores_do_not_go_missing_in_silence(store: Store, hub: FakeHub) -> None:
    hub.ignored = {"lora/config.json"}
    with pytest.raises(ReleaseError, match=r"does not hold lora/config\.json as sent.*gitignore"):
        publish(store, HUB)


def test_a_card_whose_metadata_the_hub_refuses_stops_before_any_upload(store: Store, hub: FakeHub) -> None:
    write_card(store, b"---\nlicense: [broken\n---\n\n# Lofi\n")
    with pytest.raises(ReleaseError, match=r"Invalid metadata in README\.md"):
        publish(store, HUB)
    assert not hub.objects


def test_without_write_access_it_says_which_token_to_make(store: Store, hub: FakeHub) -> None:
    hub.create(REPO)
    hub.read_only = True
    with pytest.raises(ReleaseError, match=r"The token may not write there.*set HF_TOKEN"):
        publish(store, HUB)


def test_without_a_repository_or_a_token_nothing_is_assembled_or_sent(
    store: Store, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ReleaseError, match=r"demo\.yaml: release\.repo_id is empty"):
        publish(store, profile_for("hub", repo=""))
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ReleaseError, match=r"no Hugging Face token.*set HF_TOKEN in the environment"):
        publish(store, HUB)
    assert not (store.release / "published").exists() and not hub.requests


def test_a_hub_that_cannot_be_reached_is_said_to_be(
    store: Store, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ReleaseError, match=r"not published.*Run hub_release again"):
        publish(store, HUB)


def test_the_token_is_in_no_log_no_metadata_and_no_error(
    store: Store, hub: FakeHub, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("huggingface_hub").setLevel(logging.DEBUG)
    hub.echo_token, hub.commit_status = True, 500
    with pytest.raises(ReleaseError, match="<HF_TOKEN>") as caught:
        publish(store, HUB)
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    hub.commit_status = 200
    outcome = publish(store, HUB)
    told = [str(caught.value), caplog.text, *capfd.readouterr(), repr(metadata(outcome)), repr(outcome)]
    assert not [text for text in told if TOKEN in text]
    assert not [path for path in files_of(store.root) if TOKEN.encode() in path.read_bytes()]


PUBLISH = """
import sys
from pathlib import Path
from lofi_assets.profiles import load_profile
from lofi_assets.release.hub_release import publish
from lofi_assets.store import Store
demo = load_profile("demo")
release = demo.release.model_copy(update={"target": "hub", "repo_id": sys.argv[2]})
print(publish(Store(Path(sys.argv[1])), demo.model_copy(update={"release": release})).details["commit"])
"""


def test_a_process_with_nothing_but_its_environment_publishes(store: Store, hub: FakeHub, tmp_path: Path) -> None:
    environment: dict[str, Any] = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_TOKEN": TOKEN,
        "HF_DEBUG": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", PUBLISH, str(store.root), REPO],
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
    assert hub.files(REPO) == published(store)


def test_a_release_file_on_the_hub_that_is_none_is_named_and_nothing_is_sent(store: Store, hub: FakeHub) -> None:
    publish(store, HUB)
    hub.add_commit(REPO, {"release.json": b'{"files": ["README.md"]}'})
    with pytest.raises(ReleaseError, match=rf"release\.json: is of another version .*mend or remove .* in {REPO}"):
        publish(store, HUB)
    assert hub.files(REPO)["release.json"] == b'{"files": ["README.md"]}'
