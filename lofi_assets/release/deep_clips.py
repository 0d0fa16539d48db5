"""What the tiers of a release play, made again: the clip of `parity.json`, and the samples that the card names.

A record asks for clips, and whoever forged it would ask for hours of them: what is longer than anybody releases is not
made. Tokenizers and graphs are a release's own files, so playing may fail in any way; that is said, and never raised.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lofi_assets.backbones import Backbone
from lofi_assets.backbones.export import Runtime
from lofi_assets.errors import LofiError
from lofi_assets.quantization.quantized_tiers import CPU_VARIANT, VARIANTS, tier_of
from lofi_assets.release.bundle_parity import PARITY, Parity, difference, torch_clip
from lofi_assets.release.bundle_runs import RATE, Clip
from lofi_assets.release.bundle_samples import FOLDER, Sample, Samples
from lofi_assets.release.deep_verification import MeasuredAgain, compared

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AUDIO_WITHIN = 3.0
"""dB by which another CPU's float32 may move the parity of a whole clip, where rounding grows along the steps."""
SAMPLES_DB = 30.0
"""Least dB of a clip that is made again over its difference from the one that is carried: 16 bits have 80 and more,
another precision than the tier's has less."""
LONGEST_S, MOST_STEPS, MOST_CLIPS, MOST_TEXT = 300.0, 200, 16, 20_000
"""Seconds and steps of a clip, clips of a release, characters of prompt and lyrics."""


class PlayError(LofiError, RuntimeError):
    """A tier does not play here; the message says why."""


def too_long(clip: Clip) -> bool:
    """Whether a clip asks for more than anybody releases."""
    text = len(clip.prompt) + len(clip.lyrics)
    return not (0 < clip.seconds <= LONGEST_S and 0 < clip.steps <= MOST_STEPS and text <= MOST_TEXT)


def played(
    bundle: Path, variant: str, clip: Clip, *, backbone: Backbone, guidance_scale: float
) -> "NDArray[np.float32]":
    """(2, n) at 48 kHz of a clip by one variant of a bundle.

    Raises:
        PlayError: it does not load, does not play, or plays something that is no number.
    """
    return play(opened(bundle, variant, backbone), clip, guidance_scale=guidance_scale, name=variant)


def opened(bundle: Path, variant: str, backbone: Backbone) -> Runtime:
    """The runtime of one variant of a bundle; its graphs load when they are asked.

    Raises:
        PlayError: it does not load.
    """
    try:
        return backbone.runtime(bundle / tier_of(variant), cpu_profile=variant == CPU_VARIANT)
    except Exception as error:  # tokenizers' errors have no base but this
        raise PlayError(f"{variant} does not load here ({_said(error, bundle)})") from error


def play(runtime: Runtime, clip: Clip, *, guidance_scale: float, name: str) -> "NDArray[np.float32]":
    """(2, n) at 48 kHz of a clip.

    Args:
        name: of what plays, for people.
    Raises:
        PlayError: it does not play, or plays something that is no number.
    """
    import numpy as np

    try:
        made: NDArray[np.float32] = runtime.generate(
            [clip.prompt],
            lyrics=[clip.lyrics],
            seeds=[clip.seed],
            seconds=clip.seconds,
            steps=clip.steps,
            guidance_scale=guidance_scale,
        )[0]
    except Exception as error:  # onnxruntime's errors have no base but this
        raise PlayError(f"{name} does not play here ({_said(error)})") from error
    if not np.isfinite(made).all():
        raise PlayError(f"{name} plays what is no number")
    return made


def _said(error: Exception, bundle: Path | None = None) -> str:
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return text.replace(str(bundle), bundle.name) if bundle else text


