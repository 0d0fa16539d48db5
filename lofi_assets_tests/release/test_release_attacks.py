"""What is refused, by name: anything that is not what was judged, merged and approved, and anything that is no file."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from lofi_assets.constitution.clearance import give
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.quantization.merged_model import MergedModel
from lofi_assets.release import hub_release
from lofi_assets.release import sealed_copy as sealed_module
from lofi_assets.release.files import ReleaseError
from lofi_assets.store import Store
from lofi_assets.training.config import save_run
from lofi_assets_tests.quantization.stand_in_manifest import merged_model
from lofi_assets_tests.release.cleared import FOLDER, adapter, cleared, publish, refused_by_name, secret
from lofi_assets_tests.release.fake_hub import FakeHub
from lofi_assets_tests.release.stand_in_release import (
    CARD,
    CHECKPOINT,
    LORA,
    adapter_config,
    checkpoint_row,
    list_bundle,
    profile_for,
    put,
    run,
    write_records,
    write_tier,
)

DIFFUSERS, COMFYUI = "pytorch_lora_weights.safetensors", "comfyui_lora.safetensors"


# --- what is not what was judged -------------------------------------------------------------------------------------


def altered_weights(store: Store) -> None:
    put(store.export / "int8" / "transformer.onnx", b"other")


def hard_link_to_secret(store: Store) -> None:
    (store.export / "int8" / "transformer.onnx").unlink()
    (store.export / "int8" / "transformer.onnx").hardlink_to(secret(store))


def unlisted(store: Store) -> None:
    put(store.export / "notes.txt", b"private")


def missing(store: Store) -> None:
    (store.export / "int8" / "transformer.onnx").unlink()


def nothing_listed(store: Store) -> None:
    write_json(store.export / "bundle.json", read_json(store.export / "bundle.json") | {"files": {}})


def tiers_of_another_adapter(store: Store) -> None:
    write_tier(store, "int4", "e" * 64)
    list_bundle(store)


def tiers_of_no_adapter(store: Store) -> None:
    path = store.export / "fp16" / "manifest.json"
    write_json(path, read_json(path) | {"provenance": {}})
    list_bundle(store)


def tier_without_manifest(store: Store) -> None:
    (store.export / "fp16" / "manifest.json").unlink()
    list_bundle(store)


def altered_card(store: Store) -> None:
    put(store.release / "README.md", CARD + b"and more\n")


def unapproved_card(store: Store) -> None:
    (store.release / "approval.json").unlink()


def resave(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Other tensors under the same header."""
    with safe_open(path, framework="numpy") as file:
        said = file.metadata()
    tensors = load_file(path)
    change(tensors)
    path.unlink()
    save_file(tensors, path, metadata=said)


def double(tensors: dict[str, Any]) -> None:
    name = next(name for name in tensors if "lora_B" in name)
    tensors[name] = tensors[name] * np.float32(2)


def one_bit(tensors: dict[str, Any]) -> None:
    name = next(name for name in tensors if "lora_A" in name)
    tensors[name] = np.nextafter(tensors[name], np.float32(9), dtype=np.float32)


def foreign_diffusers(store: Store) -> None:
    resave(adapter(store) / DIFFUSERS, double)


def foreign_comfyui(store: Store) -> None:
    resave(adapter(store) / COMFYUI, one_bit)


def fewer_layers(store: Store) -> None:
    resave(adapter(store) / DIFFUSERS, lambda tensors: tensors.clear() or tensors.update({"a": np.zeros(1)}))


def foreign_peft(store: Store) -> None:
    resave(adapter(store) / "adapter_model.safetensors", double)


def garbage_diffusers(store: Store) -> None:
    put(adapter(store) / DIFFUSERS, b"\x08" + b"\0" * 20)


def header_with(**changes: Any) -> Callable[[Store], None]:
    """The right tensors under a header by which diffusers would scale them."""

    def attack(store: Store) -> None:
        path = adapter(store) / DIFFUSERS
        with safe_open(path, framework="numpy") as file:
            said = json.loads(file.metadata()["lora_adapter_metadata"])
        tensors = load_file(path)
        path.unlink()
        save_file(tensors, path, metadata={"format": "pt", "lora_adapter_metadata": json.dumps(said | changes)})

    attack.__name__ = "_".join(["header", *changes])
    return attack


def config_with(**changes: Any) -> Callable[[Store], None]:
    def attack(store: Store) -> None:
        write_json(adapter(store) / "adapter_config.json", adapter_config(**changes))

    attack.__name__ = "_".join(["config", *changes])
    return attack


def config_of_nothing(store: Store) -> None:
    write_json(adapter(store) / "adapter_config.json", [])


def run_with(**lora: Any) -> Callable[[Store], None]:
    def attack(store: Store) -> None:
        changed = LORA.model_copy(update=lora)
        save_run(adapter(store) / "config.json", run(store.root, lora=changed))

    attack.__name__ = "_".join(["run", *lora])
    return attack


