"""From evidence about a track to its tags, style and prompt.

What belongs here: weighing what a curator wrote, what the file says of itself, what was measured and what the audio
tagger heard. What does not: the vocabulary (`styles/`), measuring and listening (`audio/`), gathering the evidence
(`tagged_tracks.py`). Nothing is invented: each tag has an origin, and only an assigned style fills a genre or a mood
that no evidence gave.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, Literal

from lofi_assets.errors import LofiError
from lofi_assets.lyrics.text import INSTRUMENTAL, LyricsError, has_words, lyrics_text
from lofi_assets.records import StylePreset, TagCategoryName
from lofi_assets.styles.presets import preset_tags
from lofi_assets.styles.prompt_text import (
    ORIGINS,
    PROMPT_CHARACTERS,
    Origin,
    Tag,
    prompt_order,
    prompt_text,
    read_tags,
)
from lofi_assets.styles.taxonomy import CATEGORIES, Taxonomy, bpm_of, bpm_tag
from lofi_assets.tracks.evidence import Evidence

Presets = Mapping[str, StylePreset]
StyleOrigin = Literal["human", "suggested"]
METADATA_CONFIDENCE = 0.8
"""A file's own tags come from whoever exported it, often by default."""

TEMPO_CONFIDENCE = 0.3
"""Least periodicity that is a tempo: `audio.tempo` gives white noise 0.004, chords without drums 0.4, drums 0.7."""

PRESET_CONFIDENCE = 0.5
"""Of a tag filled from the style that a person assigned; of a suggested style, that times the style's confidence."""

STYLE_CONFIDENCE = 0.1
"""A suggestion whose lead over the next style is smaller goes to a person."""

HEARD_CONFIDENCE = 0.7
"""Ceiling for the audio tagger: its probabilities are not calibrated for lofi."""

NO_VOICE_BELOW = 0.15
"""A track in which no voice label of the audio tagger reaches this, and all were asked, is instrumental."""

NO_VOICE_CONFIDENCE = 0.5
"""Of that: absence heard by a tagger that knows few kinds of voice."""

HALF_A_HINT = 0.5
"""Share of a word's weight that counts for its general word or its kinds when a style is suggested."""

UNSEEN = 0.5
"""Factor for a season or a theme without its atmosphere in evidence, and for an instrument's style without that
instrument: sound alone does not tell autumn from jazz, and jazz chords are no saxophone."""

FACTORY_BPM = 120
"""What programs write into a file when nobody said: believed only if the measurement agrees."""

FILTERED_BELOW_HZ, FILTERED_DROP_DB = 9000.0, 12.0
"""A fall this steep (per 500 Hz) this low is a filter or a former sample rate, which sound alike; gentler ones hide."""


class TaggingError(LofiError, ValueError):
    """Evidence that cannot be used; the message names the label and what to do."""


@dataclass(frozen=True)
class TrackTags:
    """Tags in prompt order, styles of which the first decides the folder, and what a person should know."""

    track_id: str
    tags: tuple[Tag, ...]
    style_ids: tuple[str, ...]
    style_confidence: float
    style_origin: StyleOrigin
    unknown_tags: tuple[str, ...]
    """Curated tags that the taxonomy lacks: not used."""
    notes: tuple[str, ...]

    @property
    def needs_review(self) -> bool:
        """Whether a person should look: a close call of style, an unknown curated tag, or a note."""
        unsure = self.style_origin == "suggested" and self.style_confidence < STYLE_CONFIDENCE
        return unsure or bool(self.unknown_tags) or bool(self.notes)


def tag_track(evidence: Evidence, taxonomy: Taxonomy, presets: Presets) -> TrackTags:
    """Tags and styles of a track; deterministic, never empty, without contradiction or duplicate.

    A curator's word comes first, then the file's own tags, then measures, then the audio tagger. The style fills the
    genre if neither a person nor the file gave one, and the mood if nothing did and the style is no close call.

    Raises:
        TaggingError: the audio tagger reports a label that `config/styles/musicnn_map.yaml` lacks.
    """
    notes: list[str] = []
    curated, unknown = read_tags(evidence.curated_tags, taxonomy, origin="human", confidence=1.0)
    observed = [
        *curated,
        *_from_lyrics(evidence.lyrics, curated, notes),
        *_from_metadata(evidence.metadata_tags, taxonomy),
        *_from_tempo(evidence, taxonomy, notes),
        *_from_signals(evidence.signals),
        *_from_audio_model(evidence, taxonomy),
    ]
    kept = _without_general(_settle(observed, taxonomy, notes), taxonomy)
    if _voice([tag.tag for tag in kept], taxonomy) and not (evidence.lyrics or "").strip():
        notes.append("a voice is tagged but there are no lyrics; add a lyrics file or mend the tag")
    style_ids, confidence, origin = _styles(evidence, kept, taxonomy, presets, notes)
    filled = _fill(kept, presets, style_ids, confidence=confidence, origin=origin)
    tags = _fit(_settle([*kept, *filled], taxonomy, notes), notes)
    return TrackTags(
        track_id=evidence.track_id,
        tags=tuple(sorted(tags, key=prompt_order)),
        style_ids=style_ids,
        style_confidence=confidence,
        style_origin=origin,
        unknown_tags=unknown,
        notes=tuple(dict.fromkeys(notes)),
    )


