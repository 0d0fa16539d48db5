"""The deployable bundle: tiers, runtime, example, and a manifest with the hash of every file (constitution, Export).

The bundle needs nothing of this project: the runtime that the tiers' backbone names is copied into it and its imports
are rewritten, and the example is run from the bundle alone, in a process of its own that can import nothing but the
bundle's requirements, before anything is reported.
"""

import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path

from pydantic.dataclasses import dataclass

from lofi_assets.backbones import backbone_of
from lofi_assets.backbones.export import ReleaseRuntime
from lofi_assets.errors import LofiError
from lofi_assets.files.hashing import hash_of, sha256_folder
from lofi_assets.files.typed import STORED, plain, read_typed, write_typed
from lofi_assets.files.writing import atomic_folder, copy_file
from lofi_assets.outcome import Outcome, Written
from lofi_assets.progress import Progress, over
from lofi_assets.quantization.quantized_tiers import COMPARED
from lofi_assets.quantization.tier_manifest import TierManifest, manifest_path
from lofi_assets.store import PACKAGE, Store
from lofi_assets.wording import counted

BUNDLE_VERSION = "2"
"""Raised when what goes into a bundle, or how it is proven, changes."""
MANIFEST = "bundle.json"
EXAMPLE_ARGUMENTS = ("lofi, chill", "--tier", "int8", "--steps", "2", "--seconds", "2")
EXAMPLE_TIMEOUT_S = 600

ISOLATED = """
import runpy, sys
refused, sys.argv = frozenset(sys.argv[1].split(",")), sys.argv[2:]
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"No module named {name!r}: not in the bundle's requirements.txt", name=name)
sys.meta_path.insert(0, Refuse())
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script where the named packages do not exist: the virtual environment of this project holds all of them."""


class BundleError(LofiError, RuntimeError):
    """There is nothing to bundle; the message names the file and the asset to materialise."""


@dataclass(frozen=True, config=STORED)
class ExampleRun:
    """What became of a bundle's example."""

    ran: bool
    note: str
    """The end of what went to stderr if it did not."""


@dataclass(frozen=True, config=STORED)
class Bundle:
    """`bundle.json`: what a bundle holds."""

    key: str
    """Fingerprint of whatever it is made from."""
    example: ExampleRun
    files: Mapping[str, str]
    """File -> sha256; every file but this record."""

    @classmethod
    def read(cls, folder: Path) -> "Bundle | None":
        """What a folder says that it holds; None if it says nothing.

        Raises:
            StoreError: it is broken, or of another version.
        """
        return read_typed(folder / MANIFEST, cls, remedy="remove the folder and materialise onnx_artifacts again")

    def write(self, folder: Path) -> None:
        """Write it into the bundle, after everything else."""
        write_typed(folder / MANIFEST, self)


def build_bundle(store: Store) -> Outcome:
    """Write `export/` unless its manifest shows that it is current; then verify every file and run the example.

    Raises:
        BundleError: a tier is absent.
    """
    tiers = {tier: _tier(store, tier) for tier in COMPARED}
    carried = backbone_of(_architecture(tiers)).release_runtime()
    runtime = {name: source.read_text(encoding="utf-8") for name, source in carried.modules.items()}
    example = carried.example.read_text(encoding="utf-8")
    listed = {tier: {name: plain(file) for name, file in made.files.items()} for tier, made in tiers.items()}
    key = hash_of(BUNDLE_VERSION, listed, runtime, example)
    weights = {f"{tier}/{name}": file.sha256 for tier, made in tiers.items() for name, file in made.files.items()}
    bundle = Bundle.read(store.export)
    ran = bundle is not None and bundle.key == key and bundle.example.ran
    current = ran and not differences(store.export, expected=weights)
    if bundle is None or not current:
        with atomic_folder(store.export) as folder:
            _write(folder, store, carried)
            with Progress("running the bundle's example", total=1, unit="example") as progress:
                run = run_example(folder, requirements=carried.requirements)
                progress.advance()
            bundle = Bundle(key, run, _hashes(folder))
            bundle.write(folder)
    wrong = differences(store.export, expected=weights)
    return Outcome(
        data_version=key,
        counts={"files": len(bundle.files), "tiers": len(tiers), "recomputed": int(not current)},
        values={
            "missing_or_altered_files": {"value": len(wrong), "note": "; ".join(wrong)},
            "example_runs": {"value": bundle.example.ran, "note": bundle.example.note},
        },
        written=Written([store.export / name for name in (*bundle.files, MANIFEST)]),
        summary=_summary(bundle, wrong),
        needs=[dict(zip(("fault", "file"), line.rsplit(" ", 1), strict=True)) for line in wrong],
        rows=[{"file": name, "sha256": digest} for name, digest in bundle.files.items()],
    )