def alpha_in_every_file(store: Store) -> None:
    """Consistent among themselves, and not what was merged."""
    changed = run(store.root, lora=LORA.model_copy(update={"lora_alpha": 3200}))
    write_records(adapter(store), changed)
    config_with(lora_alpha=3200)(store)
    write_json(store.checkpoints / "manifest.json", [checkpoint_row(changed)])


def of_another_dataset(store: Store) -> None:
    save_run(adapter(store) / "config.json", run(store.root, dataset_hash="e" * 64))


def of_another_base(store: Store) -> None:
    rows = read_json(store.checkpoints / "manifest.json")
    other = run(store.root, base_fingerprint="e" * 64)
    save_run(adapter(store) / "config.json", other)
    write_json(store.checkpoints / "manifest.json", [rows[0] | {"config_hash": other.config_hash}])


def tracks_left_out(store: Store) -> None:
    """The track whose rights were withdrawn is gone from the list, so that nothing was trained on it."""
    made = run(store.root)
    save_run(adapter(store) / "config.json", run(store.root, tracks=made.tracks[1:]))


def no_run_on_record(store: Store) -> None:
    path = adapter(store) / "checkpoint.json"
    write_json(path, read_json(path) | {"run_id": ""})


def another_merge(store: Store) -> None:
    known = MergedModel.current(store)
    merged_model(CHECKPOINT, adapter_sha256=known.adapter_sha256, base_fingerprint="b" * 64, rank=4, scale=1.0).write(
        store
    )


def no_record(store: Store) -> None:
    write_json(store.checkpoints / "manifest.json", [])


def no_config(store: Store) -> None:
    (adapter(store) / "config.json").unlink()


def unreadable_run(store: Store) -> None:
    put(adapter(store) / "config.json", b'{"lora": 1}')


def unreadable_config(store: Store) -> None:
    put(adapter(store) / "adapter_config.json", b"{")


def broken_manifest(store: Store) -> None:
    write_json(store.export / "bundle.json", {"files": {}})


def twice(store: Store) -> None:
    manifest = read_json(store.export / "bundle.json")
    write_json(store.export / "bundle.json", manifest | {"files": {"bundle.json": "0" * 64}})
    for path in list(store.export.iterdir()):
        if path.name != "bundle.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


NOT_JUDGED = [
    (altered_weights, r"int8/transformer\.onnx: has sha256 \w+, and the record says \w+: it was changed since"),
    (hard_link_to_secret, r"int8/transformer\.onnx: has sha256 .* it was changed since; materialise onnx_artifacts"),
    (unlisted, r"not the bundle that was judged \(not listed: notes\.txt\); materialise onnx_artifacts"),
    (missing, r"int8/transformer\.onnx: absent"),
    (nothing_listed, r"bundle\.json: lists no file"),
    (tiers_of_another_adapter, r"export/int4: is made of the adapter eeeeeeeeeeee, and merged_model is"),
    (tiers_of_no_adapter, r"export/fp16: is made of the adapter \(not recorded\)"),
    (tier_without_manifest, r"export/fp16: is made of the adapter \(not recorded\)"),
    (altered_card, r"README\.md: has sha256 .*nobody approved this text.*lofi approve-card"),
    (unapproved_card, r"README\.md: nobody approved it"),
    (foreign_peft, r"adapter_model\.safetensors: has sha256 .*not the adapter that the tiers were made from"),
    (foreign_diffusers, rf"{DIFFUSERS} hold different adapters: .* is not the trained strength"),
    (foreign_comfyui, rf"{COMFYUI} hold different adapters"),
    (fewer_layers, rf"{DIFFUSERS} hold different adapters"),
    (garbage_diffusers, rf"{CHECKPOINT}: does not load"),
    (header_with(lora_alpha=3200), rf"{DIFFUSERS} does not say that it is applied at 1\.0"),
    (
        header_with(alpha_pattern={"to_q": 3200}),
        rf"{DIFFUSERS} does not say that it is applied at 1\.0 \(lora_alpha = r, no rsLoRA, no patterns\)",
    ),
    (header_with(note="/home/mkeller"), rf"{DIFFUSERS}: its header has other settings than .*\(note\)"),
    (unreadable_run, rf"checkpoints/{CHECKPOINT}/config\.json: "),
    (unreadable_config, rf"checkpoints/{CHECKPOINT}/adapter_config\.json"),
    (broken_manifest, r"export/bundle\.json: is of another version"),
    (twice, r"bundle\.json: two files of the release would have this name"),
    (config_with(lora_alpha=3200), r"adapter_config\.json: lora_alpha is 3200, trained with 32"),
    (config_with(r=8), r"adapter_config\.json: r is 8, trained with 4"),
    (config_with(use_rslora=False), r"adapter_config\.json: use_rslora is False, trained with True"),
    (config_with(use_dora=True), r"use_dora is True, trained with False"),
    (config_with(target_modules=["to_q", "to_k"]), r"target_modules is \['to_k', 'to_q'\], trained with \['to_q'\]"),
    (config_with(alpha_pattern={"to_q": 3200}), r"alpha_pattern is \{'to_q': 3200\}"),
    (config_with(rank_pattern={"to_q": 1}), r"rank_pattern is"),
    (config_with(modules_to_save=["lm_head"]), r"modules_to_save is \['lm_head'\]"),
    (config_with(peft_type="LOHA"), r"peft_type is 'LOHA'"),
    (config_with(auto_mapping={"base_model_class": "os"}), r"auto_mapping is"),
    (config_with(fan_in_fan_out=True), r"fan_in_fan_out is True"),
    (config_of_nothing, r"adapter_config\.json: holds no adapter's configuration"),
    (run_with(lora_alpha=3200), r"config\.json: is not of the adapter in the tiers \(configuration hash .*scale 1600"),
    (run_with(r=8), r"config\.json: is not of the adapter in the tiers .*rank 8, on record 4"),
    (alpha_in_every_file, r"config\.json: is not of the adapter in the tiers \(scale 1600, merged with 16\)"),
    (of_another_dataset, r"dataset hash e+, on record d+"),
    (of_another_base, r"base e+, on record b+"),
    (tracks_left_out, r"config\.json: is not of the adapter in the tiers \(run of these tracks \w+, on record \w+\)"),
    (no_run_on_record, r"run of these tracks \w+, on record \(none\)"),
    (another_merge, r"scale 16, merged with 1\)"),
    (no_record, rf"has no record of {CHECKPOINT}"),
    (no_config, rf"{CHECKPOINT}/config\.json: absent"),
]


