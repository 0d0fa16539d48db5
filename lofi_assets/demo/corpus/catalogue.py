"""What is in the demo corpus: 24 songs, their 24 B sides, eight planted faults, and the licence records over them.

Artists and agreements are invented; the audio is synthesised here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from lofi_assets.audio.synth.grooves import Drums
from lofi_assets.audio.synth.instruments import Name
from lofi_assets.audio.synth.song import Mode, Song

Fault = Literal["clipped", "mostly_silent", "truncated", "near_duplicate"]
Folder = Literal["commissioned", "royalty-free", "creative-commons", "partnerships"]

LEDGER = "metadata/demo_corpus.json"


@dataclass(frozen=True)
class Entry:
    """One raw file of the corpus.

    Attributes:
        format: file suffix and libsndfile subtype, e.g. ("flac", "PCM_24"); ("mp3", "") is 320 kbit/s.
        source_id: the SourceRecord that claims it; None leaves it unclaimed.
        prompt, lyrics: text of the curator's sidecars, None where the curator left none.
        fault: what is done to the finished song.
        expected_rule: id of the gate that must reject it; None if it must be accepted.
        copy_of: for a near-duplicate, the track it copies.
    """

    track_id: str
    song: Song
    folder: Folder
    format: tuple[str, str]
    source_id: str | None
    style_id: str
    prompt: str | None = None
    lyrics: str | None = None
    fault: Fault | None = None
    expected_rule: str | None = None
    copy_of: str | None = None

    @property
    def path(self) -> str:
        """Relative to the data root."""
        return f"raw/{self.folder}/{self.track_id}.{self.format[0]}"


@dataclass(frozen=True)
class _Source:
    folder: Folder
    record: dict[str, Any]


_RIGHTS = {
    "ai_training_rights": True,
    "verified_by": "lofi demo-corpus",
    "evidence": LEDGER,
    "notes": "Artist and agreement are invented; the audio is synthesised by lofi_assets.demo.corpus.",
}
SOURCES: dict[str, _Source] = {
    source_id: _Source(folder, {"source_id": source_id, **fields, **_RIGHTS})  # type: ignore[arg-type]
    for source_id, folder, fields in (
        (
            "demo-commission-01",
            "commissioned",
            {
                "source_type": "commissioned",
                "provider": "Demo artist Mira Holm",
                "license_type": "Work for hire (AI training)",
                "cost": 240.0,
                "date_acquired": "2025-03-01",
            },
        ),
        (
            "demo-library-01",
            "royalty-free",
            {
                "source_type": "royalty_free",
                "provider": "Demo library Quiet Shelf",
                "license_type": "Royalty-free with AI training rights",
                "cost": 49.0,
                "date_acquired": "2025-04-12",
            },
        ),
        (
            "demo-cc-by-01",
            "creative-commons",
            {
                "source_type": "creative_commons",
                "provider": "Demo artist Jun Okabe",
                "license_type": "CC BY 4.0",
                "date_acquired": "2025-05-20",
                "attribution": "Demo tracks by Jun Okabe, CC BY 4.0",
            },
        ),
        (
            "demo-cc0-01",
            "creative-commons",
            {
                "source_type": "creative_commons",
                "provider": "Demo collective Open Loft",
                "license_type": "CC0 1.0",
                "date_acquired": "2025-05-21",
            },
        ),
        (
            "demo-partner-01",
            "partnerships",
            {
                "source_type": "partnership",
                "provider": "Demo label Paper Lantern",
                "license_type": "Partnership agreement (AI training)",
                "date_acquired": "2025-06-02",
            },
        ),
        (
            "demo-denied-01",
            "creative-commons",
            {
                "source_type": "creative_commons",
                "provider": "Demo artist who keeps commercial rights",
                "license_type": "CC BY-NC-ND 4.0",
                "date_acquired": "2025-06-03",
            },
        ),
        (
            "demo-future-01",
            "partnerships",
            {
                "source_type": "partnership",
                "provider": "Demo label that has not signed yet",
                "license_type": "Partnership agreement (AI training)",
                "date_acquired": "2999-12-31",
            },
        ),
    )
}


def _song(
    bpm: float,
    key: int,
    mode: Mode,
    seconds: float,
    rate: int,
    chords: Name,
    lead: Name | None,
    drums: Drums,
    **more: Any,
) -> Song:
    return Song(0, bpm, key, mode, seconds, rate, chords=chords, lead=lead, drums=drums, **more)


_WAV, _WAV24, _WAVF = ("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "FLOAT")
_FLAC, _FLAC24, _AIFF, _MP3 = ("flac", "PCM_16"), ("flac", "PCM_24"), ("aiff", "PCM_16"), ("mp3", "")
_MIRA, _SHELF, _JUN, _LOFT, _LABEL = (
    "demo-commission-01",
    "demo-library-01",
    "demo-cc-by-01",
    "demo-cc0-01",
    "demo-partner-01",
)
_INSTRUMENTAL = "[Instrumental]"
FASTEST_BPM = 96
B_SIDE_SECONDS = 42.0
"""Longest B side: enough for a crop as long as what is sampled."""
# fmt: off
# track id, source, style, format, song, curator's prompt, curator's lyrics
_SONGS: tuple[tuple[str, str, str, tuple[str, str], Song, str | None, str | None], ...] = (
    ("rainy_window_01", _MIRA, "SEASON-06", _WAV,
     _song(74, 0, "minor", 58, 44_100, "rhodes", "vibes", "boom_bap", rain_dbfs=-38.0),
     "lofi, chill, rhodes, 74 bpm, vinyl crackle, rainy window", _INSTRUMENTAL),
    ("rainy_window_02", _MIRA, "SEASON-06", _FLAC,
     _song(66, 5, "minor", 48, 48_000, "piano", None, "half_time", rain_dbfs=-40.0),
     None, None),
    ("late_night_study_01", _MIRA, "THEME-01", _MP3,
     _song(76, 7, "major", 45, 48_000, "rhodes", "guitar", "boom_bap"),
     "lofi hip hop, focused, rhodes, guitar, 76 bpm, tape hiss, study session", _INSTRUMENTAL),
    ("late_night_study_02", _SHELF, "THEME-01", _WAV24,
     _song(82, 2, "dorian", 42, 44_100, "rhodes", "vibes", "half_time", channels=1),
     None, None),
    ("dusty_crate_01", _SHELF, "CORE-04", _WAV,
     _song(90, 9, "minor", 40, 44_100, "piano", "guitar", "boom_bap", crackles_per_s=12.0, cutoff_hz=5_000.0),
     "boom bap, nostalgic, piano, drums, 90 bpm, vinyl crackle, dusty", None),
    ("dusty_crate_02", _SHELF, "CORE-04", _FLAC,
     _song(94, 4, "minor", 38, 32_000, "rhodes", None, "boom_bap", crackles_per_s=14.0, cutoff_hz=4_500.0),
     None, None),
    ("sunday_rhodes_01", _LABEL, "CORE-01", _WAVF,
     _song(78, 3, "major", 46, 48_000, "rhodes", "flute", "boom_bap"),
     "lofi hip hop, mellow, rhodes, flute, 78 bpm, warm, sunday morning", _INSTRUMENTAL),
    ("sunday_rhodes_02", _LABEL, "CORE-01", _FLAC24,
     _song(84, 10, "major", 44, 96_000, "rhodes", "guitar", "half_time"),
     None, None),
    ("coffee_corner_01", _JUN, "THEME-03", _MP3,
     _song(88, 5, "major", 50, 48_000, "guitar", "vibes", "brushes", swing=0.64),
     "jazzhop, cozy, guitar, vibraphone, 88 bpm, warm, coffee shop", None),
    ("coffee_corner_02", _JUN, "THEME-03", _WAV,
     _song(96, 0, "major", 40, 44_100, "piano", "vibes", "brushes", swing=0.62, channels=1),
     None, None),
    ("jazz_cellar_01", _JUN, "CORE-03", _AIFF,
     _song(80, 7, "dorian", 47, 44_100, "piano", "vibes", "brushes", swing=0.66),
     None, None),
    ("vibraphone_dream_01", _LABEL, "INST-02", _FLAC,
     _song(70, 8, "major", 52, 44_100, "rhodes", "vibes", "half_time"),
     "lofi, dreamy, rhodes, vibraphone, 70 bpm, tape wobble", None),
    ("felt_keys_01", _MIRA, "INST-01", _WAV24,
     _song(64, 1, "minor", 50, 48_000, "piano", "piano", "none", cutoff_hz=4_000.0),
     "lofi, melancholic, felt piano, 64 bpm, soft, bedroom", _INSTRUMENTAL),
    ("felt_keys_02", _MIRA, "INST-01", _FLAC,
     _song(68, 11, "minor", 41, 44_100, "piano", "piano", "brushes", cutoff_hz=4_500.0, channels=1),
     None, None),
    ("nylon_garden_01", _LOFT, "INST-03", _WAV,
     _song(86, 4, "major", 43, 44_100, "guitar", "guitar", "half_time"),
     None, None),
    ("kalimba_rain_01", _LOFT, "INST-07", _MP3,
     _song(92, 2, "major", 37, 48_000, "pad", "kalimba", "boom_bap", rain_dbfs=-42.0),
     None, None),
    ("autumn_walk_01", _LOFT, "SEASON-05", _FLAC,
     _song(75, 9, "dorian", 45, 48_000, "rhodes", "guitar", "brushes"),
     None, None),
    ("winter_fire_01", _LABEL, "SEASON-08", _WAV,
     _song(62, 6, "minor", 54, 32_000, "rhodes", "piano", "half_time", crackles_per_s=9.0),
     "lofi, cozy, rhodes, piano, 62 bpm, vinyl crackle, fireplace", None),
    ("spring_bloom_01", _SHELF, "SEASON-01", _MP3,
     _song(87, 9, "major", 42, 48_000, "guitar", "flute", "boom_bap"),
     None, None),
    ("cherry_path_01", _SHELF, "SEASON-02", _AIFF,
     _song(72, 4, "minor", 39, 44_100, "guitar", "kalimba", "half_time", channels=1),
     None, None),
    ("space_drift_01", _LOFT, "THEME-08", _WAV24,
     _song(65, 2, "minor", 60, 96_000, "pad", None, "none", hiss_dbfs=-62.0),
     None, None),
    ("zen_garden_01", _LOFT, "THEME-06", _FLAC,
     _song(63, 0, "dorian", 44, 44_100, "pad", "kalimba", "none"),
     None, None),
    ("slow_haze_01", _LABEL, "CORE-05", _WAV,
     _song(67, 10, "minor", 46, 44_100, "pad", "vibes", "half_time", wow=0.0025),
     None, None),
    ("golden_hour_01", _JUN, "CORE-02", _MP3,
     _song(89, 11, "major", 45, 48_000, "rhodes", "flute", "boom_bap"),
     None, None),
)
# fmt: on


def catalogue(*, seed: int) -> tuple[Entry, ...]:
    """Every file of the corpus, good ones first; another seed plays other notes in the same keys and tempi."""
    good = tuple(
        Entry(
            track_id=track_id,
            song=replace(song, seed=1_000 * seed + index),
            folder=SOURCES[source_id].folder,
            format=file_format,
            source_id=source_id,
            style_id=style_id,
            prompt=prompt,
            lyrics=lyrics,
        )
        for index, (track_id, source_id, style_id, file_format, song, prompt, lyrics) in enumerate(_SONGS)
    )
    b_sides = tuple(_b_side(entry, seed=entry.song.seed + 100) for entry in good)
    return good + b_sides + _rejects(good, seed=1_000 * seed + 500)


def _b_side(entry: Entry, *, seed: int) -> Entry:
    """The same band again: other notes, a fourth up, a little faster or slower, and no words beside it.

    Its drums play from the first bar, also where the A side has none: otherwise most slow tracks would open without a
    beat, and a LoRA would learn that slow means none.
    """
    song = entry.song
    song = replace(
        song,
        intro_bars=0,
        drums=song.drums if song.drums != "none" else "brushes",
        seed=seed,
        key=(song.key + 5) % 12,
        bpm=song.bpm + 4 if song.bpm + 4 <= FASTEST_BPM else song.bpm - 4,
        seconds=min(song.seconds, B_SIDE_SECONDS),
    )
    return replace(entry, track_id=f"{entry.track_id}_b", song=song, prompt=None, lyrics=None)


def _rejects(good: tuple[Entry, ...], *, seed: int) -> tuple[Entry, ...]:
    """One file for every way in which a delivery goes wrong."""
    plain = _song(79, 1, "major", 34, 44_100, "rhodes", "vibes", "boom_bap")

    def entry(offset: int, track_id: str, rule: str, source_id: str | None, **more: Any) -> Entry:
        song = replace(more.pop("song", plain), seed=seed + offset)
        folder = SOURCES[source_id].folder if source_id else "royalty-free"
        return Entry(
            track_id,
            song,
            folder,
            more.pop("format", _FLAC),
            source_id,
            style_id="CORE-01",
            expected_rule=rule,
            **more,
        )

    original = next(track for track in good if track.track_id == "rainy_window_01")
    copy = replace(
        original,
        track_id="rainy_window_01_reupload",
        source_id=_LABEL,
        folder="partnerships",
        format=_MP3,
        prompt=None,
        lyrics=None,
        fault="near_duplicate",
        expected_rule="audio.near_duplicate",
        copy_of=original.track_id,
    )
    return (
        entry(0, "found_on_a_drive_01", "licence.record", None, song=replace(plain, bpm=71, key=6)),
        entry(1, "borrowed_chords_01", "licence.denied", "demo-denied-01", song=replace(plain, bpm=85, key=8)),
        entry(2, "next_years_single_01", "licence.date_acquired", "demo-future-01", song=replace(plain, bpm=77)),
        entry(3, "too_hot_master_01", "audio.clipping", _SHELF, format=_WAV, fault="clipped"),
        entry(4, "ringtone_cut_01", "audio.duration_min", _JUN, song=replace(plain, seconds=12.0, bpm=91)),
        entry(5, "forgotten_pause_01", "audio.silence", _LOFT, fault="mostly_silent", song=replace(plain, key=3)),
        entry(
            6,
            "broken_upload_01",
            "audio.readable",
            _MIRA,
            format=_MP3,
            fault="truncated",
            song=replace(plain, sample_rate=48_000, bpm=83),
        ),
        copy,
    )
