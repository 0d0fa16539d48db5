"""What a checkpoint was made with, for whoever wants to make it again or to know what was judged."""

from html import escape
from importlib.metadata import PackageNotFoundError, version

from lofi_assets.errors import LofiError
from lofi_assets.evaluation.reports.facts import Facts, Model
from lofi_assets.evaluation.reports.markup import facts
from lofi_assets.files.hashing import sha256_file
from lofi_assets.store import Store
from lofi_assets.training.checkpoints.description import CheckpointDescription
from lofi_assets.training.checkpoints.files import DIFFUSERS_WEIGHTS
from lofi_assets.training.trained_on import TrainedOn

NOT_KEPT = '<span class="none">not on record</span>'


def made_with(store: Store, page: Facts, model: Model) -> str:
    """Hashes of weights, dataset, settings, gates; seeds; versions."""
    return facts((name, body or NOT_KEPT) for name, body in [*_checkpoint(store, model), *_judged(page, model)])


def _checkpoint(store: Store, model: Model) -> list[tuple[str, str]]:
    record = model.record
    if record is None:
        return []
    folder = store.checkpoints / record.checkpoint_id
    weights = folder / DIFFUSERS_WEIGHTS
    try:
        described, trained = CheckpointDescription.read(folder), TrainedOn.read(folder)
    except LofiError as error:
        gone = escape(str(error).replace(str(store.root), "data"))
        return [("weights", f'<span class="none">{gone}</span>'), *_recorded(model)]
    source = described.provenance
    changed = " and changes beside it" if source.git_diff_sha256 else ""
    return [
        ("weights (sha256)", _hash(sha256_file(weights)) if weights.is_file() else ""),
        ("base model", _hash(trained.base_fingerprint)),
        *_recorded(model),
        ("dataset", escape(described.dataset_id)),
        ("run, seed of training", f"{escape(described.run_id)}, {described.seed}"),
        ("code", _hash(source.git_commit) + changed if source.git_commit else ""),
        ("machine", escape(f"{source.machine}, {source.device}, Python {source.python}") if source.python else ""),
        ("packages", escape(", ".join(f"{name} {found}" for name, found in source.packages.items() if found))),
    ]


def _recorded(model: Model) -> list[tuple[str, str]]:
    record = model.record
    if record is None:
        return []
    return [
        ("trained at", f"{record.timestamp:%Y-%m-%d %H:%M} UTC"),
        ("settings (hash)", _hash(record.config_hash)),
        ("dataset (hash)", _hash(record.dataset_hash)),
    ]


def _judged(page: Facts, model: Model) -> list[tuple[str, str]]:
    law = page.constitution
    seeds = [clip.seed for clip in model.clips]
    item = model.evaluation
    return [
        ("seeds of the clips", f"{min(seeds)} to {max(seeds)}" if seeds else ""),
        ("measured at", f"{model.measured_on:%Y-%m-%d %H:%M} UTC" if model.measured_on else ""),
        ("reference (hash)", _hash(item.reference_sha256)),
        ("encoder", f"{escape(item.encoder)} {escape(item.encoder_version)}"),
        ("profile of this page", escape(page.profile)),
        ("constitution", escape(law["version"])),
        ("its text, its gates (hash)", _hash(law.get("text_sha256")) + " " + _hash(law.get("gates_sha256"))),
        ("lofi_assets", escape(_package())),
    ]


def _hash(value: str | None) -> str:
    return f'<span class="hash">{escape(value)}</span>' if value else ""


def _package() -> str:
    try:
        return version("lofi_assets")
    except PackageNotFoundError:
        return ""
