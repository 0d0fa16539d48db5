"""Publication into a folder: a release is there whole or not at all, and says what it was made from."""

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

from lofi_assets.constitution.gates import load_gates
from lofi_assets.defs.reporting import metadata
from lofi_assets.files.documents import read_json
from lofi_assets.files.hashing import sha256_file
from lofi_assets.release.hub_release import preview
from lofi_assets.store import Store
from lofi_assets_tests.defs.test_asset_pages import assert_reads_well
from lofi_assets_tests.release.cleared import publish
from lofi_assets_tests.release.stand_in_release import (
    ADAPTER,
    CARD,
    CHECKPOINT,
    TRACKS,
    list_bundle,
    profile_for,
    published,
    put,
)

FOLDER = profile_for("folder")


def test_the_folder_holds_the_adapter_at_its_root_and_the_bundle_byte_for_byte(released: Store) -> None:
    outcome = publish(released, FOLDER)
    assert published(released, "adapter").keys() == ADAPTER
    tiers = published(released, "tiers")
    bundle = {p.relative_to(released.export).as_posix(): p for p in released.export.rglob("*") if p.is_file()}
    assert {name for name in tiers if name.startswith("bundle/")} == {f"bundle/{name}" for name in bundle}
    assert all(tiers[f"bundle/{name}"] == path.read_bytes() for name, path in bundle.items())
    assert tiers["README.md"] == published(released, "adapter")["README.md"] == CARD
    assert outcome.details["published"] == "release/published"
    assert_reads_well(outcome, root=released.root)


def test_publishing_lists_path_size_and_hash_of_every_file_before_it_does_anything_else(released: Store) -> None:
    lines: list[str] = []
    outcome = publish(released, FOLDER, progress=lines.append)
    rows = {row["path"]: (row["bytes"], row["sha256"]) for row in outcome.rows}
    assert rows == {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in published(released).items()}
    assert all(any(name in line and rows[name][1][:12] in line for line in lines) for name in rows)
    assert outcome.counts["bytes"] == sum(size for size, _ in rows.values())
    assert metadata(outcome)["table"]


def test_publishing_the_same_again_changes_nothing(released: Store) -> None:
    first = publish(released, FOLDER)
    before = {path: path.stat().st_mtime_ns for path in (released.release / "published").rglob("*")}
    again = publish(released, FOLDER)
    assert (first.counts["recomputed"], again.counts["recomputed"]) == (1, 0)
    assert again.data_version == first.data_version
    assert {path: path.stat().st_mtime_ns for path in (released.release / "published").rglob("*")} == before


def test_a_file_that_is_gone_from_the_bundle_is_gone_from_the_folder(released: Store) -> None:
    first = publish(released, FOLDER)
    (released.export / "fp16" / "vocoder.onnx").unlink()
    list_bundle(released)
    found = preview(released, FOLDER)
    assert found.removed == ["tiers/bundle/fp16/vocoder.onnx"] and "tiers/bundle/fp16/vocoder.onnx" in published(
        released
    )
    assert publish(released, FOLDER).data_version != first.data_version
    assert "tiers/bundle/fp16/vocoder.onnx" not in published(released)


def test_a_published_folder_that_somebody_changed_is_put_right(released: Store) -> None:
    publish(released, FOLDER)
    put(released.release / "published" / "adapter" / "README.md", b"mine")
    put(released.release / "published" / "extra.txt", b"mine")
    assert publish(released, FOLDER).counts["recomputed"] == 1
    assert published(released)["adapter/README.md"] == CARD and "extra.txt" not in published(released)


def test_editing_a_published_file_in_place_leaves_what_it_was_copied_from_alone(released: Store) -> None:
    publish(released, FOLDER)
    for part in ("adapter", "tiers"):
        (released.release / "published" / part / "README.md").write_bytes(b"edited in place")
    assert (released.release / "README.md").read_bytes() == CARD
    adapter = released.release / "published" / "adapter"
    (adapter / "comfyui_lora.safetensors").write_bytes(b"edited in place")
    assert (adapter / "pytorch_lora_weights.safetensors").read_bytes() != b"edited in place"


def test_what_python_cached_in_the_bundle_is_not_published(released: Store) -> None:
    put(released.export / "runtime" / "__pycache__" / "runtime.pyc", b"cache")
    publish(released, FOLDER)
    assert not [name for name in published(released) if "__pycache__" in name]


KILLED = """
import sys
from pathlib import Path
from lofi_assets.profiles import load_profile
from lofi_assets.release import hub_release as hub
from lofi_assets.store import Store
from lofi_assets_tests.release.cleared import publish
copy = hub.copy_file
def slow(source, target):
    copy(source, target)
    print("copied", flush=True)
    sys.stdin.read()
hub.copy_file = slow
publish(Store(Path(sys.argv[1])), load_profile("demo"))
"""


