"""News of deliveries: which tracks were accepted or rejected since people were last told, and which wait for a person.

The tables that the data assets wrote are compared with what was told. When a delivery is complete is said by
`defs/observations.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lofi_assets.alerts.messages import Message, asset_link, message
from lofi_assets.files.hashing import hash_of, stat_key
from lofi_assets.sources.inventory import inventory_path, read_inventory
from lofi_assets.sources.raw_files import with_file_name
from lofi_assets.store import Store
from lofi_assets.tracks.prompt_table import prompt_verdicts, prompts_path
from lofi_assets.tracks.track_table import track_verdicts, tracks_path
from lofi_assets.wording import named, shortened

MAX_REJECTS = 5
"""Rejected tracks that a message shows with their reason."""
REASON_CHARACTERS = 200


@dataclass(frozen=True)
class Track:
    """What the data assets said of a track."""

    track_id: str
    path: str
    """Raw file, relative to the data root."""
    content: str
    """sha256 of the raw file."""
    rule: str = ""
    """The gate that rejected it; empty: accepted."""
    reason: str = ""

    @property
    def name(self) -> str:
        return with_file_name(self.track_id, self.path)

    @property
    def told(self) -> str:
        """What is remembered of it: the same verdict on the same file is no news."""
        return f"{self.rule or 'accepted'} {self.content[:12]}"


def tables_key(store: Store) -> str:
    """Changes whenever one of the tables is written."""
    paths = (inventory_path(store), tracks_path(store), prompts_path(store))
    return hash_of([stat_key(path) if path.is_file() else "" for path in paths])


def read_tracks(store: Store) -> dict[str, Track]:
    """Track id -> what holds for it now. Verified files that were not processed yet have no verdict and are left out.

    Raises:
        StoreError: a table cannot be read.
    """
    inventory = read_inventory(store)
    content = {file.path: file.sha256 for file in inventory}
    tracks = {
        file.track_id: Track(file.track_id, file.path, file.sha256, file.rule, file.reason)
        for file in inventory
        if file.status == "rejected"
    }
    for row in track_verdicts(store):
        if row.raw_path in content and row.track_id not in tracks:
            tracks[row.track_id] = Track(row.track_id, row.raw_path, content[row.raw_path], row.rule, row.reason)
    for prompt in prompt_verdicts(store):
        track = tracks.get(prompt.track_id)
        if prompt.status == "rejected" and track and not track.rule:
            tracks[track.track_id] = replace(track, rule=prompt.rule, reason=prompt.reason)
    return tracks


def told_of(tracks: Mapping[str, Track]) -> dict[str, str]:
    """What is remembered of tracks that people were told of."""
    return {track_id: track.told for track_id, track in tracks.items()}


def delivery_news(tracks: Mapping[str, Track], *, told: Mapping[str, str], waiting: Mapping[str, str]) -> list[Message]:
    """One message for everything that came since the last; none if nothing was accepted or rejected anew.

    Args:
        told: track id -> `Track.told` of what people know.
        waiting: id of each track that a person should look at -> why.
    """
    gone = {said for track_id, said in told.items() if track_id not in tracks}
    fresh = [
        track
        for track_id, track in sorted(tracks.items())
        if told.get(track_id) != track.told and track.told not in gone  # a renamed file is no news
    ]
    accepted = [track for track in fresh if not track.rule]
    rejected = [track for track in fresh if track.rule]
    if not fresh:
        return []
    review = {track.name: waiting[track.track_id] for track in accepted if track.track_id in waiting}
    names = named([f"{track.name} {track.rule}" for track in rejected], most=2)
    parts = [f"{len(accepted)} accepted", f"{len(rejected)} rejected" + (f": {names}" if rejected else "")]
    if review:
        parts.append(f"{len(review)} to review")
    return [
        message(
            "warning" if rejected else "info",
            f"tracks: {', '.join(parts)}",
            _lines(accepted, rejected, review),
            link=asset_link("processed_tracks"),
        )
    ]


def _lines(accepted: list[Track], rejected: list[Track], review: Mapping[str, str]) -> list[str]:
    lines = [f"Rejected {track.path}\n  {track.rule}: {_short(track.reason)}" for track in rejected]
    looks = [f"Review {name}: {_short(why)}" for name, why in review.items()]
    return [
        *shortened(lines, most=MAX_REJECTS),
        *shortened(looks, most=MAX_REJECTS),
        f"Accepted: {named([track.name for track in accepted], most=8)}" if accepted else "",
        _remedy(rejected),
        "The review queue: lofi review list" if review else "",
    ]


def _remedy(rejected: list[Track]) -> str:
    licences = [track for track in rejected if track.rule.startswith("licence.")]
    todo = ["mend or replace the rejected files, or leave them out"] if len(licences) < len(rejected) else []
    todo += ["`lofi sources list` says what the licence records lack"] if licences else []
    return f"What to do: {'; '.join(todo)}; nothing else waits for them." if todo else ""


def _short(text: str) -> str:
    return text if len(text) <= REASON_CHARACTERS else text[:REASON_CHARACTERS].rstrip() + " …"