def suggest_style(tags: Sequence[Tag], taxonomy: Taxonomy, presets: Presets) -> tuple[str, float]:
    """The preset that the evidence is nearest to, and by how much it leads (0 to 1).

    Nearness is the cosine between the tags, weighted by confidence and by how few presets share them, and the preset's;
    times how well the tempo and the presence of a voice fit. The first preset wins a tie, with no lead.
    """
    rarity, vectors = _style_space(
        tuple((style_id, tuple(chain(*preset_tags(preset).values()))) for style_id, preset in presets.items())
    )
    hints = _hints(tags, taxonomy)
    found = {tag: weight * rarity[tag] for tag, weight in hints.items() if tag in rarity}
    bpm, voice = _bpm(tags), _voice([tag.tag for tag in tags], taxonomy)
    scores = {
        style_id: (0.05 + 0.95 * _cosine(found, vectors[style_id]))
        * _tempo_fit(preset, bpm)
        * _subject_fit(preset, hints)
        * _voice_fit(preset, voice, taxonomy)
        for style_id, preset in presets.items()
    }
    best, *others = sorted(scores, key=lambda style_id: -scores[style_id])
    return best, round(scores[best] - (scores[others[0]] if others else 0.0), 4)


def _from_lyrics(lyrics: str | None, curated: Sequence[Tag], notes: list[str]) -> list[Tag]:
    """A curator's lyrics file says whether there is a voice, unless a curated tag says more."""
    if lyrics is None or not lyrics.strip():
        return []
    try:
        text = lyrics_text(lyrics)
    except LyricsError as error:
        notes.append(str(error))
        return []
    if any(tag.category == "vocal_type" for tag in curated) or not (has_words(text) or text == INSTRUMENTAL):
        return []
    return [Tag("vocal_type", "vocals" if has_words(text) else "instrumental", "human", 1.0)]


def _from_metadata(words: Iterable[str], taxonomy: Taxonomy) -> list[Tag]:
    """The known ones of the file's own tags; what taggers leave there by default is no reason to disturb a person."""
    parts = [part for word in words for part in ([word] if taxonomy.canonical(word) else re.split(r"[,;/|\n]", word))]
    return read_tags(parts, taxonomy, origin="metadata", confidence=METADATA_CONFIDENCE)[0]


def _from_tempo(evidence: Evidence, taxonomy: Taxonomy, notes: list[str]) -> list[Tag]:
    """A word and a number; what the file states settles the octave of what was measured, and alone it is believed."""
    measured, stated = _usable(evidence.bpm, taxonomy), _usable(evidence.metadata_bpm, taxonomy)
    if measured is None or evidence.bpm_confidence < TEMPO_CONFIDENCE:
        if evidence.bpm is not None and math.isfinite(evidence.bpm):
            sure = f"{evidence.bpm_confidence:.2f}"
            notes.append(f"tempo {evidence.bpm:.1f} bpm is uncertain ({sure}) or out of range, and not used")
        believed = stated is not None and round(stated) != FACTORY_BPM
        return _tempo_tags(stated, taxonomy, "metadata", METADATA_CONFIDENCE) if stated and believed else []
    if stated is not None and any(abs(stated * octave / measured - 1) <= 0.04 for octave in (0.5, 1, 2)):
        return _tempo_tags(stated, taxonomy, "metadata", METADATA_CONFIDENCE)
    if stated is not None and round(stated) != FACTORY_BPM:
        notes.append(f"the file states {stated:.0f} bpm but {measured:.0f} was measured and is used")
    return _tempo_tags(measured, taxonomy, "signal", min(evidence.bpm_confidence, 1.0))


def _usable(bpm: float | None, taxonomy: Taxonomy) -> float | None:
    return bpm if bpm is not None and math.isfinite(bpm) and taxonomy.tempo_word(bpm) else None


