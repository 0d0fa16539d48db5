"""The card of a dataset version (`README.md`), and its statistics (`statistics.json`)."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic.dataclasses import dataclass as stored

from lofi_assets.files.typed import STORED, read_typed, write_typed
from lofi_assets.records import STYLE_COUNTS, STYLE_PREFIXES, Dataset, Split, StyleCategory, Track

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

SPLITS: tuple[Split, ...] = ("train", "validation")

BAR = 30
"""Characters of the longest bar of a histogram."""

LIMITS = """\
- Only what was licensed for AI training is here; the styles are those that could be licensed, not lofi as a whole.
- Prompts come from curators where they wrote any, else from an audio tagger, tempo and signal measures: what nobody
  verified can be wrong, and tempo can be off by an octave.
- Near-duplicates are found by sound (at most 15 % of the fingerprint's bits differ). Covers, remixes and songs made of
  the same sample pack may share material across the split.
- Loudness, tempo and score are measured, not corrected: the tracks peak alike and are not equally loud."""


@dataclass(frozen=True)
class Described:
    """A track with what the statistics count."""

    track: Track
    tempo_bpm: float | None = None
    loudness_lufs: float | None = None
    license_type: str = ""
    provider: str = ""
    attribution: str = ""


@stored(frozen=True, config=STORED)
class Side:
    """One side of the split."""

    tracks: int
    hours: float


@stored(frozen=True, config=STORED)
class Statistics:
    """`statistics.json` of a version: the same for the same tracks in any order. Histograms are tracks by interval."""

    tracks: int
    hours: float
    splits: Mapping[Split, Side]
    groups: int
    """Of near-duplicates and pieces of one file; a track without any is one."""
    human_verified: int
    """Tracks whose tags and audio a person verified."""
    categories: Mapping[StyleCategory, int]
    styles: Mapping[str, int]
    """Tracks by their first style."""
    tempo_bpm: Mapping[str, int]
    loudness_lufs: Mapping[str, int]
    quality_score: Mapping[str, int]
    duration_s: Mapping[str, int]
    licences: Mapping[str, int]
    providers: Mapping[str, int]
    attributions: Mapping[str, int]
    """Tracks by the text that their licence asks for; those that ask for none are left out."""

    @classmethod
    def read(cls, folder: Path) -> "Statistics | None":
        """Those of a version's folder; None if it has none.

        Raises:
            StoreError: they are broken, or of another version.
        """
        return read_typed(
            folder / _STATISTICS,
            cls,
            remedy="move the folder away and materialise dataset_manifest, which writes it again",
        )

    def write(self, folder: Path) -> None:
        """Write them into a version's folder."""
        write_typed(folder / _STATISTICS, self)


_STATISTICS = "statistics.json"


def write_card(folder: Path, record: Dataset, described: Sequence[Described]) -> None:
    """Write the card and the statistics of a version into its folder."""
    counted = statistics(described)
    counted.write(folder)
    (folder / "README.md").write_bytes(card_text(record, counted).encode())


def style_distribution(tracks: Iterable[Track]) -> dict[StyleCategory, int]:
    """Tracks per style category, by each track's first style."""
    counts = Counter(STYLE_PREFIXES[track.style_ids[0].partition("-")[0]] for track in tracks)
    return {category: counts.get(category, 0) for category in STYLE_COUNTS}


def statistics(described: Sequence[Described]) -> Statistics:
    """What is counted of the tracks of a version."""
    tracks = [item.track for item in described]
    sides: dict[Split, list[float]] = {
        split: [track.duration for track in tracks if track.split == split] for split in SPLITS
    }
    hours = {split: sum(durations) / 3600 for split, durations in sides.items()}
    return Statistics(
        tracks=len(tracks),
        hours=round(sum(hours.values()), 4),
        splits={split: Side(len(durations), round(hours[split], 4)) for split, durations in sides.items()},
        groups=len({track.group or track.track_id for track in tracks}),
        human_verified=sum(track.human_verified for track in tracks),
        categories=style_distribution(tracks),
        styles=_counted(track.style_ids[0] for track in tracks),
        tempo_bpm=histogram([item.tempo_bpm for item in described], width=5),
        loudness_lufs=histogram([item.loudness_lufs for item in described], width=2),
        quality_score=histogram([track.quality_score for track in tracks], width=10),
        duration_s=histogram([track.duration for track in tracks], width=30),
        licences=_counted(item.license_type or "unknown" for item in described),
        providers=_counted(item.provider or "unknown" for item in described),
        attributions=_counted(item.attribution for item in described if item.attribution),
    )


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


def card_text(record: Dataset, counted: Statistics) -> str:
    """The data card in the Hub's form: a function of the content hash and the statistics, with no date in it."""
    splits = [[name, side.tracks, f"{side.hours:.2f}"] for name, side in counted.splits.items()]
    whence = _bars("licence", counted.licences), _bars("provider", counted.providers)
    parts = {
        "What it is": f"{counted.tracks} tracks of lofi music, {counted.hours:.2f} hours, each with a prompt and "
        f"lyrics, to train ACE-Step v1 adapters. Version `{record.dataset_id}`, content hash `{record.hash}` over "
        "audio, prompts, lyrics, split, styles and sources; a version never changes.",
        "Split": f"{_table(['split', 'tracks', 'hours'], splits)}\n\n{_SPLIT.format(groups=counted.groups)}",
        "Styles": f"{_bars('category', counted.categories)}\n\n{_bars('style', counted.styles)}",
        "Tempo (bpm)": _bars("bpm", counted.tempo_bpm),
        "Loudness (LUFS)": _bars("LUFS", counted.loudness_lufs),
        "Score (0-100)": _bars("score", counted.quality_score),
        "Duration (s)": _bars("seconds", counted.duration_s),
        "Licences and providers": "\n\n".join(whence),
        "Attribution": "\n".join(f"- {_line(text)} ({n} tracks)" for text, n in counted.attributions.items())
        or "No licence of these tracks asks for any.",
        "How it was made": _MADE.format(verified=counted.human_verified, tracks=counted.tracks),
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


def _front_matter(counted: Statistics) -> str:
    licences = [name.lower().replace(" ", "-") for name in counted.licences]
    known = len(licences) == 1 and licences[0] in HUB_LICENCES
    files = [{"split": name, "path": f"{name}/*.arrow"} for name, side in counted.splits.items() if side.tracks]
    data: dict[str, Any] = {
        "pretty_name": "Lofi tracks for ACE-Step v1",
        "license": licences[0] if known else "other",
        **({} if known else {"license_name": "licensed-per-track", "license_link": "README.md"}),
        "task_categories": ["text-to-audio"],
        "tags": ["music", "lofi", "audio", "text-to-music", "ace-step"],
        "size_categories": [next((name for most, name in SIZES if counted.tracks < most), "n>1M")],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def _bars(name: str, counts: Mapping[Any, int]) -> str:
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
