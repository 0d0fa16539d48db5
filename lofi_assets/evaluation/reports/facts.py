"""What the pages of the checkpoints are made of, read from what is on record; nothing is measured here.

What belongs here: which models there are, their clips, real tracks and licences, what they were made with. What does
not: how it looks (`checkpoint_page.py`, `comparison_page.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from lofi_assets.constitution.amendments import constitution_hashes
from lofi_assets.constitution.gates import load_constitution
from lofi_assets.dataset.versions import DatasetVersion
from lofi_assets.environment import variable
from lofi_assets.evaluation.human_evaluation import HumanEvaluation
from lofi_assets.evaluation.measured import Marks, Measured, read_measured
from lofi_assets.evaluation.samples import BASE, Clip, clips_of
from lofi_assets.files.hashing import sha256_file
from lofi_assets.listening import ledger
from lofi_assets.metrics.results import Evaluation
from lofi_assets.metrics.sample_checks import CheckedClip
from lofi_assets.records import Checkpoint, SourceRecord
from lofi_assets.sources.claims import load_sources
from lofi_assets.sources.ledger_text import ledger_path
from lofi_assets.sources.licences import SourceError, attribution_of, load_licences
from lofi_assets.store import CONFIG_DIR, Store
from lofi_assets.training.checkpoints.files import DIFFUSERS_WEIGHTS
from lofi_assets.training.checkpoints.manifest import best, pruned_records, read_manifest
from lofi_assets.training.trained_on import trained_dataset


@dataclass(frozen=True, kw_only=True)
class Model:
    """A checkpoint or the base, as it was measured."""

    name: str
    """Checkpoint id, or `BASE`."""
    step: int
    """0: the base."""
    evaluation: Evaluation
    clips: tuple[Clip, ...]
    """Those that lie there now, by name."""
    record: Checkpoint | None
    """None: the base."""
    measured_on: datetime | None
    """None: the base, of which it is not kept."""
    pruned: bool
    as_measured: bool
    """Whether clips and weights that lie there now are those that the numbers are of."""

    @property
    def title(self) -> str:
        """For people."""
        return "Base" if self.name == BASE else f"Step {self.step:,}"

    @property
    def checked(self) -> Mapping[str, CheckedClip]:
        """File name -> checks; none of a version without checks."""
        return {clip.file: clip for clip in self.evaluation.checks.clips} if self.evaluation.checks else {}


@dataclass(frozen=True, kw_only=True)
class RealTrack:
    """A real track that is played, with what its licence says."""

    track_id: str
    path: Path
    split: str
    licence: str
    """Provider, licence, and the credit that it asks for."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything on record about the evaluated checkpoints."""

    models: tuple[Model, ...]
    """By step; the base first, if it was measured."""
    unmeasured: tuple[str, ...]
    """Checkpoints that lie there and were not measured yet."""
    best: Checkpoint | None
    marks: Marks | None
    dataset: DatasetVersion
    licences: Mapping[str, str]
    """Source id -> what is said of it."""
    heard: HumanEvaluation | None
    constitution: Mapping[str, str]
    """Version and hashes of what is in force."""
    profile: str

    def model(self, name: str) -> Model:
        """A model by its name; KeyError if it was not measured."""
        return {model.name: model for model in self.models}[name]

    @property
    def checkpoints(self) -> tuple[Model, ...]:
        """Without the base."""
        return tuple(model for model in self.models if model.name != BASE)

    @property
    def unevaluated(self) -> int:
        """Checkpoints without a FAD."""
        return len(self.unmeasured) + sum(model.evaluation.fad.value is None for model in self.checkpoints)

    def real(self, track_id: str) -> RealTrack | None:
        """A track of the dataset that was trained on; None for another name."""
        for track in self.dataset.tracks:
            if track.track_id == track_id:
                return RealTrack(
                    track_id=track_id,
                    path=self.dataset.audio(track_id),
                    split=track.split,
                    licence=self.licences.get(track.source_id, f"source {track.source_id}: no valid record on file"),
                )
        return None


