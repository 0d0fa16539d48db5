"""How a demo begins: other processes make the corpus, and this one meanwhile imports and installs what comes after.

Nothing heavy is imported here before those processes work: Dagster and what stands behind the models take 15 seconds of
one processor.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from importlib import import_module
from pathlib import Path
from threading import Thread

from lofi_assets.errors import LofiError
from lofi_assets.store import Store

PATIENCE_S = 20.0
"""For what is prepared while the corpus is made: pip may wait for minutes where there is no network."""


def write_corpus(root: Path) -> None:
    """Write what is missing of the demo corpus; before the first features, prepare what follows meanwhile.

    Raises:
        CorpusError, StoreError: as `corpus.files.write_demo_corpus`.
    """
    from lofi_assets.demo.corpus.files import write_demo_corpus

    store = Store(root)
    with nullcontext() if store.features.exists() else _meanwhile(lambda: _prepare(store)):
        write_demo_corpus(root)


def _prepare(store: Store) -> None:
    """The libraries of the run and of its models, and the environment in which the bundle is tried (ten seconds of
    pip)."""
    import_module("lofi_assets.demo.run")
    import_module("lofi_assets.backbones.ace_step_v1.loading")
    from lofi_assets.profiles import load_profile
    from lofi_assets.release.onnx_artifacts import prepare_environment
    from lofi_assets.training.base_model import backbone_for

    prepare_environment(store, backbone_for(load_profile().base_model))


@contextmanager
def _meanwhile(prepare: Callable[[], None]) -> Iterator[None]:
    """`prepare` runs in a thread while the block waits for other processes, and on beside what follows if it takes much
    longer. What it cannot do is left to the step that needs it, where the reason is told."""

    def run() -> None:
        with suppress(ImportError, LofiError, OSError):
            prepare()

    thread = Thread(target=run, daemon=True)
    thread.start()
    yield
    thread.join(PATIENCE_S)
