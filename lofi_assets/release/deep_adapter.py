"""The adapter of a release, measured again: its forms against each other, and merged into its base."""

from collections.abc import Mapping
from pathlib import Path

from lofi_assets.backbones import backbone_of
from lofi_assets.constitution.evidence import parsed_statement
from lofi_assets.constitution.gates import load_gates
from lofi_assets.errors import LofiError
from lofi_assets.files.documents import read_json
from lofi_assets.files.hashing import sha256_file
from lofi_assets.release.adapter_files import PublishedRun, expect_config
from lofi_assets.release.deep_verification import FORMS, MERGE, MeasuredAgain, compared
from lofi_assets.release.files import EVIDENCE, ReleaseRecord
from lofi_assets.training.checkpoints.files import PEFT_CONFIG, PEFT_WEIGHTS, RUN_CONFIG
from lofi_assets.training.checkpoints.soundness import fault
from lofi_assets.training.lora_settings import LoraSettings

ROUNDING = 0.1
"""Share of the gate's limit by which two machines may differ: float32 rounding is a hundredth of it."""
MERGED = "merged"


def adapter_again(
    folder: Path, record: ReleaseRecord, *, base: Path | None, scratch: Path
) -> tuple[list[MeasuredAgain], Path | None]:
    """The measurements, and the merged model; None without one."""
    forms = _forms(folder, record)
    if base is None:
        text = f"needs the base ({_named(folder)}): --base FOLDER"
        return [forms, MeasuredAgain(MERGE, "not measured", text=text)], None
    again, merged = _merge(folder, record, base=base, target=scratch / MERGED)
    return [forms, again], merged


def _named(folder: Path) -> str:
    run = PublishedRun.read(folder)
    if run is None:
        return "which its config.json would name"
    known = f"{run.base_model} at {run.base_revision}"
    return known if run.base_model else f"of fingerprint {run.base_fingerprint[:12]}"


def _forms(folder: Path, record: ReleaseRecord) -> MeasuredAgain:
    """That every application loads the same tensors at the same strength."""
    if not (folder / PEFT_WEIGHTS).is_file():
        return MeasuredAgain(FORMS, "differs", record.adapter_sha256[:12], "none", f"there is no {PEFT_WEIGHTS}")
    measured = sha256_file(folder / PEFT_WEIGHTS)
    reason = fault(folder)
    text = reason.replace(str(folder), folder.name) if reason else "every form holds these tensors at this strength"
    same = reason is None and measured == record.adapter_sha256
    return MeasuredAgain(FORMS, "same" if same else "differs", record.adapter_sha256[:12], measured[:12], text)


def _merge(folder: Path, record: ReleaseRecord, *, base: Path, target: Path) -> tuple[MeasuredAgain, Path | None]:
    run = PublishedRun.read(folder)
    if run is None:
        return MeasuredAgain(MERGE, "not measured", text=f"{RUN_CONFIG} is absent"), None
    try:
        # peft imports and does what a configuration says: only one without effect but the adapter's is given to it.
        expect_config(read_json(folder / PEFT_CONFIG), LoraSettings.model_validate(run.lora), where=Path(PEFT_CONFIG))
    except (LofiError, ValueError) as error:
        return MeasuredAgain(MERGE, "differs", text=" ".join(str(error).split())), None
    backbone = backbone_of(run.architecture)
    fingerprint = backbone.fingerprint(base)
    if fingerprint != record.base_fingerprint:
        text = f"{base} is the base {fingerprint[:12]}, and the adapter is for {record.base_fingerprint[:12]}"
        return MeasuredAgain(MERGE, "not measured", record.base_fingerprint[:12], fingerprint[:12], text), None
    try:
        from lofi_assets.quantization.merge import MergeError, merge_lora
    except ImportError as error:
        return MeasuredAgain(MERGE, "not measured", text=f"merging needs torch and peft here ({error})"), None
    try:
        report = merge_lora(base, folder, target, backbone=backbone)
    except MergeError as error:
        return MeasuredAgain(MERGE, "differs", text=str(error)), None
    except Exception as error:  # of peft over files of a release, which may raise anything
        return MeasuredAgain(MERGE, "not measured", text=f"{type(error).__name__}: {error}"), None
    limit = next(float(gate.limit) for gate in load_gates() if gate.id == MERGE)
    told = (
        f"largest difference of merged and adapted outputs; rank {report.rank}, scale {report.scale:g}"
        f"{' at most' if report.layers else ''}, "
        f"{report.modules} layers; the adapter moves outputs by {report.adapter_effect:.2g}"
    )
    recorded = _recorded(folder, "merge_max_error")
    return compared(MERGE, recorded=recorded, measured=report.max_error, within=ROUNDING * limit, text=told), target


def _recorded(folder: Path, measure: str) -> float | None:
    """What `merged_model` measured, as its evidence has it; None where that is no number."""
    path = folder / EVIDENCE / "merged_model.json"
    data = read_json(path)
    if data is None:
        return None
    value = parsed_statement(data, where=str(path), remedy="download the release again").values.get(measure)
    number = value.get("value") if isinstance(value, Mapping) else value
    return float(number) if isinstance(number, int | float) and not isinstance(number, bool) else None
