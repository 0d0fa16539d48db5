"""A LoRA of any origin, sampled and measured as the checkpoints are, beside them and the base.

    samples/lora-<id>/                 its clips
    cache/loras/<id>/                  its weights in the form that is sampled, and its numbers (`Numbers`)

Nothing here is judged or released: the LoRA does not enter the manifest, and no gate sees it. What belongs here: which
numbers are made again, and the table. What does not: the forms (`training.adapter_forms`), the measures (`metrics/`).
"""

from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from lofi_assets.errors import LofiError
from lofi_assets.evaluation import report, sample_gates
from lofi_assets.evaluation.generated_samples import generate, sample_key
from lofi_assets.evaluation.measured import Marks, read_measured
from lofi_assets.evaluation.quality_metrics import evaluate_models, metrics_key, still
from lofi_assets.evaluation.samples import BASE, sample_prompts, samples_key
from lofi_assets.files.hashing import hash_of
from lofi_assets.files.typed import STORED, read_typed, write_typed
from lofi_assets.metrics.results import Evaluation
from lofi_assets.profiles import Profile
from lofi_assets.store import Store
from lofi_assets.training.adapter_forms.adapter import Adapter
from lofi_assets.training.adapter_forms.writing import write_lora
from lofi_assets.training.checkpoints.files import DIFFUSERS_WEIGHTS
from lofi_assets.training.checkpoints.manifest import read_manifest
from lofi_assets.training.feature_cache import FeatureRecord
from lofi_assets.wording import named

NUMBERS = "numbers.json"


class NothingToCompareError(LofiError, RuntimeError):
    """There is nothing to prompt with; the message says what to materialise."""


@dataclass(frozen=True, config=STORED)
class Numbers:
    """The measures of a LoRA."""

    key: str
    """What they depend on (`quality_metrics.metrics_key`)."""
    evaluation: Evaluation


@dataclass(frozen=True, kw_only=True, config=STORED)
class Comparison:
    """A LoRA beside the checkpoints and the base."""

    name: str
    """Its folder in `samples/`."""
    clips: str
    evaluation: Evaluation
    rows: list[dict[str, Any]]
    """A row for the LoRA, each checkpoint whose numbers are current, the latest first, and the base."""
    notes: tuple[str, ...]
    """What the table lacks."""


def lora_name(adapter: Adapter) -> str:
    """`lora-<12 hex digits>` of content and strengths."""
    return f"lora-{hash_of(adapter.sha256, {layer: pair.scale for layer, pair in adapter.pairs.items()})[:12]}"


def evaluate_lora(store: Store, profile: Profile, adapter: Adapter) -> Comparison:
    """Sample and measure a LoRA with the prompts, seeds and reference of the checkpoints; what is there is kept.

    Args:
        adapter: read for the base that the features are of.
    Raises:
        NothingToCompareError: no validation track to prompt with.
        FeatureError, DatasetError, MetricError: as of `generated_samples` and `quality_metrics`.
    """
    base, prompts, name = FeatureRecord.read(store), sample_prompts(store, profile.sampling), lora_name(adapter)
    if not prompts:
        raise NothingToCompareError("no validation track to prompt with; materialise dataset_manifest with more tracks")
    weights = _weights(store, adapter, name)
    key = sample_key(weights, base, prompts, profile.sampling)
    if samples_key(store, name) != key:
        generate(store, {name: weights}, base, prompts, profile.sampling, {name: key})
    evaluation = _numbers(store, profile, name)
    rows, notes = _beside(store, profile)
    own = {"model": name} | report.row(evaluation) | sample_gates.columns(evaluation)
    return Comparison(
        name=name, clips=str(store.samples / name), evaluation=evaluation, rows=[own, *rows], notes=tuple(notes)
    )


def _weights(store: Store, adapter: Adapter, name: str) -> Path:
    folder = store.cache / "loras" / name
    if not (folder / DIFFUSERS_WEIGHTS).is_file():
        write_lora(adapter, folder, to="diffusers")
    return folder / DIFFUSERS_WEIGHTS


def _numbers(store: Store, profile: Profile, name: str) -> Evaluation:
    path, key = store.cache / "loras" / name / NUMBERS, metrics_key(store, profile, name)
    known = read_typed(path, Numbers, remedy="remove it and run again")
    if known is None or not still(known.key, key):
        found, _ = evaluate_models(store, profile, [name], with_noise=False)
        known = Numbers(key, found[name])
        write_typed(path, known)
    return known.evaluation


def _beside(store: Store, profile: Profile) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of the checkpoints and the base whose numbers were made under the same conditions, and what is missing."""
    measured, marks, rows, missing = read_measured(store), Marks.read(store), [], []
    for record in sorted(read_manifest(store.checkpoints), key=lambda record: -record.step):
        identifier = record.checkpoint_id
        found = measured.get(identifier)
        if found and still(found.key, metrics_key(store, profile, identifier)):
            rows.append({"model": identifier} | report.row(found.evaluation) | sample_gates.columns(found.evaluation))
        else:
            missing.append(identifier)
    if marks and still(marks.key, metrics_key(store, profile, BASE)):
        rows.append({"model": BASE} | report.row(marks.base) | sample_gates.columns(marks.base))
    else:
        missing.append(BASE)
    said = f"no current numbers of {named(missing)}: materialise generated_samples and quality_metrics"
    return rows, [said] if missing else []
