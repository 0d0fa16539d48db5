"""A dataset version as others read it: the card and its statistics, the rows of the public trainer, what differs.

What belongs here: everything that is told of a version, and a copy of it for a trainer. What does not: which tracks are
in it, their split and the content hash (`dataset.py`).
"""

import errno
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lofi_assets.errors import LofiError
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.hashing import fingerprint, sha256_file
from lofi_assets.files.writing import atomic_folder, copy_file
from lofi_assets.lyrics.text import without_language
from lofi_assets.records import STYLE_COUNTS, STYLE_PREFIXES, Dataset, Track
from lofi_assets.store import Store

SUFFIXES = (".mp3", "_prompt.txt", "_lyrics.txt")
"""The files of a track, in the form that ACE-Step's converter reads."""

DATA_FILE = "data-00000-of-00001.arrow"
HUB_LICENCES = frozenset(
    {
        "cc0-1.0",
        "cc-by-4.0",
        "cc-by-3.0",
        "cc-by-2.0",
        "cc-by-sa-4.0",
        "cc-by-sa-3.0",
        "cc-by-nd-4.0",
        "mit",
        "apache-2.0",
    }
)
"""Licences that the Hub's metadata has a name for; everything else is "other"."""

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))

BAR = 30
"""Characters of the longest bar of a histogram."""

LIMITS = """\
- Only what was licensed for AI training is here; the styles are those that could be licensed, not lofi as a whole.
- Prompts come from curators where they wrote any, else from an audio tagger, tempo and signal measures: what nobody
  verified can be wrong, and tempo can be off by an octave.
- Near-duplicates are found by sound (at most 15 % of the fingerprint's bits differ). Covers, remixes and songs made of
  the same sample pack may share material across the split.
- Loudness, tempo and score are measured, not corrected: the tracks peak alike and are not equally loud."""


class DatasetError(LofiError, ValueError):
    """A dataset version cannot be found or copied; the message says which, and what to do."""


@dataclass(frozen=True)
class Described:
    """A track with what the statistics count."""

    track: Track
    measures: Mapping[str, Any]
    """Measures of `processed_tracks.parquet`: `tempo_bpm`, `loudness_lufs`."""
    license_type: str = ""
    provider: str = ""
    attribution: str = ""


def style_distribution(tracks: Iterable[Track]) -> dict[str, int]:
    """Tracks per style category, by each track's first style."""
    counts = Counter(STYLE_PREFIXES[track.style_ids[0].partition("-")[0]] for track in tracks)
    return {category: counts.get(category, 0) for category in STYLE_COUNTS}


