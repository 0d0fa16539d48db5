"""Tracks -> an immutable, hashed dataset version (constitution II; data model, Dataset).

What belongs here: the split, the content hash, the training folders and the Hugging Face dataset in the columns that
the public ACE-Step trainer reads. What does not: the judgement of tracks (`audio/`) and prompts (`tagging.py`), and
what a version says of itself (`dataset_card.py`).
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from lofi_assets import dataset_card, dataset_report
from lofi_assets.dataset_card import SUFFIXES, Described, read_track, style_distribution, write_hugging_face
from lofi_assets.library import DUPLICATES, PROCESSED, PROMPTS, verified_sources
from lofi_assets.outcome import Outcome
from lofi_assets.records import Dataset, Split, Track, dump
from lofi_assets.states import advance
from lofi_assets.store import Store, StoreError, atomic_folder, fingerprint, link_or_copy, read_json, write_json

DATASET_VERSION = "2"
"""Raised when the layout of a dataset version changes."""

VALIDATION_SHARE = 0.10
"""Share of groups in the validation split (data model, Track)."""

MIN_SECONDS, MAX_SECONDS = 30.0, 180.0
"""What enters training (constitution, Audio Specifications)."""

SPLIT_SALT = "lofi-split-1"
"""Part of every split decision; changing it would move every track."""

FILE_HASHES = "dataset_files.json"
"""In the cache: hash of every audio file by size and time, so that an unchanged one is not read again."""


@dataclass(frozen=True)
class Candidate:
    """A processed and tagged track that may enter the dataset."""

    track: Track
    audio: Path
    prompt: str
    lyrics: str
    audio_sha256: str
    group: str
    """Near-duplicates and segments of one file share a group; a group never straddles the split."""
    measures: str = "{}"
    """JSON of what was measured, for the statistics."""
    license_type: str = ""
    provider: str = ""
    attribution: str = ""


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
        recorded: track id -> split in the latest dataset. Were a new track to bridge two recorded groups, validation
            wins: a track that was validated against is never trained on. The tracks that move from train then hold for
            checkpoints of the new version only; those of the old one have heard them, and the gate on checkpoints of
            another dataset keeps the two apart.
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
    return _hash_rows([_hash_row(_plain(c.track), c.audio_sha256, c.prompt, c.lyrics) for c in candidates])


def _plain(track: Track) -> dict[str, Any]:
    """As `records.dump` writes it; the schema comes from the model that already checked every field."""
    return track.model_dump(mode="json", exclude_none=True)


def _hash_row(track: Mapping[str, Any], audio_sha256: str, prompt: str, lyrics: str) -> tuple[Any, ...]:
    stated = (track["split"], track["style_ids"], track["source_id"])
    return (track["track_id"], audio_sha256, prompt, lyrics, *stated)


def _hash_rows(rows: Iterable[tuple[Any, ...]]) -> str:
    return fingerprint("dataset-1", sorted(rows))


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
            _write_version(temporary, ordered, digest=digest, now=now, name=folder.name, before=_current(store))
    _publish_split_folders(store, ordered, folder)
    manifest = read_json(folder / "dataset.json")
    write_json(store.metadata("dataset_manifest.json"), manifest)
    return BuiltDataset(Dataset.model_validate(manifest), folder, tuple(c.track for c in ordered), created)


def _write_version(
    folder: Path, ordered: Sequence[Candidate], *, digest: str, now: datetime, name: str, before: Path
) -> None:
    (folder / "audio").mkdir()
    for candidate in ordered:
        stem = candidate.track.track_id
        _link(candidate.audio, folder / "audio" / f"{stem}.mp3")
        for suffix, text in zip(SUFFIXES[1:], (candidate.prompt, candidate.lyrics), strict=True):
            _write_or_link(folder / "audio" / f"{stem}{suffix}", text.encode(), before / "audio" / f"{stem}{suffix}")
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
    write_json(folder / "tracks.json", [_plain(track) for track in tracks])
    for split in ("train", "validation"):
        if rows := [(c.track.track_id, c.prompt, c.lyrics) for c in ordered if c.track.split == split]:
            write_hugging_face(folder / split, rows)
    counted = dataset_card.statistics(
        [Described(c.track, json.loads(c.measures), c.license_type, c.provider, c.attribution) for c in ordered]
    )
    write_json(folder / "statistics.json", counted)
    (folder / "README.md").write_bytes(dataset_card.card_text(record, counted).encode())


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _write_or_link(target: Path, data: bytes, before: Path) -> None:
    """A text as in the version before is a link to it: an unchanged track costs a new version no space and no sync."""
    try:
        if before.read_bytes() == data:
            return _link(before, target)
    except OSError:
        pass
    target.write_bytes(data)


def _publish_split_folders(store: Store, ordered: Sequence[Candidate], folder: Path) -> None:
    """Make `final/` and `validation/` show exactly this version; only names of the layout are removed.

    A link shares its inode with the version's file, and listing a folder tells inodes: what is right already is not
    looked at again.
    """
    there = _inodes(folder / "audio")
    for split, target in (("train", store.final), ("validation", store.validation)):
        stems = [candidate.track.track_id for candidate in ordered if candidate.track.split == split]
        wanted = {f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES}
        target.mkdir(parents=True, exist_ok=True)
        here = _inodes(target)
        for name in here.keys() - wanted:
            if name.endswith(SUFFIXES):
                (target / name).unlink()
        for name in sorted(wanted & there.keys()):
            if here.get(name) != there[name]:
                link_or_copy(folder / "audio" / name, target / name)


def _inodes(folder: Path) -> dict[str, int]:
    with os.scandir(folder) as entries:
        return {entry.name: entry.inode() for entry in entries}


def verify_dataset(folder: Path, *, memory: dict[str, tuple[str, str]] | None = None) -> bool:
    """Whether the files of a dataset version still hash to the recorded hash.

    Args:
        memory: file name -> (size and time, sha256) of audio that was read before, brought up to date here. Without it
            every byte is read again.
    """
    record = read_json(folder / "dataset.json", default={})
    rows = []
    for item in read_json(folder / "tracks.json", default=[]):
        try:
            rows.append(_hash_row(item, *read_track(folder, item["track_id"], memory=memory)))
        except OSError:
            return False
    return _hash_rows(rows) == record.get("hash")


def _hash_verified(store: Store, folder: Path) -> bool:
    """`verify_dataset`, reading only audio that changed since it was last read; `lofi dataset verify` reads all."""
    path = store.cache / FILE_HASHES
    memory = {name: (stat, digest) for name, (stat, digest) in read_json(path, default={}).items()}
    before = dict(memory)
    verified = verify_dataset(folder, memory=memory)
    if memory != before:
        write_json(path, memory)
    return verified


def recorded_splits(store: Store) -> dict[str, Split]:
    """Track id -> split in the current dataset version; empty before the first one."""
    tracks = read_json(_current(store) / "tracks.json", default=[])
    return {item["track_id"]: item.get("split", "train") for item in tracks}


def _current(store: Store) -> Path:
    manifest = read_json(store.metadata("dataset_manifest.json"), default={})
    return store.datasets / str(manifest.get("dataset_id"))


def linked_tracks(rows: Sequence[Mapping[str, Any]], pairs: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Pairs that share a group: near-duplicates down to the review band, and whatever comes from one raw file."""
    yield from ((pair["a"], pair["b"]) for pair in pairs)
    first: dict[str, str] = {}
    for row in rows:
        for origin in filter(None, (row["raw_path"], row["source_sha256"])):
            yield first.setdefault(origin, row["track_id"]), row["track_id"]


