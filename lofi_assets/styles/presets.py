"""The 38 style presets: a prompt, tempo range and category each, read from `config/styles/presets/`."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lofi_assets.records import STYLE_COUNTS, STYLE_PREFIXES, StylePreset, TagCategoryName, dump, parse
from lofi_assets.styles.strict_yaml import StyleError, expected_shape, read_yaml
from lofi_assets.styles.taxonomy import Taxonomy

PRESET_FIELDS: dict[str, TagCategoryName] = {
    "base_tags": "genre",
    "instruments": "instruments",
    "production": "production",
    "mood_options": "mood",
    "atmosphere": "atmosphere",
    "vocal_type": "vocal_type",
}
"""Field of a StylePreset -> the category its tags come from."""


WIDEST_TEMPO_RANGE = 40
"""BPM. A wider range holds a tempo and nearly its double, and then says nothing about octave errors."""


def load_presets(config_dir: Path, taxonomy: Taxonomy) -> dict[str, StylePreset]:
    """All presets by id, in the data model's order, each with its parent's values where it sets none of its own.

    A child's list replaces its parent's; `null` drops an inherited atmosphere or vocal type.

    Raises:
        StyleError: a file is missing or not YAML, ids are not exactly those of the data model, a parent is unknown or
            its own descendant, a tag is not canonical or contradicts another of the preset, or two presets are alike.
    """
    folder = config_dir / "styles" / "presets"
    raw: dict[str, tuple[Path, dict[str, Any]]] = {}
    for category, count in STYLE_COUNTS.items():
        path = folder / f"{category}.yaml"
        entries = _entries(path)
        found = [str(entry.get("style_id")) for entry in entries]
        expected = [f"{_prefix(category)}-{number:02d}" for number in range(1, count + 1)]
        if found != expected:
            raise StyleError(f"{path}: holds {found}; the data model counts {expected}, each once and in this order")
        raw |= {entry["style_id"]: (path, entry | {"category": category}) for entry in entries}
    presets = {style_id: _preset(style_id, raw, taxonomy) for style_id in raw}
    _require_distinct(presets)
    return presets


def written_presets(config_dir: Path, taxonomy: Taxonomy) -> tuple[int, tuple[str, ...]]:
    """How many presets the files hold, and those of their tags that the taxonomy lacks; also where they are refused.

    Raises:
        StyleError: a file is missing or not YAML, or no list of mappings.
    """
    folder = config_dir / "styles" / "presets"
    entries = [entry for category in STYLE_COUNTS for entry in _entries(folder / f"{category}.yaml")]
    values = [entry.get(field) or () for entry in entries for field in PRESET_FIELDS]
    tags = {tag for value in values for tag in ([value] if isinstance(value, str) else value)}
    return len({entry.get("style_id") for entry in entries}), tuple(
        sorted(str(tag) for tag in tags if taxonomy.canonical(str(tag)) is None)
    )


def preset_tags(preset: StylePreset) -> dict[TagCategoryName, tuple[str, ...]]:
    """The tags of a preset by category, in its own order; categories it leaves open are absent."""
    tags: dict[TagCategoryName, tuple[str, ...]] = {}
    for field, category in PRESET_FIELDS.items():
        value = getattr(preset, field)
        if value is not None:
            tags[category] = (value,) if isinstance(value, str) else tuple(value)
    return tags


def taxonomy_hash(taxonomy: Taxonomy, presets: Mapping[str, StylePreset]) -> str:
    """SHA-256 of what tagging depends on; comments, key order and spacing of the files do not change it."""
    content = {
        "categories": [dump(category) for category in taxonomy.categories],
        "bpm": taxonomy.bpm_range,
        "words": [asdict(word) for word in taxonomy.tempo_words],
        "kinds": {tag: sorted(kinds) for tag, kinds in taxonomy.kinds.items()},
        "opposites": {tag: sorted(others) for tag, others in taxonomy.opposites.items()},
        "heard": {
            tagger: {label: [rule.tag, rule.at] for label, rule in rules.items()}
            for tagger, rules in taxonomy.heard.items()
        },
        "presets": {style_id: dump(preset) for style_id, preset in presets.items()},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _entries(path: Path) -> list[dict[str, Any]]:
    data = read_yaml(path)
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        raise StyleError(f"{path}: must be a list of mappings; start each entry with `- `")
    return data


def _prefix(category: str) -> str:
    return next(prefix for prefix, name in STYLE_PREFIXES.items() if name == category)


def _preset(style_id: str, raw: Mapping[str, tuple[Path, dict[str, Any]]], taxonomy: Taxonomy) -> StylePreset:
    path, own = raw[style_id]
    where = f"{path}: {style_id}"
    unknown = sorted(set(own) - set(StylePreset.model_fields))
    if unknown:
        raise StyleError(f"{where}: unknown fields {unknown}; the data model has {list(StylePreset.model_fields)}")
    merged = {key: value for key, value in _inherited(style_id, raw).items() if value is not None}
    with expected_shape(path, style_id, "breaks the data model"):
        preset = parse(StylePreset, merged, where=style_id)
    low, high = preset.tempo_range
    if not taxonomy.bpm_range[0] <= low < high <= taxonomy.bpm_range[1] or high - low > WIDEST_TEMPO_RANGE:
        raise StyleError(
            f"{where}: tempo_range {[low, high]} must rise, within {list(taxonomy.bpm_range)} bpm, "
            f"by at most {WIDEST_TEMPO_RANGE}"
        )
    _require_canonical(where, preset, taxonomy)
    return preset


def _inherited(style_id: str, raw: Mapping[str, tuple[Path, dict[str, Any]]]) -> dict[str, Any]:
    """Fields of a preset over those of its ancestors; identity and name are never inherited."""
    chain = [style_id]
    while (parent := raw[chain[-1]][1].get("extends")) is not None:
        path, _ = raw[chain[-1]]
        if parent not in raw:
            raise StyleError(f"{path}: {chain[-1]} extends {parent!r}, which no file holds; name one that exists")
        if parent in chain:
            raise StyleError(f"{path}: {chain[-1]} extends its own descendant {parent} ({' > '.join(chain)}); break it")
        chain.append(parent)
    fields: dict[str, Any] = {}
    for ancestor in reversed(chain[1:]):
        fields |= {key: raw[ancestor][1][key] for key in (*PRESET_FIELDS, "tempo_range") if key in raw[ancestor][1]}
    return fields | raw[style_id][1]


def _require_canonical(where: str, preset: StylePreset, taxonomy: Taxonomy) -> None:
    by_category = preset_tags(preset)
    for category, tags in by_category.items():
        for tag in tags:
            if taxonomy.canonical(tag) != (category, tag):
                raise StyleError(f"{where}: {tag!r} is no canonical {category} tag; add it to taxonomy.yaml or mend it")
        if len(set(tags)) != len(tags):
            raise StyleError(f"{where}: a {category} tag stands twice; keep one")
    # Moods are options of which a prompt takes one, so they are held against the other tags only.
    fixed = [tag for category, tags in by_category.items() if category != "mood" for tag in tags]
    for tag in [*fixed, *by_category["mood"]]:
        for other in fixed:
            if taxonomy.contradicts(tag, other):
                raise StyleError(f"{where}: {tag!r} and {other!r} exclude each other in taxonomy.yaml; drop one")


def _require_distinct(presets: Mapping[str, StylePreset]) -> None:
    seen: dict[frozenset[str], str] = {}
    for style_id, preset in presets.items():
        tags = frozenset(tag for group in preset_tags(preset).values() for tag in group)
        other = seen.setdefault(tags, style_id)
        if other != style_id:
            raise StyleError(f"config/styles/presets: {other} and {style_id} hold the same tags; make one distinct")


def category_of(style_ids: Sequence[str]) -> str:
    """Style category of a track: that of its first style."""
    return STYLE_PREFIXES[style_ids[0].partition("-")[0]]
