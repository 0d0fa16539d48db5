"""FAD of the tiers over FP32's, measured again on prompts that a release carries, by the bound that its gates use.

The number on record is of the validation tracks: their prompts and lyrics, and their audio as the reference. A release
carries none of them, so that number cannot be taken again. What can be asked again is what the gate asks: whether each
tier lies farther from a reference than FP32 does, in pairs of one prompt and one seed. The pairs are of the prompts of
the samples, made as the samples were. The reference is music that the verifier gives; without, FP32's own clips of the
other prompts: a set that no tier made, which FP32 lies away from, since its prompts differ.

Either way it is another reference than the record's. So a bound within the tolerance counts as the same, one beyond it
as a whole as another, and whatever lies between as not measured.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lofi_assets.backbones import Backbone
from lofi_assets.backbones.export import Runtime
from lofi_assets.errors import LofiError
from lofi_assets.evaluation.samples import write_clip
from lofi_assets.metrics.results import TierFidelity
from lofi_assets.progress import over
from lofi_assets.quantization.quantized_tiers import VARIANTS, tier_of
from lofi_assets.quantization.tier_tolerance import pairs_needed, tolerance
from lofi_assets.release.bundle_parity import Parity, VariantParity
from lofi_assets.release.bundle_runs import Clip
from lofi_assets.release.bundle_samples import Samples
from lofi_assets.release.deep_clips import PlayError, not_playable, opened, play
from lofi_assets.release.deep_verification import FadAgain, MeasuredAgain

if TYPE_CHECKING:
    from lofi_assets.metrics.embedding import Embedder
    from lofi_assets.metrics.sample_quality import GeneratedSample, ReferenceTrack

FIRST_SEED = 50_000
"""Of the pairs; the reference's clips have seeds after theirs."""
NEEDS = (
    "not asked for: --fad-pairs 16 or more makes that many clips by FP32 and by each variant, hours at the real size; "
    "--reference FOLDER compares them with music of yours"
)
ABOUT = {variant: f"tiers.fad {variant}" for variant in VARIANTS if tolerance(tier_of(variant)) is not None}
"""Variant that a gate limits -> what its measurement is called."""


def fad_again(
    bundle: Path,
    backbone: Backbone,
    *,
    baseline: Path | None,
    reason: str,
    asked: FadAgain | None,
    scratch: Path,
) -> Iterator[MeasuredAgain]:
    """A line for each way to run a tier whose FAD a gate limits.

    Args:
        baseline: FP32's graphs; None where there are none, and `reason` says why.
        asked: how many pairs, and what they are compared with; None: nobody asked.
    """
    told, samples = Parity.read(bundle), Samples.read(bundle)
    if asked is None:
        reason = NEEDS
    elif baseline is not None:
        reason = _not_measurable(samples, told, asked)
    if asked is None or baseline is None or reason or told is None or samples is None:
        yield from (MeasuredAgain(about, "not measured", text=reason) for about in ABOUT.values())
        return
    try:
        embedder = _encoder(told, asked)
        clips = _Clips(samples, asked.pairs, scratch)
        fp32 = clips.made("fp32", backbone.runtime(baseline))
        reference, of = _reference(clips, backbone.runtime(baseline), asked)
    except LofiError as error:
        yield from (MeasuredAgain(about, "not measured", text=str(error)) for about in ABOUT.values())
        return
    for variant, about in ABOUT.items():
        try:
            tier = clips.made(variant, opened(bundle, variant, backbone))
        except PlayError as error:
            yield MeasuredAgain(about, "differs", text=str(error))
            continue
        from lofi_assets.metrics.tier_fidelity import evaluate_tier

        found = evaluate_tier(
            fp32=fp32,
            tier=tier,
            reference=reference,
            embedder=embedder,
            cache_dir=scratch / "embeddings",
            progress=False,
        )
        yield compared_with_tolerance(about, found, told.tiers.get(variant), limit=tolerance(tier_of(variant)), of=of)


def compared_with_tolerance(
    about: str, found: TierFidelity, recorded: VariantParity | None, *, limit: float | None, of: str
) -> MeasuredAgain:
    """What a gate's tolerance makes of a distance that was measured with another reference than the record's.

    Args:
        limit: the tolerance; None where no gate has one.
        of: the reference, in words.
    """
    was = _percent(recorded.fad_increase, recorded.fad_increase_upper_95) if recorded else "none"
    now = _percent(found.ratio, found.upper)
    text = (
        f"{found.n_pairs} pairs of the release's prompts, reference {of}, {found.encoder}: another reference than the "
        "record's (the validation tracks), so the numbers differ and the tolerance is what is asked again"
    )
    if found.ratio is None or found.upper is None or limit is None:
        return MeasuredAgain(about, "not measured", was, now, f"{found.note or 'no gate limits it'}. {text}")
    width = found.upper - found.ratio
    if found.upper < limit:
        return MeasuredAgain(about, "same", was, now, f"below {100 * limit:g} %. {text}")
    if found.ratio - width > limit:
        return MeasuredAgain(about, "differs", was, now, f"beyond {100 * limit:g} % as a whole. {text}")
    needed = pairs_needed(found, limit)
    return MeasuredAgain(
        about, "not measured", was, now, f"neither below nor beyond {100 * limit:g} %; about {needed} pairs. {text}"
    )


