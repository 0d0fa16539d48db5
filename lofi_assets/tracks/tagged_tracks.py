"""The tags of every accepted track: what is known of it, gathered and tagged.

`processed_tracks` asks for the folder that the tags decide, `prompts` writes them down. So nothing here may read what
`prompts` writes: tags follow from the track's row, the vocabulary, and what people wrote.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lofi_assets.audio.metadata import stated_bpm
from lofi_assets.lyrics.text import LyricsError, lyrics_text
from lofi_assets.sources.curator_files import CuratorFiles, Sidecars
from lofi_assets.sources.style_taxonomy import vocabulary
from lofi_assets.store import Store
from lofi_assets.styles.presets import category_of
from lofi_assets.styles.prompt_text import split_tags
from lofi_assets.tracks.curation import chosen_styles
from lofi_assets.tracks.evidence import Evidence
from lofi_assets.tracks.file_tags import FileTags, current_tags
from lofi_assets.tracks.review import Review, apply_review, decisions, proposal_of, read_reviews
from lofi_assets.tracks.tagging import TrackTags, tag_track
from lofi_assets.tracks.track_table import TrackRow


def categories(store: Store) -> Callable[[Sequence[TrackRow]], dict[str, str]]:
    """A function from processed rows to the style category that decides each track's folder."""

    def decide(rows: Sequence[TrackRow]) -> dict[str, str]:
        return {item.evidence.track_id: category_of(item.tags.style_ids) for item in tag_tracks(store, rows)}

    return decide


@dataclass(frozen=True)
class TaggedTrack:
    """A track with its tags as they stand, and what they rest on."""

    evidence: Evidence
    tags: TrackTags
    proposal: str
    """Fingerprint of the tags without any review (`review.proposal_of`)."""
    review: Review | None
    """The decision that holds for this very audio and proposal."""
    file_tags: FileTags
    sidecars: Sidecars


def tag_tracks(store: Store, rows: Sequence[TrackRow]) -> list[TaggedTrack]:
    """Tags of processed tracks, with the reviews that hold for them."""
    taxonomy, presets = vocabulary()
    named, holding = chosen_styles(store), decisions(read_reviews(store))
    files, tagged = CuratorFiles(store), []
    for row in rows:
        sidecars = files.beside(row.raw_path)
        raw = store.root / row.raw_path
        file_tags = current_tags(raw, source_sha256=row.source_sha256, recorded=row.file_tags)
        found = evidence(row, named.get(row.track_id, ()), file_tags.texts, sidecars)
        proposed = tag_track(found, taxonomy, presets)
        proposal = proposal_of(proposed, lyrics_text(found.lyrics))
        review = holding.get((row.track_id, row.audio_sha256, proposal))
        tags = apply_review(proposed, review, found, taxonomy, presets)
        tagged.append(TaggedTrack(found, tags, proposal, review, file_tags, sidecars))
    return tagged


def evidence(
    row: TrackRow, styles: tuple[str, ...], file_tags: Mapping[str, Sequence[str]], sidecars: Sidecars
) -> Evidence:
    """What is known about a processed track: the curator's files, the raw file's tags, what was measured and heard.

    The title is left out: a song called Rain is not evidence of rain.
    """
    lyrics = sidecars.lyrics
    return Evidence(
        track_id=row.track_id,
        curated_tags=split_tags(sidecars.prompt),
        curated_styles=styles,
        metadata_tags=tuple(
            text for field in ("genre", "mood", "keywords", "comment") for text in file_tags.get(field, ())
        ),
        metadata_bpm=stated_bpm(file_tags),
        bpm=row.tempo_bpm,
        bpm_confidence=row.tempo_confidence,
        signals=row.measures,
        msd=row.heard.get("msd", {}),
        mtt=row.heard.get("mtt", {}),
        lyrics=lyrics if _valid_lyrics(lyrics) else None,
    )


def _valid_lyrics(lyrics: str | None) -> bool:
    try:
        lyrics_text(lyrics)
    except LyricsError:
        return False
    return True