def statistics(described: Sequence[Described]) -> dict[str, Any]:
    """What `statistics.json` holds: the same for the same tracks in any order."""
    tracks = [item.track for item in described]
    hours = {split: sum(t.duration for t in tracks if t.split == split) / 3600 for split in ("train", "validation")}
    return {
        "tracks": len(tracks),
        "hours": round(sum(hours.values()), 4),
        "splits": {
            split: {"tracks": sum(t.split == split for t in tracks), "hours": round(hours[split], 4)} for split in hours
        },
        "groups": len({track.group or track.track_id for track in tracks}),
        "human_verified": sum(track.human_verified for track in tracks),
        "categories": style_distribution(tracks),
        "styles": _counted(track.style_ids[0] for track in tracks),
        "tempo_bpm": histogram([item.measures.get("tempo_bpm") for item in described], width=5),
        "loudness_lufs": histogram([item.measures.get("loudness_lufs") for item in described], width=2),
        "quality_score": histogram([track.quality_score for track in tracks], width=10),
        "duration_s": histogram([track.duration for track in tracks], width=30),
        "licences": _counted(item.license_type or "unknown" for item in described),
        "providers": _counted(item.provider or "unknown" for item in described),
        "attributions": _counted(item.attribution for item in described if item.attribution),
    }


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def histogram(values: Iterable[float | None], *, width: int) -> dict[str, int]:
    """Tracks per interval `[low, low + width)` as "low to high", empty ones between others too; "unknown" last."""
    measured = list(values)
    counts = Counter(int(value // width) * width for value in measured if value is not None)
    lows = range(min(counts), max(counts) + width, width) if counts else range(0)
    rows = {f"{low} to {low + width}": counts.get(low, 0) for low in lows}
    unknown = sum(value is None for value in measured)
    return rows | ({"unknown": unknown} if unknown else {})


def card_text(record: Dataset, counted: Mapping[str, Any]) -> str:
    """The data card in the Hub's form: a function of the content hash and the statistics, with no date in it."""
    splits = [[name, n["tracks"], f"{n['hours']:.2f}"] for name, n in counted["splits"].items()]
    whence = _bars("licence", counted["licences"]), _bars("provider", counted["providers"])
    parts = {
        "What it is": f"{counted['tracks']} tracks of lofi music, {counted['hours']:.2f} hours, each with a prompt and "
        f"lyrics, to train ACE-Step v1 adapters. Version `{record.dataset_id}`, content hash `{record.hash}` over "
        "audio, prompts, lyrics, split, styles and sources; a version never changes.",
        "Split": f"{_table(['split', 'tracks', 'hours'], splits)}\n\n{_SPLIT.format(groups=counted['groups'])}",
        "Styles": f"{_bars('category', counted['categories'])}\n\n{_bars('style', counted['styles'])}",
        "Tempo (bpm)": _bars("bpm", counted["tempo_bpm"]),
        "Loudness (LUFS)": _bars("LUFS", counted["loudness_lufs"]),
        "Score (0-100)": _bars("score", counted["quality_score"]),
        "Duration (s)": _bars("seconds", counted["duration_s"]),
        "Licences and providers": "\n\n".join(whence),
        "Attribution": "\n".join(f"- {_line(text)} ({n} tracks)" for text, n in counted["attributions"].items())
        or "No licence of these tracks asks for any.",
        "How it was made": _MADE.format(verified=counted["human_verified"], tracks=counted["tracks"]),
        "How to load it": _USE,
        "Known limits": LIMITS,
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in parts.items())
    return f"---\n{_front_matter(counted)}---\n\n# Lofi tracks, {record.dataset_id}\n\n{body}\n"


_SPLIT = """\
A tenth of the {groups} groups validates, at least one of two, chosen by a hash of the group's name and kept from then
on, so that new tracks never move old ones. Near-duplicates and pieces of one file form a group, and a group lies on one
side."""

_MADE = """\
Every file was matched with a licence record that permits AI training, decoded, measured and judged on its own samples,
resampled to 48 kHz stereo, normalised to a peak of -1 dBFS, encoded as 320 kbps MP3 and verified by decoding it again.
Copies (re-encoded, re-levelled, filtered, trimmed) were found by acoustic fingerprint; one of each was kept. Prompts
are canonical tags in a fixed order of categories. A person verified tags and audio of {verified} of {tracks} tracks."""

_USE = """\
`datasets.load_from_disk("train")` gives the columns that ACE-Step's trainer reads; `filename` is relative to this
folder, so start that trainer from here, or let `lofi dataset export DIR --absolute` write a copy that works from
anywhere. The same tracks lie in `audio/` as `<id>.mp3`, `<id>_prompt.txt` and `<id>_lyrics.txt`."""


def _front_matter(counted: Mapping[str, Any]) -> str:
    licences = [name.lower().replace(" ", "-") for name in counted["licences"]]
    known = len(licences) == 1 and licences[0] in HUB_LICENCES
    files = [{"split": s, "path": f"{s}/*.arrow"} for s, n in counted["splits"].items() if n["tracks"]]
    data: dict[str, Any] = {
        "pretty_name": "Lofi tracks for ACE-Step v1",
        "license": licences[0] if known else "other",
        **({} if known else {"license_name": "licensed-per-track", "license_link": "README.md"}),
        "task_categories": ["text-to-audio"],
        "tags": ["music", "lofi", "audio", "text-to-music", "ace-step"],
        "size_categories": [next((name for most, name in SIZES if counted["tracks"] < most), "n>1M")],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def _bars(name: str, counts: Mapping[str, int]) -> str:
    most = max(counts.values(), default=0)
    if not most:
        return "Not measured."
    lengths = {key: round(BAR * n / most) for key, n in counts.items()}
    return _table([name, "tracks", ""], [[key, n, "#" * lengths[key]] for key, n in counts.items()])


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(_line(str(cell)) for cell in line)} |" for line in lines)


def _line(text: str) -> str:
    """Text from a licence record on one line, unable to break out of its table or list."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


# --- what the public trainer reads -----------------------------------------------------------------------------------


def write_hugging_face(
    folder: Path, rows: Sequence[tuple[str, str, str]], *, audio: str = "audio", repeat_count: int = 1
) -> None:
    """Write (track id, prompt, lyrics) in the columns that the public ACE-Step v1 trainer reads, for `load_from_disk`.

    Written with pyarrow rather than `datasets`: that trainer pins datasets 3.4.1, which refuses what 4 and 5 write (a
    feature of type List), while all of them read this. The same rows give the same bytes.

    Args:
        audio: what `filename` starts with; the trainer opens it as given, from its working directory.
        repeat_count: the one data file is listed so many times, which costs a line each.
    """
    import pyarrow as pa

    text = pa.string()
    columns = {"keys": text, "filename": text, "tags": pa.list_(text), "speaker_emb_path": text, "norm_lyrics": text}
    schema = pa.schema([*columns.items(), ("recaption", pa.struct([]))])
    items = [
        {"keys": key, "filename": f"{audio}/{key}.mp3", "tags": prompt.split(", ")}
        | {"norm_lyrics": without_language(lyrics), "speaker_emb_path": "", "recaption": {}}
        for key, prompt, lyrics in rows
    ]
    folder.mkdir(parents=True)
    with pa.ipc.new_stream(str(folder / DATA_FILE), schema) as file:
        file.write_table(pa.Table.from_pylist(items, schema=schema), max_chunksize=1000)
    value = {"dtype": "string", "_type": "Value"}
    features: dict[str, Any] = dict.fromkeys(columns, value) | {"tags": {"feature": value, "_type": "Sequence"}}
    write_json(folder / "dataset_info.json", {"features": features | {"recaption": {}}})
    state: dict[str, Any] = {
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
    }
    files = [{"filename": DATA_FILE}] * repeat_count
    identity = fingerprint(audio, repeat_count, rows)[:16]
    write_json(folder / "state.json", {"_data_files": files, "_fingerprint": identity, **state, "_split": None})


def export_dataset(
    version: Path, target: Path, *, split: str = "train", repeat_count: int = 1, absolute: bool = False
) -> int:
    """Write a trainer-ready copy of one split, which shares nothing with the version; returns the number of tracks.

    `target/dataset` is what the public trainer loads, `target/audio` what its converter reads.

    Args:
        absolute: write `filename` as an absolute path, for a trainer that is started from anywhere; else it is relative
            to `target`.

    Raises:
        DatasetError: the target is not empty, the split is, or the version lacks a file.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DatasetError(f"{target}: is not an empty folder; name another")
    tracks = [item for item in read_json(version / "tracks.json", default=[]) if item.get("split") == split]
    if not tracks or repeat_count < 1:
        raise DatasetError(f"{version}: {len(tracks)} tracks in {split}, {repeat_count} times: nothing to export")
    target = target.resolve()
    with atomic_folder(target) as folder:
        rows = []
        for key in (item["track_id"] for item in tracks):
            try:
                copy_file(version / "audio" / f"{key}.mp3", folder / "audio" / f"{key}.mp3")
                prompt, lyrics = read_texts(version, key)
            except OSError as error:
                raise DatasetError(f"{error.filename}: is missing; run: lofi dataset verify {version.name}") from error
            for suffix, text in zip(SUFFIXES[1:], (prompt, without_language(lyrics)), strict=True):
                (folder / "audio" / f"{key}{suffix}").write_bytes(text.encode())
            rows.append((key, prompt, lyrics))
        audio = (target / "audio").as_posix() if absolute else "audio"
        write_hugging_face(folder / "dataset", rows, audio=audio, repeat_count=repeat_count)
    return len(tracks)


# --- what a version holds, read from its files -----------------------------------------------------------------------


def find_version(store: Store, name: str = "") -> Path:
    """Folder of a dataset version by its id or the beginning of it, with or without `lofi-`; the current one for "".

    Raises:
        DatasetError: none, or more than one.
    """
    name = name or read_json(store.metadata("dataset_manifest.json"), default={}).get("dataset_id", "none")
    known = versions(store)
    found = [folder for folder in known if folder.name == name] or [
        folder for folder in known if folder.name.removeprefix("lofi-").startswith(name.removeprefix("lofi-"))
    ]
    if len(found) != 1:
        there = ", ".join(folder.name for folder in known) or "none; materialise dataset_manifest"
        raise DatasetError(f"{store.datasets}: {len(found)} versions are named {name!r}; there are: {there}")
    return found[0]


def versions(store: Store) -> list[Path]:
    """Folders of all dataset versions, by name."""
    return sorted(path.parent for path in store.datasets.glob("lofi-*/dataset.json"))


def read_track(folder: Path, track_id: str, *, sha256: Callable[[Path], str] = sha256_file) -> tuple[str, str, str]:
    """sha256 of the audio, prompt and lyrics of a track of a version.

    Args:
        sha256: of a file; the default reads it.

    Raises:
        OSError: a file is missing.
    """
    audio = folder / "audio" / f"{track_id}.mp3"
    digest = sha256(audio)
    if not digest:
        raise FileNotFoundError(errno.ENOENT, "is missing", str(audio))
    return digest, *read_texts(folder, track_id)


def read_texts(folder: Path, track_id: str) -> tuple[str, str]:
    """Prompt and lyrics of a track of a version; bytes that are not UTF-8 are shown as such.

    Raises:
        OSError: a file is missing.
    """
    texts = ((folder / "audio" / f"{track_id}{suffix}").read_bytes() for suffix in SUFFIXES[1:])
    prompt, lyrics = (text.decode("utf-8", errors="backslashreplace") for text in texts)
    return prompt, lyrics


def dataset_faults(folder: Path, *, sha256: Callable[[Path], str] = sha256_file) -> list[str]:
    """Files of a version that are missing or are not what its records say; `sha256` as in `read_track`."""
    record = read_json(folder / "dataset.json", default={})
    tracks = read_json(folder / "tracks.json")
    if tracks is None or folder.name != f"lofi-{str(record.get('hash'))[:12]}":
        return [f"{folder}: dataset.json or tracks.json is missing, or the folder was renamed"]
    rows = {key: row for split in ("train", "validation") for key, row in _trainer_rows(folder / split).items()}
    faults = []
    for item in tracks:
        stem = folder / "audio" / item["track_id"]
        row = rows.pop(stem.name, None)
        try:
            digest, prompt, lyrics = read_track(folder, item["track_id"], sha256=sha256)
        except OSError as error:
            faults.append(f"{error.filename}: is missing")
            continue
        if digest != item.get("audio_sha256", digest):
            faults.append(f"{stem}.mp3: is not the audio that tracks.json records")
        told = (f"{stem.name}.mp3", item["split"], prompt.split(", "), without_language(lyrics))
        if row != told:
            faults.append(f"{stem}_prompt.txt, _lyrics.txt: differ from the row in {item['split']}/")
    return [*faults, *(f"{folder}: the trainer's rows have {key}, tracks.json has not" for key in sorted(rows))]


def _trainer_rows(folder: Path) -> dict[str, tuple[str, str, list[str], str]]:
    import pyarrow as pa

    if not (folder / DATA_FILE).is_file():
        return {}
    with pa.ipc.open_stream(str(folder / DATA_FILE)) as file:
        items = file.read_all().to_pylist()
    return {
        item["keys"]: (Path(item["filename"]).name, folder.name, item["tags"], item["norm_lyrics"]) for item in items
    }


def difference(before: Path, after: Path) -> dict[str, Any]:
    """What changed from one version to another: tracks by id, each changed field as [before, after]."""
    sides = [_contents(folder) for folder in (before, after)]
    first, second = sides
    common = sorted(first.keys() & second.keys())
    changed = {
        field: {
            key: [first[key][field], second[key][field]] for key in common if first[key][field] != second[key][field]
        }
        for field in ("split", "prompt", "lyrics", "audio", "style_ids", "source_id")
    }
    styles = [Counter(track["style_ids"][0] for track in side.values()) for side in sides]
    return {
        "versions": [before.name, after.name],
        "tracks": [len(side) for side in sides],
        "hours": [round(sum(track["duration"] for track in side.values()) / 3600, 4) for side in sides],
        "splits": {
            split: [sum(track["split"] == split for track in side.values()) for side in sides]
            for split in ("train", "validation")
        },
        "styles": {name: [n[name] for n in styles] for name in sorted(styles[0] | styles[1])},
        "added": sorted(second.keys() - first.keys()),
        "removed": sorted(first.keys() - second.keys()),
        "changed": changed,
    }


def _contents(folder: Path) -> dict[str, dict[str, Any]]:
    contents = {}
    for item in read_json(folder / "tracks.json", default=[]):
        try:
            texts = dict(zip(("prompt", "lyrics"), read_texts(folder, item["track_id"]), strict=True))
        except OSError as error:
            raise DatasetError(f"{error.filename}: is missing; run: lofi dataset verify {folder.name}") from error
        contents[item["track_id"]] = item | texts | {"audio": item.get("audio_sha256")}
    return contents
