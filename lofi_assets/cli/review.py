"""`lofi review`: what a person should look at, one track with its evidence, and the decision about it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import click

from lofi_assets.store import Store, data_root

if TYPE_CHECKING:
    from lofi_assets.styles.prompt_text import Tag

APPLY = "now materialise prompts and dataset_manifest; with `make dev` running that happens by itself"
MEASURES = ("duration_s", "tempo_bpm", "tempo_bpm_raw", "tempo_confidence", "loudness_lufs", "centroid_hz", "dual_mono")
HEARD = 6
"""Strongest labels of the audio tagger that are shown per model."""


@click.group()
def review() -> None:
    """Tracks that wait for a person, and what people decided about them."""


@review.command("list")
@click.option("--all", "everything", is_flag=True, help="Also tracks that need nobody.")
def list_tracks(everything: bool) -> None:
    """One track per line with its state, styles and prompt; below it every reason to look at it."""
    from lofi_assets.sources.raw_files import with_file_name
    from lofi_assets.tracks.review import queue

    items = queue(Store(data_root()))
    shown = [item for item in items if everything or item.reasons]
    for item in shown:
        row = item.row
        name = with_file_name(row.track_id, row.raw_path)
        click.echo(f"{name}  {item.decision or row.state}  {','.join(row.style_ids)}  {row.prompt}")
        for reason in item.reasons:
            click.echo(f"    {reason}")
    waiting = sum(bool(item.reasons) for item in items)
    click.echo(f"{waiting} of {len(items)} tagged tracks wait for a person")


@review.command()
@click.argument("track")
def show(track: str) -> None:
    """Everything that decided the tags of TRACK, and where to listen to it."""
    from lofi_assets.tracks.review import queue, read_reviews
    from lofi_assets.tracks.track_table import read_tracks

    store = Store(data_root())
    items = {item.row.track_id: item for item in queue(store)}
    processed = {row.track_id: row for row in read_tracks(store)}
    if track not in items or track not in processed:
        raise click.ClickException(f"{track}: not among the tagged tracks; see lofi review list --all")
    item, row, sound = items[track], items[track].row, processed[track]
    history = [review for review in read_reviews(store) if review.track_id == track]
    lines = [
        ("track", f"{track}  {item.decision or row.state}"),
        ("audio", str(store.root / sound.audio_path)),
        ("raw", f"{store.root / sound.raw_path}  ({sound.source_id})"),
        ("prompt", row.prompt),
        ("styles", f"{', '.join(row.style_ids)}  ({row.style_origin}, {row.style_confidence:.2f})"),
        *_numbered("look at", item.reasons),
        *_numbered("tag", [_tag(tag) for tag in row.tags]),
        ("measured", "  ".join(f"{name} {sound.measures.get(name)}" for name in MEASURES)),
        *((f"heard {model}", _strongest(labels)) for model, labels in sorted(sound.heard.items())),
        *((f"file {field}", " / ".join(texts)) for field, texts in row.file_tags.items()),
        *_numbered("note", row.remarks),
        ("lyrics", row.lyrics.replace("\n", " / ")),
        *_numbered("decided", [f"{past.at.date()} {past.by}: {past.decision} {past.note}" for past in history]),
    ]
    for label, text in lines:
        click.echo(f"{label:10s} {text}".rstrip())


@review.command()
@click.argument("tracks", nargs=-1, required=True)
@click.option("--by", required=True, help="Your name; it goes on record.")
@click.option("--styles", default="", help="Style ids in place of the proposed ones, as CORE-01,THEME-03.")
@click.option("--tags", default="", help="The whole prompt in place of the proposed one.")
@click.option("--note", default="")
def accept(tracks: tuple[str, ...], by: str, styles: str, tags: str, note: str) -> None:
    """You heard the TRACKS and read their tags: they go from TAGGED to VERIFIED."""
    chosen = [style.strip() for style in styles.split(",") if style.strip()]
    _decide(tracks, decision="accepted", by=by, styles=chosen, tags=tags, note=note)


@review.command()
@click.argument("tracks", nargs=-1, required=True)
@click.option("--by", required=True, help="Your name; it goes on record.")
@click.option("--reason", required=True, help="Why; it goes on record.")
def reject(tracks: tuple[str, ...], by: str, reason: str) -> None:
    """Keep the TRACKS, as they are now, out of the dataset."""
    _decide(tracks, decision="rejected", by=by, note=reason)


def _decide(tracks: Sequence[str], *, decision: Literal["accepted", "rejected"], **words: Any) -> None:
    from lofi_assets.sources.style_taxonomy import vocabulary
    from lofi_assets.tracks.review import decide

    now = datetime.now(UTC).replace(microsecond=0)
    taken = decide(Store(data_root()), tracks, decision=decision, at=now, vocabulary=vocabulary(), **words)
    click.echo(f"{decision} {len(taken)}: {', '.join(review.track_id for review in taken)}; {APPLY}")


def _numbered(label: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    return [(label if index == 0 else "", text) for index, text in enumerate(texts)]


def _tag(tag: "Tag") -> str:
    return f"{tag.category:12s} {tag.tag:20s} {tag.origin:12s} {tag.confidence:.2f}"


def _strongest(labels: Mapping[str, float]) -> str:
    strongest = sorted(labels.items(), key=lambda item: -item[1])[:HEARD]
    return "  ".join(f"{label} {probability:.2f}" for label, probability in strongest)
