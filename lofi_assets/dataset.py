"""Tracks -> an immutable, hashed dataset version (constitution II; data model, Dataset).

What belongs here: the split, the content hash, the training folders and the Hugging Face dataset in the columns that
the public ACE-Step trainer reads. What does not: the judgement of tracks (`audio/`) and prompts (`tagging.py`).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from lofi_assets.library import DUPLICATES, PROCESSED, PROMPTS, accepted_tracks, rows_of, verified_sources
from lofi_assets.outcome import Outcome
from lofi_assets.records import STYLE_COUNTS, STYLE_PREFIXES, Dataset, Split, Track, dump
from lofi_assets.store import Store, atomic_folder, fingerprint, link_or_copy, read_json, sha256_file, write_json

DATASET_VERSION = "1"
"""Raised when the layout of a dataset version changes."""

VALIDATION_SHARE = 0.10
"""Share of groups in the validation split (data model, Track)."""

MIN_SECONDS, MAX_SECONDS = 30.0, 180.0
"""What enters training (constitution, Audio Specifications)."""

SPLIT_SALT = "lofi-split-1"
"""Part of every split decision; changing it would move every track."""


@dataclass(frozen=True)
class Candidate:
    """A processed and tagged track that may enter the dataset."""

    track: Track
    audio: Path
    prompt: str
    lyrics: str
    audio_sha256: str
    group: str
    """Near-duplicates share a group; a group never straddles the split."""


@dataclass(frozen=True)
class BuiltDataset:
    """What `build_dataset` made or found."""

    record: Dataset
    folder: Path
    tracks: tuple[Track, ...]
    created: bool
    """False when this very version was there already."""


def split_of(group: str) -> Split:
    """The split of a group: a stable hash, so that adding tracks never moves an old one."""
    number = int.from_bytes(hashlib.sha256(f"{SPLIT_SALT}:{group}".encode()).digest()[:8], "big") / 2**64
    return "validation" if number < VALIDATION_SHARE else "train"


def group_tracks(track_ids: Iterable[str], *, linked: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Track id -> group id: the connected components of `linked` pairs, named by their smallest track id."""
    parent = {track_id: track_id for track_id in track_ids}

    def root(track_id: str) -> str:
        while parent[track_id] != track_id:
            parent[track_id] = parent[parent[track_id]]
            track_id = parent[track_id]
        return track_id

    for first, second in linked:
        if first in parent and second in parent:
            low, high = sorted((root(first), root(second)))
            parent[high] = low
    return {track_id: root(track_id) for track_id in parent}


def assign_splits(groups: Mapping[str, str], *, recorded: Mapping[str, Split]) -> dict[str, Split]:
    """Split of every track; a group keeps the split that any of its members already has.

    Args:
        groups: track id -> group id.
        recorded: track id -> split in the latest dataset. Were two recorded groups to merge, validation wins: a track
            that was validated against is never trained on.
    """
    kept: dict[str, Split] = {}
    for track_id, split in recorded.items():
        group = groups.get(track_id)
        if group is not None:
            kept[group] = "validation" if "validation" in (split, kept.get(group)) else split
    return {track_id: kept.get(group) or split_of(group) for track_id, group in groups.items()}


def straddling_groups(splits: Mapping[str, Split], groups: Mapping[str, str]) -> list[str]:
    """Groups with tracks on both sides of the split; empty unless something is broken."""
    sides: dict[str, set[Split]] = {}
    for track_id, split in splits.items():
        sides.setdefault(groups[track_id], set()).add(split)
    return sorted(group for group, found in sides.items() if len(found) > 1)


def dataset_hash(candidates: Iterable[Candidate]) -> str:
    """Content hash: audio, prompt, lyrics, split, styles and source of every track, whatever the order of the files."""
    return _hash_rows([_hash_row(dump(c.track), c.audio_sha256, c.prompt, c.lyrics) for c in candidates])


def _hash_row(track: Mapping[str, Any], audio_sha256: str, prompt: str, lyrics: str) -> tuple[Any, ...]:
    stated = (track["split"], track["style_ids"], track["source_id"])
    return (track["track_id"], audio_sha256, prompt, lyrics, *stated)


def _hash_rows(rows: Iterable[tuple[Any, ...]]) -> str:
    return fingerprint("dataset-1", sorted(rows))


def style_distribution(tracks: Iterable[Track]) -> dict[str, int]:
    """Tracks per style category, by each track's first style."""
    counts = Counter(STYLE_PREFIXES[track.style_ids[0].partition("-")[0]] for track in tracks)
    return {category: counts.get(category, 0) for category in STYLE_COUNTS}