def test_a_killed_publication_leaves_the_earlier_one_whole_and_the_next_one_clears_up(released: Store) -> None:
    publish(released, FOLDER)
    earlier = published(released)
    put(released.export / "example.py", b"print('other music')\n")
    list_bundle(released)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(released.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "copied\n"
    (left,) = released.release.glob(".sealed-*")
    assert left.stat().st_mode & 0o777 == 0o700
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert published(released) == earlier and left.is_dir()
    publish(released, FOLDER)
    assert published(released)["tiers/bundle/example.py"] == b"print('other music')\n"
    assert not list(released.release.glob(".sealed-*"))


# --- release.json ----------------------------------------------------------------------------------------------------


def test_the_release_file_says_what_it_was_made_from_and_under_which_verdicts(released: Store) -> None:
    publish(released, FOLDER)
    about = read_json(released.release / "published" / "adapter" / "release.json")
    assert about["checkpoint"] == CHECKPOINT
    assert (about["dataset_sha256"], about["base_fingerprint"]) == ("d" * 64, "b" * 64)
    assert about["card_sha256"] == hashlib.sha256(CARD).hexdigest()
    assert about["approval"] == {"approved_by": "R. Manager", "date": "2025-12-22T12:00:00+00:00"}
    assert about["tools"]["onnxruntime"] and about["tools"]["python"]
    gates = {row["gate"]: row for row in about["gates"]}
    assert gates.keys() == {gate.id for gate in load_gates() if "hub_release" in gate.holds}
    assert all(row["verdict"] == "pass" for row in gates.values())
    assert "must be < 0.0001" in gates["merge.parity"]["value"]


def test_each_release_file_lists_every_other_file_of_its_repository(released: Store) -> None:
    publish(released, FOLDER)
    for part in ("adapter", "tiers"):
        found = published(released, part)
        listed = json.loads(found.pop("release.json"))["files"]
        found.pop("release.intoto.json")  # lists release.json too
        assert listed == {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in found.items()
        }


def test_what_was_rewritten_is_on_record_with_the_hash_of_the_checkpoints_file_which_stays_as_it_is(
    released: Store,
) -> None:
    folder = released.checkpoints / CHECKPOINT
    before = {path.name: sha256_file(path) for path in folder.iterdir()}
    publish(released, FOLDER)
    assert {path.name: sha256_file(path) for path in folder.iterdir()} == before
    about = read_json(released.release / "published" / "adapter" / "release.json")
    rewritten = {"adapter_config.json", "comfyui_lora.safetensors", "config.json", "pytorch_lora_weights.safetensors"}
    assert about["made_from"] == {name: before[name] for name in rewritten}
    assert all(about["files"][name]["sha256"] != before[name] for name in rewritten)
    assert about["files"]["adapter_model.safetensors"]["sha256"] == before["adapter_model.safetensors"]


def test_the_published_configuration_has_every_setting_and_names_no_track_and_no_folder(released: Store) -> None:
    publish(released, FOLDER)
    adapter = published(released, "adapter")
    config = json.loads(adapter["config.json"])
    assert config["tracks"] == {"train": len(TRACKS), "validation": 0} and config["lora"]["r"] == 4
    assert config["training"]["learning_rate"] == 1e-4 and config["base_fingerprint"] == "b" * 64
    everything = b"".join(published(released).values())
    assert not [name for name in TRACKS[:2] if name.encode() in everything]
    assert str(released.root).encode() not in everything and b"/work/models" not in everything


def test_a_release_is_loaded_as_what_was_trained(released: Store) -> None:
    import numpy as np
    from safetensors import safe_open
    from safetensors.numpy import load_file

    publish(released, FOLDER)
    adapter = released.release / "published" / "adapter"
    trained = load_file(released.checkpoints / CHECKPOINT / "pytorch_lora_weights.safetensors")
    for name in ("pytorch_lora_weights.safetensors", "comfyui_lora.safetensors"):
        found = load_file(adapter / name)
        assert found.keys() == trained.keys() and all(np.array_equal(found[key], trained[key]) for key in trained)
        with safe_open(adapter / name, framework="numpy") as file:
            said = json.loads(file.metadata()["lora_adapter_metadata"])
        assert (said["lora_alpha"], said["use_rslora"], said["base_model_name_or_path"]) == (4, False, None)


def test_the_base_is_named_by_its_repository_and_commit(released: Store) -> None:
    from lofi_assets.training.config import save_run
    from lofi_assets_tests.release.stand_in_release import run

    commit = "1" * 40
    snapshot = f"/work/hf/models--ACE-Step--ACE-Step-v1-3.5B/snapshots/{commit}"
    save_run(released.checkpoints / CHECKPOINT / "config.json", run(released.root, base=snapshot))
    hub = FOLDER.base_model.model_copy(update={"kind": "hub", "path": "ACE-Step/ACE-Step-v1-3.5B", "revision": commit})
    publish(released, FOLDER.model_copy(update={"base_model": hub}))
    config = json.loads(published(released, "adapter")["adapter_config.json"])
    assert (config["base_model_name_or_path"], config["revision"]) == ("ACE-Step/ACE-Step-v1-3.5B", commit)


def test_published_files_may_be_read_by_whoever_may_read_the_folder(released: Store) -> None:
    publish(released, FOLDER)
    ours = Path(released.release / "published" / "adapter")
    plain = released.root / "plain.txt"
    plain.write_bytes(b"")
    assert {path.stat().st_mode & 0o777 for path in ours.rglob("*") if path.is_file()} == {plain.stat().st_mode & 0o777}
