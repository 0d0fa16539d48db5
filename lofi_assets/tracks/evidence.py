"""What is known about a track before it is tagged. `tagged_tracks.py` gathers it, `tagging.py` weighs it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known about a track before tagging; whatever is absent says nothing."""

    track_id: str
    curated_tags: tuple[str, ...] = ()
    """From the curator's `<stem>_prompt.txt` (see `split_tags`)."""
    curated_styles: tuple[str, ...] = ()
    """Style ids that a person chose (`curation.chosen_styles`)."""
    metadata_tags: tuple[str, ...] = ()
    """Genre, mood and the like from the audio file's own tags."""
    metadata_bpm: float | None = None
    """Tempo that the audio file states."""
    bpm: float | None = None
    """Measured tempo."""
    bpm_confidence: float = 0.0
    """0 to 1, as `audio.tempo` gives it."""
    key: str | None = None
    """Estimated key. Recorded, never a tag: estimators are wrong too often, and no category is for it."""
    signals: Mapping[str, Any] = field(default_factory=dict)
    """The measures of `process_track` by name; `dual_mono`, `edge_hz` and `edge_drop_db` are read."""
    msd: Mapping[str, float] = field(default_factory=dict)
    """MusiCNN MSD label -> mean probability over the track."""
    mtt: Mapping[str, float] = field(default_factory=dict)
    """MusiCNN MTT label -> mean probability over the track."""
    lyrics: str | None = None
    """Content of the curator's `<stem>_lyrics.txt`."""
