"""The deployable bundle: tiers, runtime, example, and a manifest with the hash of every file (constitution, Export).

The bundle needs nothing of this project: the numpy runtime is copied into it and its imports are rewritten, and the
example is run from the bundle alone, in a process of its own, before anything is reported.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lofi_assets
from lofi_assets.optimization import COMPARED
from lofi_assets.outcome import Outcome
from lofi_assets.store import Store, atomic_folder, fingerprint, link_or_copy, read_json, sha256_folder, write_json

BUNDLE_VERSION = "1"
"""Raised when what goes into a bundle changes."""
MANIFEST = "bundle.json"
PACKAGE = Path(lofi_assets.__file__).parent
RUNTIME = {
    "runtime.py": "quantization/runtime.py",
    "numpy_flow.py": "quantization/numpy_flow.py",
    "lyric_tokenizer.py": "ace_step/lyric_tokenizer.py",
    "english.py": "ace_step/english.py",
}
"""File of the bundle's `lofi_onnx` package -> module it is copied from."""
EXAMPLE_SECONDS = 2.0
EXAMPLE_TIMEOUT_S = 600


def build_bundle(store: Store) -> Outcome:
    """Write `export/` unless its manifest shows that it is current; then verify every file and run the example."""
    tiers = {tier: read_json(store.quantized / tier / "manifest.json") for tier in COMPARED}
    runtime = {name: (PACKAGE / source).read_text(encoding="utf-8") for name, source in RUNTIME.items()}
    example = (PACKAGE / "release" / "example.py").read_text(encoding="utf-8")
    key = fingerprint(BUNDLE_VERSION, {tier: manifest["files"] for tier, manifest in tiers.items()}, runtime, example)
    known = read_json(store.export / MANIFEST, default={})
    current = known.get("key") == key and _verified(store.export, known) == 0
    if not current:
        with atomic_folder(store.export) as folder:
            _write(folder, store, runtime, example)
            run = _run_example(folder)
            write_json(folder / MANIFEST, {"key": key, "example": run, "files": _hashes(folder)})
    manifest = read_json(store.export / MANIFEST)
    files = manifest["files"]
    return Outcome(
        data_version=key,
        counts={"files": len(files), "tiers": len(tiers), "recomputed": int(not current)},
        values={
            "missing_or_altered_files": _verified(store.export, manifest),
            "example_runs": {"value": manifest["example"]["ran"], "note": manifest["example"]["note"]},
        },
        rows=[{"file": name, "sha256": digest} for name, digest in files.items()],
        details={"folder": str(store.export), "example": manifest["example"]["note"] or "ran"},
    )


def _write(folder: Path, store: Store, runtime: dict[str, str], example: str) -> None:
    for tier in COMPARED:
        for path in sorted((store.quantized / tier).iterdir()):
            link_or_copy(path, folder / tier / path.name)
    package = folder / "runtime" / "lofi_onnx"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('"""ACE-Step v1 in ONNX Runtime, with numpy alone."""\n', encoding="utf-8")
    for name, text in runtime.items():
        (package / name).write_text(_standalone(text), encoding="utf-8")
    (folder / "example.py").write_text(example, encoding="utf-8")
    (folder / "requirements.txt").write_text("numpy\nonnxruntime\ntokenizers\nsoundfile\n", encoding="utf-8")


def _standalone(text: str) -> str:
    for module in ("quantization", "ace_step"):
        text = text.replace(f"from lofi_assets.{module}.", "from lofi_onnx.")
    return text


def _hashes(folder: Path) -> dict[str, str]:
    found = sha256_folder(folder)
    return {name: digest for name, digest in found.items() if name != MANIFEST and "__pycache__" not in name}


def _verified(folder: Path, manifest: dict[str, Any]) -> int:
    """Files that are missing, altered or not listed."""
    found = _hashes(folder) if folder.is_dir() else {}
    listed = manifest.get("files", {})
    return sum(found.get(name) != listed.get(name) for name in found.keys() | listed.keys())


def _run_example(folder: Path) -> dict[str, Any]:
    """Run the bundle's example in a process that cannot import this project."""
    output = folder / "example.wav"
    command = [sys.executable, "-B", str(folder / "example.py"), "lofi, chill", "--tier", "int8", "--steps", "2"]
    command += ["--seconds", str(EXAMPLE_SECONDS), "--output", str(output)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=EXAMPLE_TIMEOUT_S, cwd=folder, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return {"ran": False, "note": f"not finished after {EXAMPLE_TIMEOUT_S} s"}
    ran = done.returncode == 0 and output.is_file()
    output.unlink(missing_ok=True)
    return {"ran": ran, "note": "" if ran else done.stderr.strip()[-500:]}