def assemble(store: Store, *, now: datetime) -> Outcome:
    """The dataset of every accepted and tagged track whose source is verified today (see `build_dataset`)."""
    verified = {row["track_id"]: row for row in verified_sources(store)}
    prompts = {row["track_id"]: row for row in _rows(store, PROMPTS, *_PROMPT) if row["status"] == "tagged"}
    known = _rows(store, PROCESSED, *_TRACK)
    rows = [row for row in known if row["status"] == "accepted" and row["track_id"] in prompts]
    licensed = [row for row in rows if verified.get(row["track_id"], {}).get("sha256") == row["source_sha256"]]
    pairs = read_json(store.metadata(DUPLICATES), default=[])
    groups = group_tracks((row["track_id"] for row in known), linked=linked_tracks(known, pairs))
    before = recorded_splits(store)
    splits = assign_splits({row["track_id"]: groups[row["track_id"]] for row in licensed}, recorded=before)
    candidates = [
        _candidate(store, verified[key] | row, prompts[key], groups[key], splits[key])
        for row, key in ((row, row["track_id"]) for row in licensed)
    ]
    built = build_dataset(store, candidates, now=now)
    durations = [track.duration for track in built.tracks]
    record = built.record
    left_out = sorted({row["track_id"] for row in rows} - splits.keys())
    return Outcome(
        data_version=record.hash,
        counts={
            "tracks": record.track_count,
            "train": record.train_count,
            "validation": record.validation_count,
            "left_out": len(left_out),
            "recomputed": int(built.created),
        },
        values={
            "unlicensed_tracks": sum(verified.get(c.track.track_id) is None for c in candidates),
            "train_count": record.train_count,
            "validation_count": record.validation_count,
            "straddling_groups": len(straddling_groups(splits, groups)),
            "tracks_out_of_range": sum(not MIN_SECONDS <= seconds <= MAX_SECONDS for seconds in durations),
            "hash_verified": _hash_verified(store, built.folder),
        },
        rows=[_shown(candidate) for candidate in candidates],
        **dataset_report.about(record, before=before, splits=splits, left_out=left_out),
    )


