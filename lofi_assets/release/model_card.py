"""The model card, generated from what the assets recorded, and a person's approval of it (constitution, Export).

The text, which sections it must have, and the approval file. The numbers are read, never computed.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic.dataclasses import dataclass

from lofi_assets.backbones import Backbone
from lofi_assets.constitution.gates import load_constitution, load_gates
from lofi_assets.constitution.verdicts import verdicts
from lofi_assets.errors import LofiError
from lofi_assets.evaluation.human_evaluation import HumanEvaluation, verdict_of
from lofi_assets.evaluation.measured import read_measured
from lofi_assets.files.documents import write_text
from lofi_assets.files.typed import STORED, plain, read_typed, write_typed
from lofi_assets.metrics.results import Evaluation
from lofi_assets.near_names import says_nothing
from lofi_assets.outcome import Outcome, Written
from lofi_assets.profiles import Profile
from lofi_assets.quantization.merged_model import MergedModel
from lofi_assets.quantization.quantized_tiers import VARIANTS, TierDistances, tier_of
from lofi_assets.quantization.tier_manifest import TierManifest
from lofi_assets.records import Dataset
from lofi_assets.release.bundle_samples import Samples
from lofi_assets.release.card_metadata import front_matter, interval_text
from lofi_assets.release.card_start import foreign_licences, start_line
from lofi_assets.release.comfyui import BASE_CHECKPOINT, WORKFLOW
from lofi_assets.release.comfyui_checkpoint import CHECKPOINT
from lofi_assets.release.private_names import known_tracks, private_names
from lofi_assets.release.private_search import PrivateNames
from lofi_assets.release.published_text import published_text
from lofi_assets.sources.inventory import read_inventory
from lofi_assets.sources.licences import attribution_of, load_licences
from lofi_assets.sources.raw_files import raw_track_id
from lofi_assets.store import CONFIG_DIR, Store
from lofi_assets.training.base_model import backbone_for
from lofi_assets.training.config import TrainingRun, load_run
from lofi_assets.training.trained_on import trained_dataset

SECTIONS = (
    "What it is",
    "Usage",
    "Training data",
    "Training",
    "Quality",
    "Tiers",
    "Intended use and limits",
    "Licence and attribution",
)
"""Headings a card must have, each with text under it."""
CARD_GATES = ("model_card",)
OWN_BASES = {
    "tiny": "a tiny base of the same architecture with random weights",
    "shipped": "the small base of the same architecture that lofi_assets trains on synthesised music and ships",
}


class ApprovalError(LofiError, RuntimeError):
    """There is no card to approve, or it is not the one the person read."""


@dataclass(frozen=True, config=STORED)
class Approval:
    """That a person approved a card: `release/approval.json`, written by `lofi approve-card`."""

    card_sha256: str
    """Of the text that they read."""
    approved_by: str
    date: str
    """ISO 8601, UTC."""

    @classmethod
    def read(cls, store: Store) -> "Approval | None":
        """The last one; None before the first.

        Raises:
            StoreError: it is broken, or of another version.
        """
        return read_typed(cls.path(store), cls, remedy="remove it, read the card and approve it: lofi approve-card")

    def write(self, store: Store) -> None:
        """Put on record, in the place of an earlier one."""
        write_typed(self.path(store), self)

    @staticmethod
    def path(store: Store) -> Path:
        """Where it is on record."""
        return store.release / "approval.json"


def write_card(store: Store, profile: Profile) -> Outcome:
    """Write `release/README.md`; says whether a person approved exactly this text."""
    text = card_text(store, profile)
    changed = write_text(store.release / "README.md", text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    approval = Approval.read(store)
    approved = approval is not None and approval.card_sha256 == digest and bool(approval.approved_by)
    by = f"read it, then: lofi approve-card {digest[:12]}"
    if approval and approved:
        by = f"approved by {approval.approved_by}"
    lacks = missing_sections(text)
    return Outcome(
        data_version=digest,
        summary=_summary(by, approved=approved, lacks=lacks),
        counts={"characters": len(text), "recomputed": int(changed)},
        values={
            "missing_sections": len(lacks),
            "approved": {"value": approved, "note": by},
        },
        written=Written([store.release / "README.md"], given=[Approval.path(store)] if approval else []),
        details={"card": text, "approved": approved},
    )


def _summary(by: str, *, approved: bool, lacks: Sequence[str]) -> str:
    lacking = f" It lacks: {', '.join(lacks)}." if lacks else ""
    return (
        f"The card as it is now is {by}." if approved else f"The card waits for a person: {by} --by NAME."
    ) + lacking


def approve(store: Store, *, card: str, by: str, now: datetime | None = None) -> str:
    """Record that a person approves the card whose sha256 starts with `card`; returns the whole hash.

    Raises:
        ApprovalError: no card, or another text than the one that was read.
    """
    path = store.release / "README.md"
    if says_nothing(by):
        raise ApprovalError("an approval needs a name: --by NAME")
    if not path.is_file():
        raise ApprovalError(f"{path}: there is no card yet; materialise model_card")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if len(card) < 8 or not digest.startswith(card):
        raise ApprovalError(f"{path} has sha256 {digest[:12]}..., not {card!r}; read the card as it is now")
    stamp = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    Approval(digest, by, stamp).write(store)
    return digest


def missing_sections(text: str) -> list[str]:
    """Required sections that are absent or empty."""
    missing = []
    for section in SECTIONS:
        _, found, rest = text.partition(f"\n## {section}\n")
        if not found or not rest.partition("\n## ")[0].strip():
            missing.append(section)
    return missing


def card_text(store: Store, profile: Profile) -> str:
    """The card as Markdown with the Hub's metadata block; the same text for the same recorded facts."""
    _, dataset, tracks = trained_dataset(store)
    merged = MergedModel.read(store)
    checkpoint = merged.checkpoint_id if merged else ""
    measured = read_measured(store).get(checkpoint)
    quality = measured.evaluation if measured else None
    family = merged.backbone if merged else backbone_for(profile.base_model)
    run = _run(store, merged)
    used = {track.track_id for track in tracks} | set(run.initial.trained_on if run and run.initial else ())
    parts = {
        "What it is": _what(profile, family, checkpoint),
        "Usage": _usage(profile),
        "Training data": _data(dataset),
        "Training": _training(run, merged),
        "Quality": _quality(store, quality, private_names(store, known_tracks(store, checkpoint))),
        "Tiers": _tiers(store),
        "Intended use and limits": _limits(),
        "Licence and attribution": "\n".join([_licence(store, profile, used), *foreign_licences(store, run)]),
    }
    body = "\n\n".join(f"## {title}\n\n{text.strip()}" for title, text in parts.items())
    metadata = front_matter(profile, family, quality, Samples.read(store.export))
    return f"{metadata}\n# Lofi LoRA for {family.title}\n\n{body}\n"


