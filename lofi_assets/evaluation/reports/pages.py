"""The pages as files: written where nothing but a changed page changes a file, or handed over as one file to send.

samples/reports/index.html              all checkpoints, compared
samples/reports/<checkpoint>.html       one checkpoint
"""

from pathlib import Path

from lofi_assets.errors import LofiError
from lofi_assets.evaluation.reports.by_step import by_step_figure
from lofi_assets.evaluation.reports.checkpoint_page import checkpoint_page, page_name
from lofi_assets.evaluation.reports.comparison_page import comparison_page
from lofi_assets.evaluation.reports.facts import Facts, Model, gather
from lofi_assets.evaluation.reports.sounds import Beside, Inside
from lofi_assets.files.documents import write_text
from lofi_assets.html.links import page_url
from lofi_assets.store import Store
from lofi_assets.wording import named


class ReportError(LofiError, ValueError):
    """There is nothing to report of; the message says what to do."""


def reports_folder(store: Store) -> Path:
    """Where the pages are."""
    return store.samples / "reports"


def comparison_path(store: Store) -> Path:
    """The page that compares all checkpoints."""
    return reports_folder(store) / "index.html"


def write_reports(store: Store) -> dict[str, Path]:
    """Write every page; one that would be as it is stays untouched. Pages of checkpoints that are gone are removed.

    Returns:
        Checkpoint id -> page; none before any checkpoint was measured.
    Raises:
        StoreError, DatasetError, CheckpointError: a record is broken, or the dataset that was trained on is gone.
    """
    found, folder = gather(store), reports_folder(store)
    if found is None:
        return {}
    sounds, steps = Beside(folder), by_step_figure(found)
    pages = {model.name: _page_path(store, model) for model in found.checkpoints}
    folder.mkdir(parents=True, exist_ok=True)
    for model in found.checkpoints:
        write_text(pages[model.name], checkpoint_page(store, found, model, sounds, steps=steps))
    write_text(comparison_path(store), comparison_page(store, found, sounds, steps=steps))
    for path in set(folder.glob(page_name("epoch=0-step=*_lora"))) - set(pages.values()):
        path.unlink()
    return pages


def report_links(store: Store, chosen: str | None) -> tuple[dict[str, str | None], str]:
    """Write the pages and say where they are; what hinders it costs the pages and not what is measured.

    Args:
        chosen: id of the checkpoint whose page is linked beside the comparing one.
    Returns:
        Title -> address, None where there is no page; and why there is none.
    """
    try:
        pages = write_reports(store)
    except LofiError as error:
        return {"checkpoints compared": None, "report": None}, str(error)
    compared = page_url(store, comparison_path(store)) if pages else None
    own = pages.get(chosen) if chosen else None
    return {"checkpoints compared": compared, "report": page_url(store, own) if own else None}, ""


def page_for(store: Store, checkpoint: str | None) -> Path:
    """Write the pages, and say where that of a checkpoint is, or the comparing one for None.

    Raises:
        ReportError: nothing was measured, or not this checkpoint.
    """
    found = _measured(store)
    page = comparison_path(store) if checkpoint is None else _page_path(store, the_model(found, checkpoint))
    write_reports(store)
    return page


def _page_path(store: Store, model: Model) -> Path:
    return reports_folder(store) / page_name(model.name)


def _measured(store: Store) -> Facts:
    found = gather(store)
    if found is None:
        raise ReportError("no checkpoint was measured yet: materialise quality_metrics")
    return found


def page_to_send(store: Store, checkpoint: str | None) -> str:
    """A page with its audio inside: of a checkpoint, or the comparing one for None.

    Raises:
        ReportError: nothing was measured, or not this checkpoint.
    """
    found = _measured(store)
    steps = by_step_figure(found)
    if checkpoint is None:
        return comparison_page(store, found, Inside(), steps=steps)
    return checkpoint_page(store, found, the_model(found, checkpoint), Inside(), steps=steps)


def the_model(page: Facts, wanted: str) -> Model:
    """A checkpoint by its id or its step.

    Raises:
        ReportError: it was not measured.
    """
    for model in page.checkpoints:
        if wanted in (model.name, str(model.step)):
            return model
    known = named([str(model.step) for model in page.checkpoints], most=20)
    raise ReportError(f"no measured checkpoint is {wanted!r}; there are the steps {known}")