@pytest.mark.parametrize(("attack", "said"), NOT_JUDGED, ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_not_what_was_judged_is_refused_by_name(
    released: Store, attack: Callable[[Store], None], said: str
) -> None:
    refused_by_name(released, attack, said)


# --- between the check and the upload --------------------------------------------------------------------------------


def test_a_file_that_changes_after_it_was_sealed_changes_nothing_that_is_sent(released: Store, hub: FakeHub) -> None:
    right = (released.export / "int8" / "transformer.onnx").read_bytes()

    def meddle(line: str) -> None:
        if line.startswith("release: "):
            (released.export / "int8" / "transformer.onnx").write_bytes(b"malicious" * 100)
            (adapter(released) / DIFFUSERS).write_bytes(b"malicious" * 100)
            (released.release / "README.md").write_bytes(b"malicious" * 100)

    publish(released, profile_for("hub"), progress=meddle)
    assert hub.files("team/lofi-lora-onnx")["bundle/int8/transformer.onnx"] == right
    assert b"malicious" not in b"".join(data for repo in hub.repositories for data in hub.files(repo).values())


def test_a_sealed_copy_that_changes_before_it_is_sent_is_noticed_when_it_is_read_back(
    released: Store, hub: FakeHub
) -> None:
    def meddle(line: str) -> None:
        for copy in released.release.glob(".sealed-*/tiers/bundle/example.py"):
            copy.write_bytes(b"import os")

    with pytest.raises(ReleaseError, match=r"bundle/example\.py is not as sent"):
        publish(released, profile_for("hub"), progress=meddle)
    assert not any(hub.files(repo) for repo in hub.repositories)


def test_a_source_that_grows_while_it_is_copied_is_not_what_the_record_says(
    released: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealed_module, "READ_BLOCK", 100)
    path = released.export / "int8" / "transformer.onnx"
    opened = sealed_module.open_below

    def growing(root: Path, source: Path) -> int:
        descriptor = opened(root, source)
        if source == path:
            with path.open("ab") as file:
                file.write(b"more")
        return descriptor

    monkeypatch.setattr(sealed_module, "open_below", growing)
    with pytest.raises(ReleaseError, match=r"int8/transformer\.onnx: has sha256 .* it was changed since"):
        publish(released, FOLDER)


def test_the_approvers_name_is_that_of_the_file_which_the_guard_read(released: Store) -> None:
    allowed = cleared(released)
    path = released.release / "approval.json"
    write_json(path, read_json(path) | {"approved_by": "The Boss"})
    with pytest.raises(ReleaseError, match=r"approval\.json: was changed since the guard read it"):
        hub_release.publish(released, FOLDER, allowed)


def test_an_approval_that_no_evidence_names_is_nobodys_word(released: Store) -> None:
    allowed = cleared(released)
    without = {name: digest for name, digest in allowed.files.items() if name != "release/approval.json"}
    with pytest.raises(ReleaseError, match=r"approval\.json: no evidence says what made it"):
        hub_release.publish(released, FOLDER, give(replace(allowed, files=without)))
