"""The documents of a bundle: `pipeline.json`, README, LICENSE, NOTICE, ATTRIBUTION.md, all as text.

Texts of the model family come from its `ReleaseRuntime`; what is said of rights comes from the ledger.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lofi_assets.backbones.export import ReleaseRuntime
from lofi_assets.errors import LofiError
from lofi_assets.profiles import Profile
from lofi_assets.quantization.tier_manifest import TierManifest
from lofi_assets.sources.claims import load_sources
from lofi_assets.sources.inventory import SourceRow, read_inventory
from lofi_assets.sources.licences import LicenceType, attribution_of, load_licences
from lofi_assets.sources.raw_files import raw_track_id
from lofi_assets.store import CONFIG_DIR, Store
from lofi_assets.training.trained_on import trained_dataset
from lofi_assets.wording import counted

CHANGES = "Decoded, brought to 48 kHz and one peak level, cut, and trained on; the weights hold no recording."
"""What was done to every track (CC BY 4.0, 3(a)(1)(B): indicate if you modified the material)."""


class GraphsDifferError(LofiError, RuntimeError):
    """The tiers are not called in the same way, so one description cannot serve them all."""


@dataclass(frozen=True)
class Attributions:
    """`ATTRIBUTION.md`, and which sources it cannot credit as their licence asks."""

    text: str
    incomplete: tuple[str, ...]
    """`source id: what is missing`."""


def pipeline_json(
    carried: ReleaseRuntime, tiers: Mapping[str, TierManifest], folders: Mapping[str, Path], *, profile: Profile
) -> str:
    """`pipeline.json`: the family's description with the graphs as they are in the files.

    Args:
        folders: of the tiers.
    Raises:
        GraphsDifferError: a graph has other inputs or outputs in one tier than in another.
    """
    signatures = {tier: _signatures(folder) for tier, folder in folders.items()}
    first = next(iter(signatures))
    for tier, found in signatures.items():
        other = sorted(
            name for name in found.keys() | signatures[first].keys() if found.get(name) != signatures[first].get(name)
        )
        if other:
            raise GraphsDifferError(
                f"{', '.join(other)}: inputs or outputs of {tier} are not those of {first}; materialise quantized_tiers"
            )
    graphs = {name: {"file": f"{name}.onnx", **found} for name, found in signatures[first].items()}
    about = {
        tier: {
            "folder": tier,
            "opset": made.policy.opset,
            "domains": sorted({domain for part in made.policy.components for domain in part.domains}),
            "fewest_bits": {part.component: part.min_bits for part in made.policy.components},
            "graph_files": sorted(name for name in made.files if name.endswith(".onnx")),
        }
        for tier, made in tiers.items()
    }
    settings = profile.quantization
    described = carried.describe(settings.steps, settings.guidance_scale, graphs, about)
    return json.dumps(described, indent=2, ensure_ascii=False) + "\n"


def _signatures(folder: Path) -> dict[str, dict[str, Any]]:
    """Component -> names, types and shapes; a CPU's own graph of one is called like it and has no entry."""
    from lofi_assets.quantization.graph import load

    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.onnx"), key=lambda path: (path.stem.endswith(".cpu"), path)):
        graph = load(path, weights=False).graph
        known = {"inputs": _values(graph.input), "outputs": _values(graph.output)}
        component = path.stem.removesuffix(".cpu")
        if found.setdefault(component, known) != known:
            raise GraphsDifferError(f"{path}: its inputs or outputs are not those of {component}.onnx beside it")
    return found


def _values(values: Any) -> dict[str, dict[str, Any]]:
    from onnx.helper import tensor_dtype_to_np_dtype

    return {
        value.name: {
            "type": tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
            "shape": [
                size.dim_value if size.HasField("dim_value") else size.dim_param
                for size in value.type.tensor_type.shape.dim
            ],
        }
        for value in values
    }


def notice(carried: ReleaseRuntime, profile: Profile) -> str:
    """`NOTICE`: what the weights were made from, what was changed, and which licence is whose."""
    licence, base = profile.release.license, profile.base_model
    named = "a base of this architecture that is not from the Hub"
    if base.kind == "hub":
        named = f"{base.path}{f' at revision {base.revision}' if base.revision else ''}"
    return (
        f"Weights: {licence} ({licence_link(licence) or 'no public text'}).\n"
        "Code (generate.py, runtime/): Apache-2.0, the text in LICENSE, from lofi_assets.\n\n"
        f"The weights are a modified version of {named}.\n"
        "Changes: a low-rank adaptation was trained on licensed lofi music and merged into the base, which was\n"
        "exported to ONNX and stored in fewer bits. ATTRIBUTION.md names whose music it was trained on.\n\n"
        f"{carried.notice.strip()}\n"
    )


def attributions(store: Store) -> Attributions:
    """Whom the training tracks' licences ask to name: title and author, source, licence with its link, changes.

    Raises:
        DatasetError, SourceError, StoreError: what was trained on, or its licences, cannot be read.
    """
    _, _, tracks = trained_dataset(store)
    inventory = read_inventory(store)
    known = {row.track_id for row in inventory}
    used = {raw_track_id(track.track_id, inventory=known) for track in tracks}
    records = {record.source_id: record for record in load_sources(store.metadata("sources.json")).records}
    licences, rows = load_licences(CONFIG_DIR), {}
    incomplete: list[str] = [f"{counted(len(used - known), 'track')} without a source"] if used - known else []
    for row in sorted((row for row in inventory if row.track_id in used), key=lambda row: row.source_id):
        licence, evidence = licences.find(row.license_type), getattr(records.get(row.source_id), "evidence", None)
        credit = attribution_of(row.attribution, row.provider, licence)
        if not credit:
            continue
        source = evidence if evidence and evidence.startswith(("https://", "http://")) else ""
        rows[row.source_id] = (credit, source, licence, row)
        if licence.attribution:
            incomplete += [f"{row.source_id}: {fault}" for fault in _faults(row, licence)]
    lines = [_attribution_row(*found) for found in rows.values()]
    table = "\n".join(["| work and author | source | licence | changes |", "|---|---|---|---|", *lines])
    said = table if lines else "No licence of a training track asks for a name."
    text = (
        f"# Attribution\n\nMusic that the adaptation was trained on, as its rights holders ask to be named.\n\n{said}\n"
    )
    return Attributions(text, tuple(dict.fromkeys(incomplete)))


def _faults(row: SourceRow, licence: LicenceType) -> Sequence[str]:
    """What every version of CC BY asks for; the work's address only as far as there is one."""
    missing = {
        "no attribution text with title and author": not row.attribution.strip(),
        f"no link to the text of {licence.id}": not licence_link(licence.id),
    }
    return [fault for fault, so in missing.items() if so]


def _attribution_row(credit: str, source: str, licence: LicenceType, row: SourceRow) -> str:
    name = licence.id or row.license_type
    link = licence_link(name)
    cells = (credit, source or row.provider, f"[{name}]({link})" if link else name, CHANGES)
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def licence_link(licence: str) -> str:
    """Where the text of a licence is; empty for a contract."""
    if deed := re.fullmatch(r"CC-(BY(?:-[A-Z]{2})*)-(\d\.\d)", licence):
        return f"https://creativecommons.org/licenses/{deed[1].lower()}/{deed[2]}/"
    if licence == "CC0-1.0":
        return "https://creativecommons.org/publicdomain/zero/1.0/"
    if licence.casefold() == "apache-2.0":
        return "https://www.apache.org/licenses/LICENSE-2.0"
    return ""