def _percent(ratio: float | None, upper: float | None) -> str:
    if ratio is None:
        return "none"
    return f"{100 * ratio:+.1f} %" + (f", at most {100 * upper:+.1f} %" if upper is not None else ", no bound")


def _not_measurable(samples: Samples | None, told: Parity | None, asked: FadAgain) -> str:
    """Why nothing can be measured; "" if it can be tried."""
    if samples is None or told is None:
        return "the release carries no prompts (samples/samples.json) or no parity.json, which names the encoder"
    if reason := not_playable(samples):
        return reason
    if asked.reference is None and len({clip.prompt for clip in samples.clips}) < 2:
        return "the release carries one prompt, and FP32's clips of another would be the reference: --reference FOLDER"
    return ""


def _encoder(told: Parity, asked: FadAgain) -> "Embedder":
    """The encoder of the record: the tolerance is in its numbers.

    Raises:
        LofiError: it names none that is known here, its weights were not given, or it does not prove itself.
    """
    from lofi_assets.metrics.encoders import load_embedder
    from lofi_assets.metrics.proof import why_untrained

    names = {row.fad_encoder for row in told.tiers.values() if row.fad_encoder}
    if len(names) != 1:
        raise PlayError(f"the record names {' and '.join(sorted(names)) or 'no encoder'}, and one is asked")
    embedder = load_embedder(names.pop(), weights=asked.encoder_weights)
    if embedder.trained is not True:
        raise PlayError(why_untrained(embedder))
    return embedder


class _Clips:
    """The clips of one measurement, made as the release's samples were, through the codec of the gate's clips."""

    def __init__(self, samples: Samples, pairs: int, folder: Path) -> None:
        self.samples, self.pairs, self.folder = samples, pairs, folder
        self.first = samples.clips[0].prompt
        self.others = [clip.prompt for clip in samples.clips if clip.prompt != self.first]

    def made(self, name: str, runtime: Runtime) -> "list[GeneratedSample]":
        """The pairs' clips by one runtime.

        Raises:
            PlayError: it does not play.
        """
        return self._made(name, runtime, [self.first] * self.pairs, first_seed=FIRST_SEED)

    def reference(self, runtime: Runtime) -> "list[GeneratedSample]":
        """As many clips of the other prompts, with other seeds."""
        prompts = [self.others[number % len(self.others)] for number in range(self.pairs)]
        return self._made("reference", runtime, prompts, first_seed=FIRST_SEED + self.pairs)

    def _made(self, name: str, runtime: Runtime, prompts: Sequence[str], *, first_seed: int) -> "list[GeneratedSample]":
        from lofi_assets.metrics.sample_quality import GeneratedSample

        folder, found = self.folder / name, []
        folder.mkdir(parents=True)
        for number, prompt in enumerate(over(prompts, f"sampling {name}", unit="clip")):
            path, seed = folder / f"{number:03d}.mp3", first_seed + number
            clip = Clip(prompt, "", self.samples.seconds, self.samples.steps, seed)
            write_clip(path, play(runtime, clip, guidance_scale=self.samples.guidance_scale, name=name))
            found.append(
                GeneratedSample(path=path, prompt=prompt, style_id="", seed=seed, seconds=self.samples.seconds)
            )
        return found


def _reference(clips: _Clips, runtime: Runtime, asked: FadAgain) -> "tuple[list[ReferenceTrack], str]":
    """What both are compared with, and what it is in words.

    Raises:
        LofiError: the folder that was given holds no audio, or FP32 does not play.
    """
    from lofi_assets.measure.folders import audio_of
    from lofi_assets.metrics.sample_quality import ReferenceTrack

    if asked.reference is not None:
        found: Mapping[str, Path] = audio_of(asked.reference)
        given = [ReferenceTrack(path=path, prompt="", style_ids=()) for path in found.values()]
        return given, f"{len(given)} files of {asked.reference}"
    made = [ReferenceTrack(path=clip.path, prompt=clip.prompt, style_ids=()) for clip in clips.reference(runtime)]
    return made, f"FP32's {len(made)} clips of the other prompts"
