"""Clips on the pages: players with their spectrograms, and what was measured of each clip."""

from collections.abc import Sequence
from html import escape
from pathlib import PurePosixPath

from lofi_assets.evaluation.reports.facts import Facts, Model, RealTrack
from lofi_assets.evaluation.reports.markup import NOT_MEASURED, facts, number, picture, table
from lofi_assets.evaluation.reports.sounds import Part, Sounds, strip
from lofi_assets.evaluation.samples import Clip
from lofi_assets.metrics.results import Evaluation
from lofi_assets.metrics.sample_checks import COPY_FROM, CheckedClip, CopyFound
from lofi_assets.store import Store

AXES = {
    "CE": "content enjoyment",
    "CU": "content usefulness",
    "PC": "production complexity",
    "PQ": "production quality",
}
"""Of the scorer of aesthetics, by its short names."""
COMPARED_S = 10.0
"""Of a clip and a recording whose fingerprints are compared."""


def file_name(clip: Clip) -> str:
    """Of a clip's file: what the checks call it."""
    return PurePosixPath(clip.path).name


def own_track(clip: Clip, page: Facts) -> RealTrack | None:
    """The validation track that the clip was prompted for."""
    return page.real(file_name(clip).removesuffix(".mp3").partition("_")[2])


def figure(label: str, source: str, drawn: bytes | None) -> str:
    """A player under its spectrogram; `label` is text."""
    if not source:
        return f'<figure><figcaption>{escape(label)}</figcaption><p class="none">holds no audio</p></figure>'
    said = f"Spectrogram: {label}"
    image = picture(drawn, said=said, kind="strip") if drawn else '<p class="none">no spectrogram: not decoded</p>'
    player = f'<audio controls preload="none" src="{escape(source)}" aria-label="{escape(label)}"></audio>'
    return f"<figure><figcaption>{escape(label)}</figcaption>{image}{player}</figure>"


def row(figures: Sequence[str], *, together: bool) -> str:
    """Players side by side; `together`: a key goes on in another at the same second."""
    kind = "players together" if together else "players"
    return f'<div class="{kind}">\n{"".join(figures)}\n</div>'


def clip_figure(store: Store, label: str, clip: Clip, sounds: Sounds) -> str:
    """A clip of a model."""
    return figure(label, sounds.clip(clip.file(store)), strip(store, clip.file(store)))


def track_figure(store: Store, label: str, track: RealTrack, sounds: Sounds) -> str:
    """A real track."""
    if not track.path.is_file():
        return gone(label)
    return figure(label, sounds.track(track.path), strip(store, track.path))


def gone(label: str) -> str:
    """In the place of a player whose file is not there."""
    return f'<figure><figcaption>{escape(label)}</figcaption><p class="none">the file is gone</p></figure>'


def copied_pair(store: Store, clip: Clip, found: CopyFound | None, page: Facts, sounds: Sounds) -> list[str]:
    """The ten seconds of a clip that are nearest to a real track, and those of the track."""
    track = page.real(found.recording) if found else None
    if found is None:
        return []
    mine = Part(found.at_s, COMPARED_S / found.tempo)
    theirs = Part(found.of_s, COMPARED_S)
    figures = [
        figure(
            f"these 10 s of the clip, from {found.at_s:.0f} s",
            sounds.clip(clip.file(store), mine),
            strip(store, clip.file(store), mine),
        )
    ]
    label = f"nearest: {found.recording} from {found.of_s:.0f} s"
    if track is None or not track.path.is_file():
        return [*figures, gone(label)]
    return [*figures, figure(label, sounds.clip(track.path, theirs), strip(store, track.path, theirs))]


def clip_facts(clip: Clip, model: Model) -> str:
    """What was measured of one clip."""
    name, evaluation = file_name(clip), model.evaluation
    checked = model.checked.get(name)
    alone = evaluation.fad.by_clip.get(name)
    median, highest = evaluation.fad.real_by_clip or (None, None)
    real = "" if median is None or highest is None else f" (real clips {median:.1f}, at most {highest:.1f})"
    problems = evaluation.problems.get(name, ())
    return facts(
        [
            *_checked_facts(checked, problems),
            ("FAD of this clip alone", number(alone, 1, why=evaluation.fad.note) + escape(real)),
            *_scores(evaluation, name),
        ]
    )


def _scores(evaluation: Evaluation, name: str) -> list[tuple[str, str]]:
    """Advisory scores, if there is a scorer at all; the page says once that there is none."""
    found = evaluation.aesthetics
    if found is None:
        return []
    scores = found.clips.get(name, {})
    told = ", ".join(f"{escape(axis)} {number(scores.get(short), 1)}" for short, axis in AXES.items())
    return [("predicted scores (advisory)", told + ("" if found.trained else ", by unproven weights"))]


def _checked_facts(checked: CheckedClip | None, problems: Sequence[str]) -> list[tuple[str, str]]:
    if checked is None:
        found = "; ".join(problems)
        return [("checks", NOT_MEASURED), *([("faults", escape(found))] if found else [])]
    artefacts = ", ".join(checked.artefacts)
    return [
        ("tempo", tempo(checked)),
        ("key", _key(checked)),
        ("nearest real track", nearest(checked.nearest)),
        ("artefacts", escape(artefacts) if artefacts else "none found"),
        ("outside the real range", escape(", ".join(checked.outside)) if checked.outside else "nothing"),
        ("level", number(checked.loudness_lufs, 1, unit=" LUFS", why="checked by a version that did not keep it")),
        ("own tags above the others", number(checked.tag_auc, why="the prompt has no label that the tagger knows")),
    ]


def tempo(checked: CheckedClip) -> str:
    """Asked, found, whether it is right, and how sure the estimate is."""
    from lofi_assets.metrics.adherence import in_tempo

    if checked.bpm_found is None:
        found = "no tempo could be told"
    else:
        sure = f", confidence {checked.bpm_confidence:.2f}" if checked.bpm_confidence is not None else ""
        found = f"{checked.bpm_found:.1f} BPM found{sure or ', confidence was not kept'}"
    if checked.bpm_asked is None:
        return f"none was asked for; {found}"
    right = "right" if in_tempo(checked.bpm_found, checked.bpm_asked) else "missed"
    return f"{right}: {checked.bpm_asked} BPM asked, {found}"


def _key(checked: CheckedClip) -> str:
    asked = f"{checked.key_asked} asked" if checked.key_asked else "none was asked for"
    return escape(f"{asked}, {checked.key_found} found" if checked.key_found else f"{asked}, none found")


def nearest(found: CopyFound | None) -> str:
    """How far the nearest real track agrees, and what that is called."""
    if found is None:
        return f"{NOT_MEASURED} (too short or too silent)"
    changed = [f"{found.pitch:+.1f} semitones"] * bool(found.pitch) + [f"{found.tempo:.2f} times as fast"] * (
        found.tempo != 1.0
    )
    undone = f", {', '.join(changed)}" if changed else ""
    kind = "shown as a copy" if found.similarity >= COPY_FROM else "no copy"
    return escape(f"{kind}: {found.similarity:.2f} with {found.recording} (a copy from {COPY_FROM:g} on{undone})")


def licence_table(names: Sequence[str], page: Facts) -> str:
    """The real tracks of a page with their rights holders."""
    rows = []
    for name in names:
        track = page.real(name)
        rows.append((escape(name), *((track.split, escape(track.licence)) if track else ("-", "not in the dataset"))))
    if not rows:
        return '<p class="none">None is played.</p>'
    return table(("track", "split", "rights holder, licence, credit"), rows, caption="Played above, by their records")