def build_dataset(store: Store, candidates: Sequence[Candidate], *, now: datetime) -> BuiltDataset:
    """Write the dataset version of `candidates`, unless it exists; then bring `final/` and `validation/` in line.

    An existing version is never touched: dataset folders are immutable and are named by their content hash.
    """
    ordered = sorted(candidates, key=lambda candidate: candidate.track.track_id)
    digest = dataset_hash(ordered)
    folder = store.datasets / f"lofi-{digest[:12]}"
    created = not folder.is_dir()
    if created:
        with atomic_folder(folder) as temporary:
            _write_version(temporary, ordered, digest=digest, now=now, name=folder.name)
    _publish_split_folders(store, ordered, folder)
    manifest = read_json(folder / "dataset.json")
    write_json(store.metadata("dataset_manifest.json"), manifest)
    return BuiltDataset(Dataset.model_validate(manifest), folder, tuple(c.track for c in ordered), created)


def _write_version(folder: Path, ordered: Sequence[Candidate], *, digest: str, now: datetime, name: str) -> None:
    for candidate in ordered:
        link_or_copy(candidate.audio, folder / "audio" / f"{candidate.track.track_id}.mp3")
        for kind, text in (("prompt", candidate.prompt), ("lyrics", candidate.lyrics)):
            (folder / "audio" / f"{candidate.track.track_id}_{kind}.txt").write_bytes(text.encode())
    tracks = [candidate.track for candidate in ordered]
    record = Dataset(
        dataset_id=name,
        created=now,
        track_count=len(tracks),
        train_count=sum(track.split == "train" for track in tracks),
        validation_count=sum(track.split == "validation" for track in tracks),
        total_duration=sum(track.duration for track in tracks) / 3600,
        style_distribution=style_distribution(tracks),  # type: ignore[arg-type]
        hash=digest,
    )
    write_json(folder / "dataset.json", dump(record))
    write_json(folder / "tracks.json", [dump(track) for track in tracks])
    for split in ("train", "validation"):
        if rows := [candidate for candidate in ordered if candidate.track.split == split]:
            _write_hugging_face(folder / split, rows, name=name)


def _write_hugging_face(folder: Path, rows: Sequence[Candidate], *, name: str) -> None:
    """One split in the columns that the public ACE-Step v1 trainer reads."""
    import datasets

    features = datasets.Features(
        {
            "keys": datasets.Value("string"),
            "filename": datasets.Value("string"),
            "tags": datasets.List(datasets.Value("string")),
            "speaker_emb_path": datasets.Value("string"),
            "norm_lyrics": datasets.Value("string"),
            "recaption": {},
        }
    )
    columns: dict[str, list[Any]] = {
        "keys": [row.track.track_id for row in rows],
        "filename": [f"dataset/{name}/audio/{row.track.track_id}.mp3" for row in rows],
        "tags": [row.prompt.split(", ") for row in rows],
        "speaker_emb_path": ["" for _ in rows],
        "norm_lyrics": [row.lyrics for row in rows],
        "recaption": [{} for _ in rows],
    }
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(folder)


def _publish_split_folders(store: Store, ordered: Sequence[Candidate], folder: Path) -> None:
    """Make `final/` and `validation/` show exactly this version; only names of the layout are removed."""
    for split, target in (("train", store.final), ("validation", store.validation)):
        wanted = {
            f"{candidate.track.track_id}{suffix}": folder / "audio" / f"{candidate.track.track_id}{suffix}"
            for candidate in ordered
            if candidate.track.split == split
            for suffix in (".mp3", "_prompt.txt", "_lyrics.txt")
        }
        target.mkdir(parents=True, exist_ok=True)
        for path in target.iterdir():
            if path.name not in wanted and path.name.endswith((".mp3", "_prompt.txt", "_lyrics.txt")):
                path.unlink()
        for name, source in wanted.items():
            link_or_copy(source, target / name)


def verify_dataset(folder: Path) -> bool:
    """Whether the files of a dataset version still hash to the recorded hash: they are read again, not assumed."""
    record = read_json(folder / "dataset.json", default={})
    rows = []
    for item in read_json(folder / "tracks.json", default=[]):
        stem = folder / "audio" / item["track_id"]
        paths = [stem.with_name(f"{stem.name}{suffix}") for suffix in (".mp3", "_prompt.txt", "_lyrics.txt")]
        if not all(path.is_file() for path in paths):
            return False
        prompt, lyrics = (path.read_bytes().decode("utf-8", errors="backslashreplace") for path in paths[1:])
        rows.append(_hash_row(item, sha256_file(paths[0]), prompt, lyrics))
    return _hash_rows(rows) == record.get("hash")