def gather(store: Store) -> Facts | None:
    """What is on record; None before any checkpoint was measured.

    Raises:
        StoreError, DatasetError, CheckpointError: a record is broken, or the dataset that was trained on is gone.
    """
    measured, marks = read_measured(store), Marks.read(store)
    kept = read_manifest(store.checkpoints)
    records = {record.checkpoint_id: record for record in (*pruned_records(store.checkpoints), *kept)}
    known = {name: record for name, record in records.items() if name in measured}
    if not known:
        return None
    present = {record.checkpoint_id for record in kept}
    models = [
        _checkpoint(store, record, measured[name], pruned=name not in present)
        for name, record in sorted(known.items(), key=lambda item: item[1].step)
    ]
    return Facts(
        models=(*([_base(store, marks)] if marks else ()), *models),
        unmeasured=tuple(sorted(present - measured.keys())),
        best=best(kept),
        marks=marks,
        dataset=trained_dataset(store),
        licences=_licences(store),
        heard=_heard(store),
        constitution=_constitution(),
        profile=variable("LOFI_PROFILE") or "demo",
    )


def _checkpoint(store: Store, record: Checkpoint, measured: Measured, *, pruned: bool) -> Model:
    return Model(
        name=record.checkpoint_id,
        step=record.step,
        evaluation=measured.evaluation,
        clips=_present(store, record.checkpoint_id),
        record=record,
        measured_on=measured.record.evaluation_date,
        pruned=pruned,
        as_measured=_same_clips(store, record.checkpoint_id, measured.key)
        and record.timestamp <= measured.record.evaluation_date,
    )


def _base(store: Store, marks: Marks) -> Model:
    return Model(
        name=BASE,
        step=0,
        evaluation=marks.base,
        clips=_present(store, BASE),
        record=None,
        measured_on=None,
        pruned=False,
        as_measured=_same_clips(store, BASE, marks.key),
    )


def _present(store: Store, model: str) -> tuple[Clip, ...]:
    return tuple(sorted((clip for clip in clips_of(store, model) if clip.file(store).is_file()), key=_name))


def _name(clip: Clip) -> str:
    return PurePosixPath(clip.path).name


def _same_clips(store: Store, model: str, key: str) -> bool:
    """By the hash of their bytes that stands in the key of the numbers; of clips that are gone nothing is said."""
    from lofi_assets.metrics.encoders import content_of

    files = [clip.file(store) for clip in clips_of(store, model)]
    return not all(file.is_file() for file in files) or key.partition(".")[2] == content_of(files)


def _heard(store: Store) -> HumanEvaluation | None:
    """What people heard, if it was of the weights that lie there under this name now: the ledger knows them by hash."""
    found = HumanEvaluation.read(store)
    if found is None or not (found.tests or found.statistics):
        return found
    weights = store.checkpoints / str(found.checkpoint_id) / DIFFUSERS_WEIGHTS
    if not weights.is_file():
        return None
    own = {entry.test for entry in ledger.opened(ledger.read_ledger(store), about=sha256_file(weights))}
    return found if found.tests and all(test.test in own for test in found.tests) else None


def _licences(store: Store) -> dict[str, str]:
    try:
        records = load_sources(ledger_path(store)).records
        licences = load_licences(CONFIG_DIR)
    except SourceError:
        return {}
    return {
        record.source_id: _licence(
            record, attribution_of(record.attribution, record.provider, licences.find(record.license_type))
        )
        for record in records
    }


def _licence(record: SourceRecord, credit: str) -> str:
    said = f"{record.provider}, {record.license_type}"
    withdrawn = " (withdrawn)" if record.revoked else ""
    return f"{said}{withdrawn}" + (f". {credit}" if credit else "")


def _constitution() -> dict[str, str]:
    """Version and hashes; only the version where the text is not beside the configuration."""
    version = {"version": str(load_constitution()["version"])}
    try:
        return version | constitution_hashes(CONFIG_DIR.parent)
    except OSError:
        return version
