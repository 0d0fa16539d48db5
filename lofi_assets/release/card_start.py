"""What the model card says of the LoRA that training started from; empty where it started from nothing."""

from lofi_assets.near_names import shown
from lofi_assets.store import Store
from lofi_assets.training.adapter_rights import read_rights
from lofi_assets.training.config import TrainingRun


def start_line(run: TrainingRun | None) -> str:
    """Where the adapter comes from, for the section on training."""
    if run is None or run.initial is None:
        return ""
    of = run.initial
    whose = "an earlier checkpoint of this project" if of.checkpoint else "a LoRA that others trained"
    back = (
        f" It goes back to {_listed(of.foreign)}; what that was trained on is not known here, and copies of it were "
        "not looked for."
    )
    more = back if of.foreign else ""
    return f"Training started from {whose} (sha256 `{of.sha256}`), not from nothing.{more}"


def foreign_licences(store: Store, run: TrainingRun | None) -> list[str]:
    """A line of Markdown for each LoRA from elsewhere that the adapter goes back to, by the rights on record."""
    foreign = run.initial.foreign if run and run.initial else ()
    rights = read_rights(store) if foreign else {}
    lines = []
    for sha256 in foreign:
        found = rights.get(sha256)
        said = f"{shown(found.licence)} ({shown(found.evidence)})" if found else "rights not on record"
        name = f"{shown(found.name)}, " if found and found.name else ""
        lines.append(f"- {name}sha256 `{sha256}`: {said}")
    return ["", "Training went back to LoRAs of others:", "", *lines] if lines else []


def _listed(foreign: tuple[str, ...]) -> str:
    return ", ".join(f"`{sha256[:12]}`" for sha256 in foreign)
