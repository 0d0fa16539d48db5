"""Styles that people chose for a track, apart from those that tagging wrote.

What belongs here: `metadata/chosen_styles.json`, which only people write; the writing of `style_mapping.json`, which is
a result; and what becomes of an edit that somebody made to the result. What does not: a reviewer's styles, which are
part of the decision (`review.py`).

An edit of the result is a person's word like any other, and `processed_tracks` follows it in the same run. It reads the
result for such edits alone: what `prompts` wrote there says nothing. Only in a data root without the copy does
`prompts.parquet` have to tell the two apart.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lofi_assets.files.documents import read_json, write_json
from lofi_assets.sources.licences import SourceError
from lofi_assets.sources.style_taxonomy import vocabulary
from lofi_assets.store import CHOSEN_STYLES, STYLE_MAPPING, Store
from lofi_assets.tracks.prompt_table import given_styles
from lofi_assets.tracks.track_table import part_ids

_REMOVABLE = "remove it, prompts writes it anew"

Styles = dict[str, tuple[str, ...]]


def chosen_styles(store: Store) -> Styles:
    """Track id -> style ids that a person chose, edits of `style_mapping.json` that wait to be taken over among them.

    Parts of a file that was cut have what the file has, unless they are named themselves.

    Raises:
        SourceError: one of the two files does not map track ids to lists of style ids.
    """
    named = named_styles(store)
    inherited = {part: named[whole] for part, whole in part_ids(store).items() if whole in named}
    return inherited | named


def named_styles(store: Store) -> Styles:
    """`chosen_styles` without what parts have from their file: what people wrote, and nothing that a run adds to.

    Raises:
        SourceError: as `chosen_styles`.
    """
    named = _read(store, CHOSEN_STYLES) | hand_edits(store)
    return {track_id: styles for track_id, styles in named.items() if styles}


def hand_edits(store: Store) -> Styles:
    """Entries of `style_mapping.json` that a person wrote since it was last written here."""
    mapping, chosen = _read(store, STYLE_MAPPING), _read(store, CHOSEN_STYLES)
    ours = _copies(store)
    edited = (
        _chosen_before_copies(store, mapping)
        if ours is None
        else {key: styles for key, styles in mapping.items() if styles not in [copy.get(key) for copy in ours]}
    )
    return {key: styles for key, styles in edited.items() if styles and chosen.get(key) != styles}


def take_over(store: Store) -> str:
    """Move edits of the result into the file that people write; says what was moved, "" if there was nothing."""
    edits = hand_edits(store)
    if not edits:
        return ""
    chosen = _read(store, CHOSEN_STYLES) | edits
    write_json(store.metadata(CHOSEN_STYLES), {key: list(chosen[key]) for key in sorted(chosen)})
    names = ", ".join(sorted(edits))
    return (
        f"{STYLE_MAPPING} is a result: the styles that were edited there ({names}) now stand in "
        f"metadata/{CHOSEN_STYLES}, edit that"
    )


def write_mapping(store: Store, mapping: Mapping[str, Sequence[str]]) -> None:
    """Write `style_mapping.json`, so that every later edit of it is known for one, also after a kill in between."""
    copy, path = store.cache / STYLE_MAPPING, store.metadata(STYLE_MAPPING)
    before = _copies(store) or []
    write_json(copy, [*before[-1:], mapping])
    write_json(path, mapping)
    write_json(copy, [mapping])


def _read(store: Store, name: str) -> Styles:
    path = store.metadata(name)
    return _styles(read_json(path, default={}), path)


def _copies(store: Store) -> list[Styles] | None:
    """What was last written here, and while it is written what was written before; None without a copy."""
    path = store.cache / STYLE_MAPPING
    copies = read_json(path, remedy=_REMOVABLE)
    if not isinstance(copies, list | None):
        raise SourceError(f"{path}: must be a list of what was written; {_REMOVABLE}")
    return None if copies is None else [_styles(copy, path) for copy in copies]


def _styles(mapping: object, path: Path) -> Styles:
    if not isinstance(mapping, dict):
        raise SourceError(f"{path}: must be an object of track id -> [style ids]")
    for track_id, styles in mapping.items():
        if not isinstance(styles, list) or not all(isinstance(style, str) for style in styles):
            raise SourceError(f'{path}: {track_id}: must be a list of style ids such as ["CORE-01"], not {styles!r}')
    return {track_id: tuple(styles) for track_id, styles in mapping.items()}


def _chosen_before_copies(store: Store, mapping: Styles) -> Styles:
    """What people chose in a mapping of which there is no copy: all but styles that tagging or a review gave."""
    given = given_styles(store) if mapping else {}
    chosen = {}
    for track_id, styles in mapping.items():
        row = given.get(track_id)
        if row is None or styles != row.style_ids:
            chosen[track_id] = styles
        elif row.style_origin != "suggested":
            chosen[track_id] = row.curated_styles if row.reviewed_styles else styles
    return chosen


def curated_tempo_ranges(store: Store) -> dict[str, tuple[int, int]]:
    """Track id -> tempo range of the first style that a curator named for it."""
    _, presets = vocabulary()
    return {
        track_id: presets[styles[0]].tempo_range
        for track_id, styles in chosen_styles(store).items()
        if styles[0] in presets
    }
