"""The data card: in the Hub's form, the same for the same tracks, and nothing in a record can break it."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lofi_assets.constitution.gates import load_gates
from lofi_assets.dataset.build import build_dataset
from lofi_assets.dataset.card import Described, card_text, histogram, statistics
from lofi_assets.dataset.dataset_manifest import assemble
from lofi_assets.files.documents import read_json
from lofi_assets.records import Dataset, Track
from lofi_assets.sources.licensed_sources import inventory_sources
from lofi_assets.store import Store
from lofi_assets_tests.dataset.test_dataset import LATER, NOW, candidate
from lofi_assets_tests.defs.test_asset_pages import assert_reads_well
from lofi_assets_tests.test_scale import processed_library, raw_library

MEASURES = {"tempo_bpm": 76.2, "loudness_lufs": -13.4}


def tracks(store: Store, **changes: Any) -> list[Any]:
    about = {"license_type": "CC-BY-4.0", "provider": "Rain | Co", "attribution": "Rain by Co\n## Injected"} | changes
    made = []
    for track_id, split in (("a", "train"), ("b", "train"), ("c", "validation")):
        base = candidate(store, track_id, split=split)  # type: ignore[arg-type]
        made.append(base.__class__(**(base.__dict__ | MEASURES | about)))
    return made


def card(store: Store, **changes: Any) -> str:
    return (build_dataset(store, tracks(store, **changes), now=NOW).folder / "README.md").read_text("utf-8")


def front(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.split("---\n")[1])


def test_the_hub_reads_the_card(tmp_path: Path) -> None:
    from huggingface_hub import DatasetCard

    data = vars(DatasetCard(card(Store(tmp_path))).data)
    assert data["license"] == "cc-by-4.0"
    assert data["size_categories"] == ["n<1K"] and data["task_categories"] == ["text-to-audio"]


def test_the_configuration_of_the_card_loads_both_splits(tmp_path: Path) -> None:
    import datasets

    folder = build_dataset(Store(tmp_path / "data"), tracks(Store(tmp_path / "data")), now=NOW).folder
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {split: rows.num_rows for split, rows in loaded.items()} == {"train": 2, "validation": 1}


def test_an_empty_split_is_not_announced(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = build_dataset(store, tracks(store)[:2], now=NOW).folder
    files = front((folder / "README.md").read_text("utf-8"))["configs"][0]["data_files"]
    assert files == [{"split": "train", "path": "train/*.arrow"}]


def test_mixed_or_private_licences_are_told_per_track(tmp_path: Path) -> None:
    text = card(Store(tmp_path), license_type="AI-Training-Rights")
    assert front(text)["license"] == "other"
    assert "| AI-Training-Rights | 3 |" in text


def test_the_card_says_what_is_in_the_version(tmp_path: Path) -> None:
    text = card(Store(tmp_path))
    heads = ("Split", "Styles", "Licences and providers", "Attribution", "How it was made", "Known limits")
    assert all(f"\n## {head}\n" in text for head in heads)
    assert "| train | 2 | 0.05 |" in text and "| 75 to 80 | 3 |" in text and "| -14 to -12 | 3 |" in text
    assert "hash `" in text


def test_text_of_a_licence_record_cannot_break_out_of_the_card(tmp_path: Path) -> None:
    text = card(Store(tmp_path))
    assert "\n## Injected" not in text and "- Rain by Co ## Injected (3 tracks)" in text
    assert "Rain \\| Co" in text


def test_the_card_is_the_same_on_every_machine_and_day(tmp_path: Path) -> None:
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    first = build_dataset(here, tracks(here), now=NOW).folder
    second = build_dataset(there, tracks(there)[::-1], now=LATER).folder
    for name in ("README.md", "statistics.json", "train/state.json", "train/data-00000-of-00001.arrow"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_the_hash_is_over_the_tracks_and_not_over_the_card(tmp_path: Path) -> None:
    store = Store(tmp_path)
    plain = build_dataset(store, tracks(store), now=NOW)
    named = build_dataset(store, tracks(store, provider="another name"), now=NOW)
    assert named.folder == plain.folder and not named.created
    assert read_json(plain.folder / "statistics.json")["providers"] == {"Rain | Co": 3}


@given(st.lists(st.none() | st.floats(-60, 300), max_size=40), st.integers(1, 30))
def test_a_histogram_counts_every_track_once(values: list[float | None], width: int) -> None:
    counted = histogram(values, width=width)
    assert sum(counted.values()) == len(values)
    assert counted.get("unknown", 0) == values.count(None)


@given(st.permutations(range(8)))
def test_statistics_do_not_depend_on_the_order_of_tracks(order: list[int]) -> None:
    def described(number: int) -> Described:
        track = Track(
            track_id=f"t{number}",
            filename="t.mp3",
            audio_path="t.mp3",
            prompt_path="p.txt",
            lyrics_path="l.txt",
            duration=30.0 + number / 7,
            sample_rate=48000,
            quality_score=number * 10,
            style_ids=[["CORE-01"], ["VOCAL-02"]][number % 2],
            source_id="s",
        )
        licence = ["CC0-1.0", "CC-BY-4.0"][number % 2]
        return Described(track, tempo_bpm=70 + number, license_type=licence)

    assert statistics([described(n) for n in order]) == statistics([described(n) for n in range(8)])


def test_a_card_without_measures_says_so(tmp_path: Path) -> None:
    record = Dataset(
        dataset_id="lofi-0",
        created=NOW,
        track_count=0,
        train_count=0,
        validation_count=0,
        total_duration=0,
        style_distribution={},
        hash="0" * 64,
    )
    text = card_text(record, statistics([]))
    assert "Not measured." in text and "No licence of these tracks asks for any." in text


@pytest.mark.parametrize("name", ["README.md", "statistics.json"])
def test_a_version_carries_its_card(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path)
    assert (build_dataset(store, tracks(store), now=NOW).folder / name).is_file()


def test_licences_and_measures_of_the_stages_reach_the_card_for_parts_of_a_file_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    raw_library(store, 3)
    inventory_sources(store, gates=load_gates(), today=NOW.date())
    processed_library(store, 3)
    for name in ("processed_tracks.parquet", "prompts.parquet"):
        table = pd.read_parquet(store.metadata(name)).assign(part_of="")
        table.loc[1, ["track_id", "part_of"]] = ["track_000001_p1", "track_000001"]
        table.to_parquet(store.metadata(name))
    outcome = assemble(store, now=NOW)
    assert outcome.counts["tracks"] == 3 and outcome.values["unlicensed_tracks"] == 0
    assert_reads_well(outcome, root=store.root)
    counted = read_json(store.datasets / outcome.details["dataset_id"] / "statistics.json")
    assert counted["licences"] == {"AI training license": 3} and counted["providers"] == {"Someone": 3}
    assert counted["tempo_bpm"] == {"75 to 80": 3} and counted["loudness_lufs"] == {"-14 to -12": 3}
