"""Exports of components that no adapter changes, kept from one build of the tiers for the next.

    cache/tiers/<fp32 or fp16>/<component>/    kept.json (`Kept`), the graph and its data files

Text encoder, decoder and vocoder are the same for every checkpoint of a base. An export is kept under a hash of
whatever decides its bytes. What is taken is compared with its recorded hashes first; then it is a file of the tier like
any other, hashed and proven there. Only what a tier was proven with is kept. INT8 and INT4 are not kept: to derive them
takes no longer than to copy them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Final

import onnx
from pydantic.dataclasses import dataclass

from lofi_assets.backbones import Backbone
from lofi_assets.files.hashing import hash_of, sha256_file
from lofi_assets.files.typed import STORED, read_typed, write_typed
from lofi_assets.files.writing import StoreError, atomic_folder, copy_file
from lofi_assets.quantization.graph import load, save_sharing
from lofi_assets.quantization.shards import data_files
from lofi_assets.quantization.tier_manifest import TierFile, TierName
from lofi_assets.store import PACKAGE

EXPORTERS: Final = ("torch", "onnx", "onnx-ir", "onnxscript", "transformers", "diffusers", "numpy", "safetensors")
EXPORTED: Final[tuple[TierName, ...]] = ("fp32", "fp16")
RECORD: Final = "kept.json"


@dataclass(frozen=True, config=STORED)
class Kept:
    """A component's file in one precision."""

    key: str
    """Hash of what decides its bytes."""
    origin: str
    """Checkpoint of the tier that it was made for; "" if that had none."""
    own: Mapping[str, str]
    """What the file says of itself besides the origin of its tier."""
    files: Mapping[str, TierFile]
    """By name; every file of the folder but this record."""


class KeptComponents:
    """What the tiers of a merged model can take from earlier builds: one export of each component in each precision."""

    def __init__(self, folder: Path | None, *, merged: Path, backbone: Backbone, export_version: str) -> None:
        """
        Args:
            folder: where they are kept; None keeps and takes nothing.
        """
        self._folder, self._merged, self._backbone = folder, merged, backbone
        self._export_version = export_version
        self._hashes: dict[Path, str] = {}

    def key(self, tier: TierName, component: str, *, islands: Sequence[str]) -> str | None:
        """What a component's export is kept under; None of a tier that is derived, of a component that an adapter may
        change, and where nothing is kept.

        Args:
            islands: modules that stay in float32 in half precision.
        """
        exported = self._folder is not None and tier in EXPORTED
        files = self._backbone.unadapted_files(component, self._merged) if exported else ()
        if not files:
            return None
        sources = {path.relative_to(self._merged).as_posix(): self._hash(path) for path in files}
        return hash_of(self._made_by, tier, component, sources, list(islands))

    def take(
        self,
        key: str | None,
        tier: TierName,
        component: str,
        target: Path,
        *,
        properties: Mapping[str, str],
        say: Callable[[str], None],
    ) -> Kept | None:
        """Put the kept file, with these properties beside its own, into a tier's folder; None if there is none.

        Args:
            say: is told of a kept file that is not what it was.
        Raises:
            onnx.checker.ValidationError: it is as it was kept, and not valid.
        """
        if key is None:
            return None
        folder = self._slot(tier, component)
        try:
            kept = read_typed(folder / RECORD, Kept, remedy="it is made again")
            if kept is None or kept.key != key:
                return None
            _expect_whole(folder, kept)
        except (StoreError, OSError) as error:
            say(f"{tier}: {component} was kept, but is not what it was ({error}), so it is made again")
            return None
        for data in data_files(folder, component):
            copy_file(data, target / data.name)  # ONNX refuses hard links
        graph = load(folder / f"{component}.onnx", weights=False)
        onnx.helper.set_model_props(graph, dict(sorted({**properties, **kept.own}.items())))
        save_sharing(graph, target / f"{component}.onnx")
        return kept

    def keep(
        self, key: str, tier: TierName, component: str, proven: Path, *, properties: Mapping[str, str], origin: str
    ) -> None:
        """Keep a component of a tier that was proven, without the properties that belong to that tier."""
        graph = load(proven / f"{component}.onnx", weights=False)
        own = {entry.key: entry.value for entry in graph.metadata_props if entry.key not in properties}
        del graph.metadata_props[:]
        with atomic_folder(self._slot(tier, component)) as partial:
            for data in data_files(proven, component):
                copy_file(data, partial / data.name)
            onnx.save_model(graph, str(partial / f"{component}.onnx"))
            files = {path.name: TierFile(sha256_file(path), path.stat().st_size) for path in sorted(partial.iterdir())}
            write_typed(partial / RECORD, Kept(key, origin, own, files))

    @cached_property
    def _made_by(self) -> str:
        backbone = self._backbone
        layout = asdict(backbone.layout)
        return hash_of(self._export_version, exporters(), code_hash(backbone), backbone.architecture, layout)

    def _slot(self, tier: TierName, component: str) -> Path:
        assert self._folder is not None
        return self._folder / tier / component

    def _hash(self, path: Path) -> str:
        if path not in self._hashes:
            self._hashes[path] = sha256_file(path)
        return self._hashes[path]


def exporters() -> dict[str, str]:
    """Versions of what decides the bytes of an export."""
    return {name: version(name) for name in EXPORTERS}


def code_hash(backbone: Backbone) -> str:
    """Hash of the modules that export, quantize and describe the model: a change of one makes everything again."""
    folders = (PACKAGE / "quantization", Path(inspect.getfile(type(backbone))).parent)
    return hash_of([{path.name: sha256_file(path) for path in sorted(folder.glob("*.py"))} for folder in folders])


def _expect_whole(folder: Path, kept: Kept) -> None:
    """Compare every file with its recorded hash.

    Raises:
        StoreError: one is another, absent or too many.
    """
    found = {path.name: sha256_file(path) for path in folder.iterdir() if path.name != RECORD}
    wanted = {name: file.sha256 for name, file in kept.files.items()}
    if changed := sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)):
        raise StoreError(f"{folder}: another content than was recorded of {', '.join(changed)}")