def _what(profile: Profile, family: Backbone, checkpoint: str) -> str:
    return (
        f"A low-rank adaptation of {family.title} for lofi music: checkpoint `{checkpoint}`, trained on "
        f"{_base(profile)}. Every track was licensed for AI training; every rule of the project's constitution "
        f"(version {load_constitution()['version']}) was checked by a gate whose verdict is listed below."
    )


def _base(profile: Profile) -> str:
    """The base in words: its Hub repository and commit, or what it is; never the folder that it lies in."""
    base = profile.base_model
    if base.kind == "hub":
        return f"{base.path} at `{base.revision}`" if base.revision else base.path
    return OWN_BASES.get(base.kind, "a base of the same architecture that is not on the Hub")


def _usage(profile: Profile) -> str:
    """One paragraph per application; what was run to know it stands in `test_training_forms.py`."""
    adapter = profile.release.repo_id or "the folder adapter/"
    tiers = profile.release.tiers_repo_id or "the folder tiers/"
    return f"""Prompts are comma-separated tags: genre, mood, instruments, tempo, production, atmosphere, vocal type.

**ACE-Step's own pipeline** opens `pytorch_lora_weights.safetensors` at the root of {adapter}, which carries its
strength in its weights: `pipeline(prompt=..., lora_name_or_path="{adapter}", lora_weight=1.0)`. The call by which it
loads the file was run in a test.

**ComfyUI**: `comfyui_lora.safetensors` goes into `models/loras`, the base ({BASE_CHECKPOINT}) into
`models/checkpoints`; open `{WORKFLOW}`. Strength 1.0 is the trained one. The names of the tensors were compared with
ComfyUI's source; ComfyUI itself was not run. An adapter with DoRA has no form for it.{_merged_usage(profile)}

**peft and diffusers**: `adapter_model.safetensors` with `adapter_config.json`, or `load_lora_adapter(folder,
weight_name="pytorch_lora_weights.safetensors", prefix=None)`. Both were run in tests.

**ONNX Runtime** with numpy alone, from `bundle/` of {tiers}; it was run there with nothing but its requirements:

```
pip install -r requirements.txt
python generate.py "lofi hip hop, mellow, rhodes, 74 bpm, vinyl crackle" --tier int8
```

`fp16` for quality, `int8` for a balance of size and quality, `int4` for experiments on small devices. Where only a CPU
computes, `int8` takes `transformer.cpu.onnx`: the same weights, multiplied in integers, which is faster."""


