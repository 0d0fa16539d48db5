"""The asset `style_taxonomy`: the vocabulary and presets that everything after it describes music with."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from lofi_assets.constitution.gates import gates_of, judge_asset, load_gates
from lofi_assets.files.hashing import hash_of
from lofi_assets.outcome import Outcome
from lofi_assets.records import StylePreset
from lofi_assets.store import CONFIG_DIR
from lofi_assets.styles.presets import load_presets, taxonomy_hash, written_presets
from lofi_assets.styles.strict_yaml import StyleError
from lofi_assets.styles.taxonomy import Taxonomy, load_taxonomy
from lofi_assets.wording import counted


@cache
def vocabulary() -> tuple[Taxonomy, Mapping[str, StylePreset]]:
    """Taxonomy and presets of this checkout."""
    taxonomy = load_taxonomy(CONFIG_DIR)
    return taxonomy, load_presets(CONFIG_DIR, taxonomy)


def describe_taxonomy(config_dir: Path = CONFIG_DIR) -> Outcome:
    """The vocabulary as the UI shows it.

    Presets that are too few, or use a tag that is not documented, are a measured fault for the gates.

    Raises:
        StyleError: the files are refused for another reason, which the message gives.
    """
    taxonomy = load_taxonomy(config_dir)
    count, undocumented = written_presets(config_dir, taxonomy)
    values = {"presets": count, "undocumented_tags": len(undocumented)}
    try:
        presets = load_presets(config_dir, taxonomy)
    except StyleError as error:
        if all(
            verdict.passed
            for verdict in judge_asset(gates_of(load_gates(), asset="style_taxonomy", scope="asset"), values)
        ):
            raise
        return Outcome(
            data_version=hash_of(str(error)),
            summary=f"config/styles is refused, so no track can be tagged: {error}",
            counts={"presets": count},
            values=values,
            details={"refused": str(error), "undocumented": ", ".join(undocumented) or None},
        )
    return Outcome(
        data_version=taxonomy_hash(taxonomy, presets),
        summary=f"{counted(len(presets), 'style preset')} over {len(taxonomy.categories)} categories of tags. "
        "Nothing waits for a person.",
        counts={
            "categories": len(taxonomy.categories),
            "tags": sum(len(category.tags) for category in taxonomy.categories),
            "presets": len(presets),
        },
        values=values,
        rows=[
            {
                "style": preset.style_id,
                "name": preset.name,
                "category": preset.category,
                "extends": preset.extends or "",
                "tempo": f"{preset.tempo_range[0]}-{preset.tempo_range[1]} bpm",
                "tags": ", ".join((*preset.base_tags, *preset.instruments, *preset.production)),
            }
            for preset in presets.values()
        ],
    )