_PROMPT = ("track_id", "status", "state", "prompt", "lyrics", "style_ids")
_AUDIO = ("audio_sha256", "audio_path", "raw_path", "duration", "quality_score", "measures")
_TRACK = ("track_id", "status", "source_id", "source_sha256", *_AUDIO)


def _rows(store: Store, name: str, *columns: str) -> list[dict[str, Any]]:
    """Some columns of a table: fingerprints and envelopes are most of `processed_tracks.parquet`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = store.metadata(name)
    try:
        present = pq.read_schema(path).names
        table = pq.read_table(path, columns=list(columns)) if present else None
    except FileNotFoundError:
        return []
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{path}: not a Parquet table ({error}); remove it, the next run writes it anew") from error
    return table.to_pylist() if table else []


def _candidate(store: Store, row: Mapping[str, Any], prompt: Mapping[str, Any], group: str, split: Split) -> Candidate:
    stem = row["audio_path"].removesuffix(".mp3")
    track = Track(
        **{name: row[name] for name in ("track_id", "duration", "source_id", "audio_sha256")},
        filename=f"{row['track_id']}.mp3",
        audio_path=row["audio_path"],
        prompt_path=f"{stem}_prompt.txt",
        lyrics_path=f"{stem}_lyrics.txt",
        sample_rate=48000,
        quality_score=int(row["quality_score"]),
        style_ids=json.loads(prompt["style_ids"]),
        split=split,
        group=group,
        human_verified=prompt["state"] == "VERIFIED",
        state=advance(prompt["state"], "TRAINING_READY"),
    )
    return Candidate(
        track=track,
        audio=store.root / row["audio_path"],
        prompt=prompt["prompt"],
        lyrics=prompt["lyrics"],
        **{name: row[name] for name in ("audio_sha256", "measures", "license_type", "provider", "attribution")},
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