def parity_again(bundle: Path, backbone: Backbone, merged: Path | None) -> Iterator[MeasuredAgain]:
    """The clip of `parity.json`, made again by torch and by every variant."""
    told = Parity.read(bundle)
    about = {name: f"bundle.parity {name}" for name in VARIANTS}
    reason = _not_comparable(told, merged)
    if told is None or merged is None or reason:
        yield from (MeasuredAgain(name, "not measured", text=reason) for name in about.values())
        return
    clip, scale = _clip(told), told.asked.guidance_scale
    wanted = torch_clip(backbone, merged, clip=clip, guidance_scale=scale)
    for name in VARIANTS:
        try:
            made = played(bundle, name, clip, backbone=backbone, guidance_scale=scale)
        except PlayError as error:
            yield MeasuredAgain(about[name], "differs", text=str(error))
            continue
        variant = told.tiers.get(name)
        yield compared(
            about[name],
            recorded=variant.audio_snr_db if variant else None,
            measured=difference(wanted, made)["audio_snr_db"],
            within=AUDIO_WITHIN,
            unit="dB",
            text=f"one clip of {clip.seconds:g} s, {clip.steps} steps, seed {clip.seed}, against torch",
        )


def _not_comparable(told: Parity | None, merged: Path | None) -> str:
    if merged is None:
        return "needs the adapter's repository and --base FOLDER"
    if told is None:
        return f"the bundle has no {PARITY}"
    return f"{PARITY} asks for more than is made again here" if too_long(_clip(told)) else ""


def _clip(told: Parity) -> Clip:
    return Clip(told.asked.prompt, told.asked.lyrics, told.asked.seconds, told.asked.steps, told.asked.seed)


def samples_again(bundle: Path, backbone: Backbone) -> Iterator[MeasuredAgain]:
    """The clips that the card plays, made again from their prompts and seeds by the tier that made them."""
    samples = Samples.read(bundle)
    if samples is None:
        yield MeasuredAgain("bundle.samples", "not measured", text="the release carries none")
        return
    if reason := not_playable(samples):
        yield MeasuredAgain("bundle.samples", "not measured", text=reason)
        return
    for sample in samples.clips:
        yield _sample_again(bundle, backbone, samples, sample)


def not_playable(samples: Samples) -> str:
    """Why what a release says of its samples is not followed; "" if it is."""
    if samples.tier not in VARIANTS or samples.tier == CPU_VARIANT:
        return f"they say that they are of {samples.tier[:40]!r}, which is no tier"
    clips = [_clip_of(samples, sample) for sample in samples.clips]
    if len(clips) > MOST_CLIPS or any(too_long(clip) for clip in clips):
        return "they are more, or longer, than what is made again here"
    return "" if clips else "the release names none"


def _clip_of(samples: Samples, sample: Sample) -> Clip:
    return Clip(sample.prompt, sample.lyrics, samples.seconds, samples.steps, sample.seed)


def _sample_again(bundle: Path, backbone: Backbone, samples: Samples, sample: Sample) -> MeasuredAgain:
    about, clip = f"bundle.samples {sample.file[:80]}", _clip_of(samples, sample)
    try:
        kept = _kept(bundle, sample, seconds=samples.seconds)
        made = played(bundle, samples.tier, clip, backbone=backbone, guidance_scale=samples.guidance_scale)
    except PlayError as error:
        return MeasuredAgain(about, "differs", text=str(error))
    decibel = difference(kept, made)["audio_snr_db"]
    same = decibel is not None and decibel >= SAMPLES_DB
    text = f"made again by {samples.tier} of {clip.seconds:g} s, {clip.steps} steps, seed {clip.seed}"
    here = "another length, or silence" if decibel is None else f"{decibel:.4g} dB"
    return MeasuredAgain(about, "same" if same else "differs", f"at least {SAMPLES_DB:g} dB", here, text)


def _kept(bundle: Path, sample: Sample, *, seconds: float) -> "NDArray[np.float32]":
    """(2, n) of the clip that the release carries; of a longer one no more than shows that it is longer.

    Raises:
        PlayError: it cannot be read, or is of another rate.
    """
    import soundfile

    if Path(sample.file).name != sample.file:
        raise PlayError("its name leads out of the folder of the samples")
    try:
        audio, rate = soundfile.read(
            bundle / FOLDER / sample.file, frames=round(seconds * RATE) + 1, dtype="float32", always_2d=True
        )
    except (OSError, ValueError, RuntimeError) as error:  # soundfile's own are RuntimeErrors
        raise PlayError(f"it cannot be read ({_said(error, bundle)})") from error
    if rate != RATE:
        raise PlayError(f"it is of {rate} Hz")
    kept: NDArray[np.float32] = audio.T
    return kept