def _summary(bundle: Bundle, wrong: Sequence[str]) -> str:
    ran, note = bundle.example.ran, bundle.example.note
    files = counted(len(bundle.files), "file")
    whole = f"{files}, {f'{len(wrong)} missing, altered or not listed' if wrong else 'each as the manifest lists it'}"
    return f"{whole}; " + ("the example made audio from the bundle alone." if ran else f"the example failed: {note}")


def differences(folder: Path, *, expected: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """What is wrong with a bundle, one line per file: `altered NAME`, `missing NAME` or `not listed NAME`.

    Args:
        expected: file -> sha256 known from elsewhere, which goes before what the bundle's own manifest says.
    """
    found = _hashes(folder) if folder.is_dir() else {}
    bundle = Bundle.read(folder)
    listed = {**(bundle.files if bundle else {}), **(expected or {})}
    wrong = {name: "altered" if name in found else "missing" for name in listed if found.get(name) != listed[name]}
    wrong |= dict.fromkeys(found.keys() - listed.keys(), "not listed")
    return tuple(f"{fault} {name}" for name, fault in sorted(wrong.items()))


def run_example(folder: Path, *, requirements: Sequence[str]) -> ExampleRun:
    """Run a bundle's example where only the bundle, its requirements and the standard library can be imported."""
    output = folder / "example.wav"
    command = [sys.executable, "-I", "-B", "-c", ISOLATED, ",".join(outside(requirements))]
    command += [str(folder / "example.py"), *EXAMPLE_ARGUMENTS, "--output", str(output)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=EXAMPLE_TIMEOUT_S, cwd=folder, check=False
        )
    except subprocess.TimeoutExpired:
        return ExampleRun(False, f"not finished after {EXAMPLE_TIMEOUT_S} s")
    ran = done.returncode == 0 and output.is_file()
    output.unlink(missing_ok=True)
    return ExampleRun(ran, "" if ran else done.stderr.strip()[-500:] or "it wrote no audio")


def outside(requirements: Iterable[str]) -> list[str]:
    """Installed top-level packages that the requirements do not bring with them, and this project."""
    from packaging.utils import canonicalize_name

    inside = _closure(requirements)
    refused = {
        name for name, owners in _installed().items() if not inside & {canonicalize_name(owner) for owner in owners}
    }
    return sorted(refused | {PACKAGE.name})


@cache
def _installed() -> Mapping[str, list[str]]:
    """Top-level package -> distributions that brought it."""
    return metadata.packages_distributions()


def _closure(requirements: Iterable[str]) -> set[str]:
    """Distributions that installing the requirements would install here, by canonical name."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: set[str] = set()
    todo = [Requirement(text) for text in requirements]
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        if name in found or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        try:
            todo += [Requirement(text) for text in metadata.requires(name) or ()]
        except metadata.PackageNotFoundError:
            continue  # an absent optional part: whoever needs it finds out when the example runs
    return found


def _tier(store: Store, tier: str) -> TierManifest:
    manifest = TierManifest.read(store.quantized / tier)
    if manifest is None:
        raise BundleError(f"{manifest_path(store.quantized / tier)}: absent; materialise quantized_tiers")
    return manifest


def _architecture(tiers: Mapping[str, TierManifest]) -> str:
    """The one model family that all tiers are of."""
    found = {manifest.architecture for manifest in tiers.values()}
    if len(found) != 1:
        raise BundleError(f"the tiers are of {' and '.join(sorted(found))}; materialise quantized_tiers again")
    return found.pop()


def _write(folder: Path, store: Store, carried: ReleaseRuntime) -> None:
    files = [(tier, path) for tier in COMPARED for path in sorted((store.quantized / tier).iterdir())]
    for tier, path in over(files, "writing the bundle", unit="file"):
        copy_file(path, folder / tier / path.name)
    package = folder / "runtime" / "lofi_onnx"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f'"""{carried.title}"""\n', encoding="utf-8")
    for name, source in carried.modules.items():
        (package / name).write_text(_standalone(source.read_text(encoding="utf-8")), encoding="utf-8")
    copy_file(carried.example, folder / "example.py")
    requirements = "".join(f"{name}\n" for name in carried.requirements)
    (folder / "requirements.txt").write_text(requirements, encoding="utf-8")


def _standalone(text: str) -> str:
    for package in ("lofi_onnx", "lyrics"):
        text = text.replace(f"from lofi_assets.{package}.", "from lofi_onnx.")
    return text


def _hashes(folder: Path) -> dict[str, str]:
    """Every file but the manifest, and but what Python caches when somebody runs the example in place."""
    found = sha256_folder(folder)
    return {name: digest for name, digest in found.items() if name != MANIFEST and "__pycache__" not in name}