def _tempo_tags(bpm: float, taxonomy: Taxonomy, origin: Origin, confidence: float) -> list[Tag]:
    word = taxonomy.tempo_word(bpm)
    return [Tag("tempo", tag, origin, confidence) for tag in (word, bpm_tag(bpm)) if tag]


def _from_signals(signals: Mapping[str, Any]) -> list[Tag]:
    """All that measures support; brightness, flatness and loudness need thresholds proven on tagged lofi first."""
    # Compared, not tested for identity: a table gives numpy's own truth values, and NaN for an absent one.
    tags = [Tag("production", "mono", "signal", 0.9)] if signals.get("dual_mono") in (True,) else []
    edge, drop = signals.get("edge_hz"), signals.get("edge_drop_db")
    if edge is not None and drop is not None and 0 < edge < FILTERED_BELOW_HZ and drop >= FILTERED_DROP_DB:
        tags.append(Tag("production", "low-pass filtered", "signal", 0.6))
    return tags


def _from_audio_model(evidence: Evidence, taxonomy: Taxonomy) -> list[Tag]:
    """The strongest hearing of each tag; of a voice the general word only if no kind of voice was heard."""
    heard: dict[tuple[TagCategoryName, str], float] = {}
    for rules, probabilities in ((taxonomy.heard["msd"], evidence.msd), (taxonomy.heard["mtt"], evidence.mtt)):
        for label, probability in probabilities.items():
            if label not in rules:
                where = "config/styles/musicnn_map.yaml"
                raise TaggingError(f"{evidence.track_id}: {where} lacks the label {label!r}; map or ignore it there")
            known = taxonomy.canonical(rules[label].tag or "") if probability >= rules[label].at else None
            if known:
                heard[known] = max(heard.get(known, 0.0), float(probability))
    if any(category == "vocal_type" and tag not in ("vocals", "instrumental") for category, tag in heard):
        heard.pop(("vocal_type", "vocals"), None)
    tags = [Tag(*known, "audio_model", round(min(p, HEARD_CONFIDENCE), 4)) for known, p in heard.items()]
    if _no_voice_heard(evidence, taxonomy) and ("vocal_type", "instrumental") not in heard:
        tags.append(Tag("vocal_type", "instrumental", "audio_model", NO_VOICE_CONFIDENCE))
    return tags


def _no_voice_heard(evidence: Evidence, taxonomy: Taxonomy) -> bool:
    """Whether both taggers were asked for every kind of voice and heard none."""
    answers = [
        probabilities.get(label, 1.0)
        for rules, probabilities in ((taxonomy.heard["msd"], evidence.msd), (taxonomy.heard["mtt"], evidence.mtt))
        for label, rule in rules.items()
        if rule.tag in taxonomy.voices
    ]
    return max(answers) < NO_VOICE_BELOW


def _without_general(tags: Sequence[Tag], taxonomy: Taxonomy) -> list[Tag]:
    """Leave out what the audio tagger heard in general where a stronger origin says it in particular."""
    said = {tag.tag for tag in tags if tag.origin != "audio_model"}
    return [tag for tag in tags if tag.tag in said or not taxonomy.kinds.get(tag.tag, frozenset()) & said]


def _hints(tags: Iterable[Tag], taxonomy: Taxonomy) -> dict[str, float]:
    """Tag -> confidence; a general word is half a hint at each of its kinds, and each kind at the general word."""
    hints: dict[str, float] = {}
    for tag in tags:
        general = [word for word, kinds in taxonomy.kinds.items() if tag.tag in kinds]
        for kin in (*taxonomy.kinds.get(tag.tag, ()), *general):
            hints[kin] = max(hints.get(kin, 0.0), HALF_A_HINT * tag.confidence)
        hints[tag.tag] = max(hints.get(tag.tag, 0.0), tag.confidence)
    return hints


def _settle(tags: Iterable[Tag], taxonomy: Taxonomy, notes: list[str]) -> list[Tag]:
    """One tag per word and no contradiction: the stronger origin, then the higher confidence, stays."""
    kept: dict[str, Tag] = {}
    for tag in sorted(tags, key=_strength):
        if tag.tag in kept:
            continue
        rival = next((other for other in kept.values() if taxonomy.contradicts(tag.tag, other.tag)), None)
        if rival is None:
            kept[tag.tag] = tag
        else:
            notes.append(f"{tag.tag} ({tag.origin}) contradicts {rival.tag} ({rival.origin}) and is not used")
    return list(kept.values())


def _strength(tag: Tag) -> tuple[int, float, int, str]:
    return ORIGINS.index(tag.origin), -tag.confidence, CATEGORIES.index(tag.category), tag.tag


