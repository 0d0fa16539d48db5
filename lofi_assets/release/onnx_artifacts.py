"""The deployable bundle: tiers, the code that plays them, documents, and a manifest with the hash of every file
(constitution, Export).

The bundle needs nothing of this project: the runtime that the tiers' backbone names is copied into it with its imports
rewritten, and every tier is run in an environment made from the bundle's own requirements before anything is reported.
What belongs here: which files, and whether they are current. What does not: their text (`bundle_documents.py`), the
environment and the runs (`bundle_environment.py`, `bundle_runs.py`), parity with torch (`bundle_parity.py`).
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic.dataclasses import dataclass

from lofi_assets.backbones import Backbone, backbone_of
from lofi_assets.backbones.export import ReleaseRuntime
from lofi_assets.errors import LofiError
from lofi_assets.files.hashing import hash_of, sha256_folder
from lofi_assets.files.typed import STORED, plain, read_typed, write_typed
from lofi_assets.files.writing import atomic_folder, copy_file
from lofi_assets.outcome import Outcome, Written
from lofi_assets.profiles import Profile
from lofi_assets.progress import over
from lofi_assets.quantization.quantized_tiers import COMPARED, TierDistances
from lofi_assets.quantization.tier_manifest import TierManifest, manifest_path
from lofi_assets.release.bundle_documents import attributions, notice, pipeline_json
from lofi_assets.release.bundle_environment import (
    RequirementsError,
    UnreachableError,
    environment,
    exact_requirements,
)
from lofi_assets.release.bundle_parity import PARITY, Parity, parity_measure, parity_report
from lofi_assets.release.bundle_runs import CLIP, Run, run_bundle
from lofi_assets.release.bundle_samples import write_samples
from lofi_assets.release.private_names import private_names, private_strings, track_ids, user_name
from lofi_assets.release.private_search import masked
from lofi_assets.store import Store
from lofi_assets.wording import counted

BUNDLE_VERSION = "5"
"""Raised when what goes into a bundle, or how it is proven, changes."""
MANIFEST = "bundle.json"
README = "BUNDLE.md"
"""Not README.md: that is the model card, beside which a release puts these files."""


class BundleError(LofiError, RuntimeError):
    """There is nothing to bundle; the message names the file and the asset to materialise."""


@dataclass(frozen=True, config=STORED)
class ExampleRun:
    """Whether the bundle makes audio."""

    ran: bool | None
    """None: it could not be tried."""
    note: str
    """Why not, else empty."""


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


def build_bundle(store: Store, profile: Profile) -> Outcome:
    """Write `export/` unless its manifest shows that it is current; then verify every file.

    A bundle that did not run, or could not be tried, is made and tried again.

    Raises:
        BundleError: a tier is absent.
        DatasetError, SourceError, StoreError: whose music it is cannot be told.
    """
    tiers = {tier: _tier(store, tier) for tier in COMPARED}
    carried = backbone_of(_architecture(tiers)).release_runtime()
    credits = attributions(store)
    texts = _texts(store, profile, tiers, carried, attribution=credits.text)
    listed = {tier: {name: plain(file) for name, file in made.files.items()} for tier, made in tiers.items()}
    distances = TierDistances.read(store)
    key = hash_of(BUNDLE_VERSION, listed, texts, plain(distances) if distances else None)
    weights = {f"{tier}/{name}": file.sha256 for tier, made in tiers.items() for name, file in made.files.items()}
    bundle = Bundle.read(store.export)
    ran = bundle is not None and bundle.key == key and bundle.example.ran is True
    current = ran and not differences(store.export, expected=weights)
    if bundle is None or not current:
        bundle = _make(store, profile, key, tiers, texts)
    wrong = differences(store.export, expected=weights)
    tracks = track_ids(store)
    private = private_strings(
        store.export,
        private_names(store, tracks),
        words=user_name() | tracks,
        public="\n".join(_public(texts)),
    )
    return Outcome(
        data_version=key,
        counts={"files": len(bundle.files), "tiers": len(tiers), "recomputed": int(not current)},
        values={
            "missing_or_altered_files": {"value": len(wrong), "note": "; ".join(wrong)},
            "example_runs": {"value": bundle.example.ran, "note": bundle.example.note},
            "private_strings": {"value": len(private), "note": "; ".join(private[:5])},
            "variants_far_from_torch": parity_measure(Parity.read(store.export)),
            "incomplete_attributions": {"value": len(credits.incomplete), "note": "; ".join(credits.incomplete[:5])},
        },
        written=Written([store.export / name for name in (*bundle.files, MANIFEST)]),
        summary=_summary(bundle, wrong),
        needs=[
            *(dict(zip(("fault", "file"), line.rsplit(" ", 1), strict=True)) for line in wrong),
            *({"fault": "private", "file": line} for line in private),
            *({"fault": "attribution", "file": line} for line in credits.incomplete),
        ],
        rows=[{"file": name, "sha256": digest} for name, digest in bundle.files.items()],
        details={"tiers in torch and in the bundle": (store.export / PARITY).read_text(encoding="utf-8")},
    )


def prepare_environment(store: Store, backbone: Backbone) -> None:
    """Make the environment in which a bundle of this backbone is tried, for a `build_bundle` to come. Errors as in
    `environment`."""
    environment(exact_requirements(backbone.release_runtime().requirements), _environments(store))


def _environments(store: Store) -> Path:
    return store.cache / "bundle_environments"


def _summary(bundle: Bundle, wrong: Sequence[str]) -> str:
    ran, note = bundle.example.ran, bundle.example.note
    files = counted(len(bundle.files), "file")
    whole = f"{files}, {f'{len(wrong)} missing, altered or not listed' if wrong else 'each as the manifest lists it'}"
    told = {
        True: "every tier made audio in an environment of the bundle's own requirements.",
        None: f"whether it runs is not known: {note}",
        False: f"it does not run: {note}",
    }
    return f"{whole}; {told[ran]}"


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


def _texts(
    store: Store, profile: Profile, tiers: Mapping[str, TierManifest], carried: ReleaseRuntime, *, attribution: str
) -> dict[str, str]:
    """Path in the bundle -> text, of every file that is neither of a tier nor a record."""
    folders = {tier: store.quantized / tier for tier in tiers}
    runtime = {"__init__.py": f'"""{carried.title}"""\n'}
    runtime |= {name: _standalone(source.read_text(encoding="utf-8")) for name, source in carried.modules.items()}
    return {
        **{f"runtime/lofi_onnx/{name}": text for name, text in runtime.items()},
        "generate.py": carried.generate.read_text(encoding="utf-8"),
        "requirements.txt": exact_requirements(carried.requirements),
        "pipeline.json": pipeline_json(carried, tiers, folders, profile=profile),
        README: carried.readme.read_text(encoding="utf-8"),
        "LICENSE": carried.licence.read_text(encoding="utf-8"),
        "NOTICE": notice(carried, profile),
        "ATTRIBUTION.md": attribution,
    }


def _public(texts: Mapping[str, str]) -> list[str]:
    """What this project itself or a rights holder wrote to be read: a name in it is no secret."""
    own = ("runtime/", "generate.py", README, "LICENSE", "ATTRIBUTION.md")
    return [text for name, text in texts.items() if name.startswith(own)]


def _standalone(text: str) -> str:
    for package in ("lofi_onnx", "lyrics"):
        text = text.replace(f"from lofi_assets.{package} ", "from lofi_onnx ")
        text = text.replace(f"from lofi_assets.{package}.", "from lofi_onnx.")
    return text


def _make(
    store: Store, profile: Profile, key: str, tiers: Mapping[str, TierManifest], texts: Mapping[str, str]
) -> Bundle:
    """Write the bundle, try it, and put it in place whether it runs or not: its record says so."""
    with atomic_folder(store.export) as folder:
        _write(folder, store, tiers, texts)
        with tempfile.TemporaryDirectory() as scratch:
            environments = _environments(store)
            example, runs = try_bundle(folder, environments, scratch=Path(scratch))
            if runs and example.ran:
                python = environment(texts["requirements.txt"], environments)
                write_samples(folder, python=python, scratch=Path(scratch), settings=profile.quantization)
        example = ExampleRun(example.ran, _without_paths(example.note, folder, store))
        scale = profile.quantization.guidance_scale
        parity_report(store, folder, runs=runs, clip=CLIP, guidance_scale=scale).write(folder)
        bundle = Bundle(key, example, _hashes(folder))
        bundle.write(folder)
    return bundle


def try_bundle(folder: Path, environments: Path, *, scratch: Path) -> tuple[ExampleRun, Mapping[str, Run]]:
    """Run every variant in the environment of the bundle's requirements.

    Returns:
        Whether all of them made audio, None where no environment can be made here; and the runs.
    """
    try:
        python = environment((folder / "requirements.txt").read_text(encoding="utf-8"), environments)
    except UnreachableError as error:
        return ExampleRun(None, str(error)), {}
    except RequirementsError as error:
        return ExampleRun(False, str(error)), {}
    runs = run_bundle(folder, python=python, scratch=scratch)
    problems = [f"{variant}: {run.problem}" for variant, run in runs.items() if run.problem]
    return ExampleRun(not problems, "; ".join(problems)), runs


def _without_paths(note: str, folder: Path, store: Store) -> str:
    """The record is published with the bundle: a traceback in it must not tell where it was built, nor by whom."""
    known = [path for path in private_names(store, ()).folders if path.count("/") > 1]  # "/root" would leave the rest
    for path in (str(folder), *known):
        note = note.replace(path, "...")
    return masked(note)


def _write(folder: Path, store: Store, tiers: Mapping[str, TierManifest], texts: Mapping[str, str]) -> None:
    """Of the tiers, what they list and their record: whatever else lies in their folders stays there."""
    records = [manifest_path(store.quantized / tier) for tier in tiers]
    listed = [store.quantized / tier / name for tier, made in tiers.items() for name in sorted(made.files)]
    files = [path for path in [*listed, *records] if path.is_file()]
    for path in over(files, "writing the bundle", unit="file"):
        copy_file(path, folder / path.relative_to(store.quantized))
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def _hashes(folder: Path) -> dict[str, str]:
    """Every file but the manifest, and but what Python caches when somebody runs it in place."""
    found = sha256_folder(folder)
    return {name: digest for name, digest in found.items() if name != MANIFEST and "__pycache__" not in name}