def _merged_usage(profile: Profile) -> str:
    """That the adapter is also there in its base, where the release has it."""
    if not profile.release.comfyui_checkpoint:
        return ""
    where = profile.release.merged_repo_id or "the folder merged/"
    return (
        f"\n\n**ComfyUI, without a LoRA node**: `{CHECKPOINT}` of {where} is base and adapter in one file, in BF16; it "
        "goes into `models/checkpoints`. It was not run in ComfyUI either."
    )


def _data(dataset: Dataset) -> str:
    styles = ", ".join(f"{name} {count}" for name, count in dataset.style_distribution.items())
    return (
        f"Dataset `{dataset.dataset_id}` (sha256 `{dataset.hash}`): {dataset.track_count} tracks, "
        f"{dataset.total_duration:.2f} hours; {dataset.train_count} to train, "
        f"{dataset.validation_count} held out. Tracks per style: {styles}."
    )


def _run(store: Store, merged: MergedModel | None) -> TrainingRun | None:
    config = store.checkpoints / merged.checkpoint_id / "config.json" if merged else None
    return load_run(config) if config and config.is_file() else None


def _training(run: TrainingRun | None, merged: MergedModel | None) -> str:
    settings = {**run.lora.model_dump(mode="json"), **run.training.model_dump(mode="json")} if run else {}
    shown = ("r", "lora_alpha", "use_rslora", "learning_rate", "max_steps", "precision", "gradient_clip", "seed")
    seldom = [name for name in ("rank_pattern", "alpha_pattern", "lora_dropout") if settings.get(name)]
    rows = "\n".join(f"| {name} | {settings.get(name)} |" for name in (*shown, *seldom))
    base, adapter, scale = (merged.base_fingerprint, merged.adapter_sha256, merged.scale) if merged else (None,) * 3
    layers = merged.layers if merged else {}
    different = f" at most ({', '.join(f'{n} layers {at}' for at, n in layers.items())})" if layers else ""
    text = (
        f"| setting | value |\n|---|---|\n{rows}\n\n"
        f"Base fingerprint `{base}`, adapter sha256 `{adapter}`, applied scale {scale}{different}."
    )
    return "\n\n".join(filter(None, [text, start_line(run)]))