def _fit(tags: Sequence[Tag], notes: list[str]) -> list[Tag]:
    """Drop the weakest tags until the prompt is short enough, but never the strongest genre."""
    kept = sorted(tags, key=_strength)
    anchor = next((tag for tag in kept if tag.category == "genre"), None)
    while len(prompt_text(kept)) > PROMPT_CHARACTERS:
        weakest = next(tag for tag in reversed(kept) if tag is not anchor)
        kept.remove(weakest)
        notes.append(f"{weakest.tag} ({weakest.origin}) goes beyond {PROMPT_CHARACTERS} characters and is not used")
    return kept


def _styles(
    evidence: Evidence, tags: Sequence[Tag], taxonomy: Taxonomy, presets: Presets, notes: list[str]
) -> tuple[tuple[str, ...], float, StyleOrigin]:
    unknown = [style_id for style_id in evidence.curated_styles if style_id not in presets]
    notes += [f"style {style_id!r} in chosen_styles.json is no preset and is not used" for style_id in unknown]
    curated = tuple(dict.fromkeys(style_id for style_id in evidence.curated_styles if style_id in presets))
    bpm = _bpm(tags)
    if curated and bpm is not None and _tempo_fit(presets[curated[0]], bpm) < 1.0:
        notes.append(f"{bpm} bpm lies outside the tempo range of {curated[0]}; check both")
    if curated:
        return curated, 1.0, "human"
    best, lead = suggest_style(tags, taxonomy, presets)
    return (best,), lead, "suggested"


def _fill(
    tags: Sequence[Tag], presets: Presets, style_ids: Sequence[str], *, confidence: float, origin: StyleOrigin
) -> list[Tag]:
    """Genre of the assigned style unless a person or the file named one, and its first mood if there is none."""
    preset = presets[style_ids[0]]
    share = round(PRESET_CONFIDENCE * confidence, 4)
    genres = preset.base_tags if origin == "human" else preset.base_tags[:1]
    named = any(tag.category == "genre" and tag.origin in ("human", "metadata") for tag in tags)
    filled = [] if named else [Tag("genre", tag, "preset", share) for tag in genres]
    if confidence >= STYLE_CONFIDENCE and not any(tag.category == "mood" for tag in tags):
        filled.append(Tag("mood", preset.mood_options[0], "preset", share))
    return filled


@lru_cache(maxsize=2)
def _style_space(
    presets: tuple[tuple[str, tuple[str, ...]], ...],
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Each tag's weight, 1 when one preset has it and near 0 when all do; and each preset's tags with theirs."""
    counts = Counter(chain(*(tags for _, tags in presets)))
    most = math.log(1 + len(presets))
    rarity = {tag: math.log((1 + len(presets)) / count) / most for tag, count in counts.items()}
    return rarity, {style_id: {tag: rarity[tag] for tag in tags} for style_id, tags in presets}


def _cosine(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    norms = math.hypot(*a.values()) * math.hypot(*b.values())
    return math.fsum(weight * b[tag] for tag, weight in a.items() if tag in b) / norms if norms else 0.0


def _tempo_fit(preset: StylePreset, bpm: float | None) -> float:
    """1 inside the preset's range or when unknown; half of that 10 BPM outside it."""
    if bpm is None:
        return 1.0
    low, high = preset.tempo_range
    return float(0.5 ** (max(low - bpm, bpm - high, 0.0) / 10))


def _subject_fit(preset: StylePreset, hints: Collection[str]) -> float:
    """1 unless nothing speaks for what the preset is about: its atmosphere, or the instrument it lists first."""
    match preset.category:
        case "seasonal" | "thematic":
            return 1.0 if preset.atmosphere in hints else UNSEEN
        case "instrumental":
            return 1.0 if preset.instruments[0] in hints else UNSEEN
        case _:
            return 1.0


def _bpm(tags: Iterable[Tag]) -> int | None:
    return next((bpm for tag in tags if (bpm := bpm_of(tag.tag)) is not None), None)


def _voice(tags: Collection[str], taxonomy: Taxonomy) -> bool | None:
    """True when a voice leads, False when there is none, None when nothing is known."""
    if not taxonomy.voices.isdisjoint(tags):
        return True
    return False if "instrumental" in tags else None


def _voice_fit(preset: StylePreset, voice: bool | None, taxonomy: Taxonomy) -> float:
    """1 when preset and track agree on a leading voice; a sung style needs evidence of one."""
    sung = _voice([preset.vocal_type or ""], taxonomy) is True
    if voice is None:
        return 0.7 if sung else 1.0
    return 1.0 if sung == voice else 0.4