def recorded_splits(store: Store) -> dict[str, Split]:
    """Track id -> split in the current dataset version; empty before the first one."""
    manifest = read_json(store.metadata("dataset_manifest.json"), default={})
    tracks = read_json(store.datasets / manifest.get("dataset_id", "none") / "tracks.json", default=[])
    return {item["track_id"]: item.get("split", "train") for item in tracks}


def assemble(store: Store, *, now: datetime) -> Outcome:
    """The dataset of every accepted and tagged track whose source is verified today (see `build_dataset`)."""
    verified = {row["track_id"]: row["sha256"] for row in verified_sources(store)}
    prompts = {row["track_id"]: row for row in rows_of(store, PROMPTS) if row["status"] == "tagged"}
    rows = [row for row in accepted_tracks(store) if row["track_id"] in prompts]
    pairs = [(pair["a"], pair["b"]) for pair in read_json(store.metadata(DUPLICATES), default=[])]
    known = [row["track_id"] for row in rows_of(store, PROCESSED)]
    groups = group_tracks(known, linked=pairs)
    licensed = [row for row in rows if verified.get(row["track_id"]) == row["source_sha256"]]
    before = recorded_splits(store)
    splits = assign_splits({row["track_id"]: groups[row["track_id"]] for row in licensed}, recorded=before)
    candidates = [
        _candidate(store, row, prompts[row["track_id"]], groups[row["track_id"]], splits[row["track_id"]])
        for row in licensed
    ]
    built = build_dataset(store, candidates, now=now)
    durations = [track.duration for track in built.tracks]
    record = built.record
    return Outcome(
        data_version=record.hash,
        counts={
            "tracks": record.track_count,
            "train": record.train_count,
            "validation": record.validation_count,
            "left_out": len(rows) - len(licensed),
            "recomputed": int(built.created),
        },
        values={
            "unlicensed_tracks": sum(verified.get(c.track.track_id) is None for c in candidates),
            "train_count": record.train_count,
            "validation_count": record.validation_count,
            "straddling_groups": len(straddling_groups(splits, groups)),
            "tracks_out_of_range": sum(not MIN_SECONDS <= seconds <= MAX_SECONDS for seconds in durations),
            "hash_verified": verify_dataset(built.folder),
        },
        rows=[_shown(candidate) for candidate in candidates],
        details={
            "dataset_id": record.dataset_id,
            "hash": record.hash,
            "hours": record.total_duration,
            "style_distribution": dict(record.style_distribution),
            "changes": _changes(before, splits),
            "folder": str(built.folder),
        },
    )


def _candidate(store: Store, row: Mapping[str, Any], prompt: Mapping[str, Any], group: str, split: Split) -> Candidate:
    stem = row["audio_path"].removesuffix(".mp3")
    track = Track(
        track_id=row["track_id"],
        filename=f"{row['track_id']}.mp3",
        audio_path=row["audio_path"],
        prompt_path=f"{stem}_prompt.txt",
        lyrics_path=f"{stem}_lyrics.txt",
        duration=row["duration"],
        sample_rate=48000,
        quality_score=int(row["quality_score"]),
        style_ids=json.loads(prompt["style_ids"]),
        source_id=row["source_id"],
        split=split,
        audio_sha256=row["audio_sha256"],
        group=group,
    )
    return Candidate(
        track=track,
        audio=store.root / row["audio_path"],
        prompt=prompt["prompt"],
        lyrics=prompt["lyrics"],
        audio_sha256=row["audio_sha256"],
        group=group,
    )


def _shown(candidate: Candidate) -> dict[str, Any]:
    track = candidate.track
    return {
        "track_id": track.track_id,
        "split": track.split,
        "seconds": round(track.duration, 1),
        "styles": ", ".join(track.style_ids),
        "score": track.quality_score,
        "source": track.source_id,
        "prompt": candidate.prompt,
    }


def _changes(before: Mapping[str, Split], now: Mapping[str, Split]) -> dict[str, list[str]]:
    return {
        "added": sorted(now.keys() - before.keys()),
        "removed": sorted(before.keys() - now.keys()),
        "moved": sorted(key for key in now.keys() & before.keys() if now[key] != before[key]),
    }