def _quality(store: Store, quality: Evaluation | None, names: PrivateNames) -> str:
    gates = [gate for gate in load_gates() if gate.asset not in CARD_GATES and gate.scope == "asset"]
    rows = "\n".join(
        f"| `{found.gate.id}` | {found.status} | {published_text(found, names)} |" for found in verdicts(store, gates)
    )
    return (
        f"{_distances(quality)} Listening test: {_heard(HumanEvaluation.read(store))}.\n\n"
        f"| gate | verdict | value and limit |\n|---|---|---|\n{rows}"
    )


def _distances(quality: Evaluation | None) -> str:
    fad = quality.fad if quality else None
    clips, windows = (fad.n_clips, fad.n_windows) if fad else (None, None)
    value, floor, kad = (fad.value, fad.floor, fad.kad) if fad else (None, None, None)
    return (
        f"FAD {_number(value)} ({quality.encoder if quality else None}, {clips} clips, {windows} windows"
        f"{interval_text(fad.interval if fad else None)}, where as many real clips have {_number(floor)}), "
        f"KAD {_number(kad)}{interval_text(fad.kad_interval if fad else None)}."
    )


def _heard(people: HumanEvaluation | None) -> str:
    """The verdict of all tests, each test with who lifted it, the numbers; what version 1 took supports no claim."""
    if people is None or not people.tests:
        took = people is not None and people.statistics is not None
        return "answers of an earlier version only, which support no claim" if took else "not run"
    tests = [
        f"test {test.test} {test.verdict or 'goes on'}" + (f", lifted by {test.lifted}" if test.lifted else "")
        for test in people.tests
    ]
    numbers = json.dumps(plain(people.statistics)) if people.statistics else people.note
    return f"{verdict_of(people) or 'no verdict'} ({'; '.join(tests)}). {numbers}"


def _tiers(store: Store) -> str:
    distances = TierDistances.read(store)
    rows = []
    for variant in VARIANTS:
        manifest = TierManifest.read(store.quantized / tier_of(variant))
        measured = distances.fidelity.get(variant) if distances else None
        policy = manifest.policy if manifest else None
        size = f"{(policy.size_bytes if policy else 0) / 1e6:.2f} MB"
        bits = ", ".join(f"{part} {count}" for part, count in sorted(policy.min_bits.items())) if policy else ""
        opset, upper = manifest.opset if manifest else None, measured.upper if measured else None
        rows.append(f"| {variant} | {opset} | {size} | {bits} | {_number(upper)} |")
    table = "| tier | opset | size | fewest bits | FAD increase over FP32, 95 % upper bound |\n|---|---|---|---|---|\n"
    return table + "\n".join(rows)


def _limits() -> str:
    return (
        "For making instrumental and vocal lofi music. Not for imitating a living artist, and not for passing "
        "generated music off as human where that matters. The model knows the styles of its taxonomy and "
        "little else; speech, other genres and long song structure are outside what was evaluated."
    )


def _licence(store: Store, profile: Profile, used: set[str]) -> str:
    inventory = read_inventory(store)
    files = {row.track_id for row in inventory}
    sources = {raw_track_id(track_id, inventory=files) for track_id in used}
    rows = [row for row in inventory if row.track_id in sources]
    types = sorted({f"{row.license_type} ({row.provider})" for row in rows})
    licences = load_licences(CONFIG_DIR)
    named = [attribution_of(row.attribution, row.provider, licences.find(row.license_type)) for row in rows]
    credits = sorted({text for text in named if text})
    lines = [
        f"The adapter's weights, and the tiers as far as they are ours: {profile.release.license}.",
        "",
        f"Not licensed by us: the base ({_base(profile)}), which an adapter needs and which the tiers hold in other "
        "precisions. Its own licence holds for it.",
        "",
        "Training tracks were used under the following licences, and are not part of this release:",
        "",
    ]
    lines += [f"- {kind}" for kind in types]
    if credits:
        lines += ["", "Attribution:", "", *(f"- {credit}" for credit in credits)]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3g}"
