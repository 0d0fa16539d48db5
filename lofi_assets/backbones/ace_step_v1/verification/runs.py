"""Whether a base model's parts do what they are for: text is told apart, music survives the codec, one step samples.

Each part is run once on a synthesised clip, one part in memory at a time. Upstream's tensors are compared in
`reference`.

The limits hold for the published weights only. They are not measured on them, but set where a trained part and an
untrained one are far apart; other weights are run and described, not judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lofi_assets.audio.synth.song import Song, render
from lofi_assets.backbones import BaseModelError
from lofi_assets.backbones.ace_step_v1.frame_rates import MEL_RATE, SAMPLES_PER_FRAME
from lofi_assets.backbones.ace_step_v1.loading import (
    DCAE,
    TEXT_ENCODER,
    TRANSFORMER,
    VOCODER,
    encode_text,
    load_base,
)
from lofi_assets.backbones.ace_step_v1.lyric_vocabulary import LYRIC_VOCABULARY
from lofi_assets.backbones.ace_step_v1.mel import LogMel
from lofi_assets.backbones.ace_step_v1.music_dcae import MusicDCAE
from lofi_assets.backbones.ace_step_v1.sampler import Conditions, sample_latents
from lofi_assets.backbones.ace_step_v1.verification.files import Finding
from lofi_assets.lyrics.tokenizer import LyricTokenizer

PROMPTS = ("lofi hip hop, warm rhodes, vinyl crackle, rainy night", "aggressive death metal, distorted guitars")
CLIP = Song(seed=11, bpm=76, key=2, mode="minor", seconds=5.0, sample_rate=MEL_RATE)
FRAMES = 48
LEAST_MEL_SNR_DB = 6.0
"""An error of a quarter of the spectrum's own variation in power; a flat spectrum has 0 dB, an untrained codec less."""
LATENT_SPREAD = (0.3, 3.0)
"""Standard deviation of latents: shift and scale bring those of music to about 1."""
LEAST_TEXT_DISTANCE = 1e-3
"""Of the states' own size: the same text gives 0, two texts through a trained encoder differ by the order of 1."""


@dataclass(frozen=True)
class TextStates:
    """The two prompts, encoded and cut to the same length, so that only their content tells them apart."""

    states: Tensor
    """(2, tokens, text width)."""


def run_text_encoder(directory: Path, *, device: str) -> tuple[list[Finding], TextStates | None]:
    """Two texts give two finite results, and a text the same result each time."""
    try:
        base = load_base(directory, components=["text_encoder"], device=device)
    except (BaseModelError, OSError, ValueError) as error:
        return [Finding(TEXT_ENCODER, False, f"does not load: {error}")], None
    states, mask = encode_text(base, PROMPTS)
    again, _ = encode_text(base, PROMPTS)
    lengths = [int(count) for count in mask.sum(dim=1)]
    if not bool(torch.isfinite(states).all()):
        return [Finding(TEXT_ENCODER, False, "gives numbers that are not finite for a plain prompt")], None
    shared = min(lengths)
    distance = float((states[0, :shared] - states[1, :shared]).norm() / states[:, :shared].norm())
    text = f"two prompts of {lengths[0]} and {lengths[1]} tokens: states differ by {distance:.2g} of their size"
    if not torch.equal(states, again):
        return [Finding(TEXT_ENCODER, False, f"{text}, but the same prompt gives other states each time")], None
    if distance < LEAST_TEXT_DISTANCE:
        wrong = f"{text}: prompts would not be heard; the tokenizer or the embeddings are not of this model"
        return [Finding(TEXT_ENCODER, False, wrong)], None
    return [Finding(TEXT_ENCODER, True, text)], TextStates(states[:, :shared].cpu())


@torch.no_grad()
def run_codec(directory: Path, *, device: str, judged: bool) -> list[Finding]:
    """A synthesised clip through DCAE and vocoder and back: signal to noise ratio of the log-mel spectrum, in dB.

    Args:
        judged: the weights are the published ones, so that the limits hold.
    """
    codec = load_base(directory, components=["music_dcae"], device=device).music_dcae
    assert codec is not None
    mel = LogMel().to(device)
    samples = torch.from_numpy(render(CLIP)).to(device)
    audio = samples[:, : samples.shape[-1] // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME]
    heard = mel(audio)
    latents, _ = codec.encode(audio[None], sample_rate=MEL_RATE)
    decoded = codec.decode(latents, sample_rate=MEL_RATE, audio_lengths=[audio.shape[-1]])[0]
    findings = [
        _codec_finding(VOCODER, "vocoder alone", heard, mel(codec.vocoder.decode(heard)[:, 0]), judged=judged),
        _codec_finding(DCAE, "DCAE alone", heard, _through_dcae(codec, audio), judged=judged),
        _codec_finding(DCAE, "DCAE and vocoder", heard, mel(decoded), judged=judged),
    ]
    wave = _snr_db(audio, decoded)
    spread = float(latents.std())
    low, high = LATENT_SPREAD
    good = math.isfinite(spread) and (not judged or low <= spread <= high)
    text = f"latents of the clip have standard deviation {spread:.2f}"
    text += f" ({low} to {high} expected)" if judged else ""
    note = f"; the waveforms' own ratio is {wave:.1f} dB (a vocoder makes its own phase, so this says little)"
    return [*findings, Finding(DCAE, good, text + note)]


def _through_dcae(codec: MusicDCAE, audio: Tensor) -> Tensor:
    """Log-mel of the clip after the autoencoder's own encoder and decoder."""
    image = codec.mel_image(audio)
    back: Tensor = codec.dcae.decoder(codec.dcae.encoder(image[None]))[0]
    return (back + 1) / 2 * (codec.max_mel - codec.min_mel) + codec.min_mel


def _codec_finding(component: str, what: str, wanted: Tensor, got: Tensor, *, judged: bool) -> Finding:
    ratio = _snr_db(wanted, got[..., : wanted.shape[-1]])
    error = float((got[..., : wanted.shape[-1]] - wanted).abs().mean())
    text = f"{what}, {CLIP.seconds:g} s clip: log-mel SNR {ratio:.1f} dB, mean error {error:.2f}"
    if not math.isfinite(ratio):
        return Finding(component, False, f"{text}; the output is not finite")
    if not judged:
        return Finding(component, True, f"{text} (not judged: these are not the published weights)")
    good = ratio >= LEAST_MEL_SNR_DB
    return Finding(component, good, f"{text} ({'at least' if good else 'below the limit of'} {LEAST_MEL_SNR_DB:g} dB)")


def _snr_db(wanted: Tensor, got: Tensor) -> float:
    """10 log10 of the signal's power around its mean per row over the error's."""
    signal = (wanted - wanted.mean(dim=-1, keepdim=True)).square().mean()
    noise = (wanted - got).square().mean()
    return float(10 * torch.log10(signal / noise)) if float(noise) > 0 else math.inf


@torch.no_grad()
def run_transformer(directory: Path, text: TextStates, *, device: str, half: bool, judged: bool) -> list[Finding]:
    """One sampler step from noise for both prompts, through the project's own loader, which drops the dead weights.

    Args:
        half: run in bfloat16, as the published file is stored; otherwise in float32.
    """
    options = {"drop_dead_projections": True, "build_projectors": False}
    dtype = "bfloat16" if half else "float32"
    try:
        base = load_base(directory, components=["transformer"], dtype=dtype, device=device, transformer_options=options)
    except BaseModelError as error:
        return [Finding(TRANSFORMER, False, f"does not load: {error}")]
    transformer = base.transformer
    assert transformer is not None
    loaded = sum(parameter.numel() for parameter in transformer.parameters())
    no_lyrics = torch.zeros(len(text.states), 1, dtype=torch.long)
    speakers = torch.zeros(len(text.states), transformer.config.speaker_embedding_dim)
    mask = torch.ones(text.states.shape[:2], dtype=torch.long)
    conditions = Conditions(text.states, mask, speakers, no_lyrics, torch.ones_like(no_lyrics))
    latents = sample_latents(
        transformer,
        conditions.to(torch.device(device), transformer.dtype),
        frames=FRAMES,
        seeds=[0] * len(text.states),
        steps=1,
        guidance_scale=1.0,
    )
    return [
        Finding(TRANSFORMER, True, f"loads strictly, with {loaded:,} parameters in {dtype} once the rest is dropped"),
        _step_finding(latents, judged=judged),
    ]


def _step_finding(latents: Tensor, *, judged: bool) -> Finding:
    spread, distance = float(latents.std()), float((latents[0] - latents[1]).std())
    low, high = LATENT_SPREAD
    text = (
        f"one sampler step from noise: latents of standard deviation {spread:.2f}"
        f"{f' ({low} to {high} expected)' if judged else ''}, {distance:.2g} between the two prompts"
    )
    if not bool(torch.isfinite(latents).all()):
        return Finding(TRANSFORMER, False, "one sampler step from noise gives numbers that are not finite")
    if distance == 0:
        return Finding(TRANSFORMER, False, f"{text}: the prompt changes nothing")
    return Finding(TRANSFORMER, not judged or low <= spread <= high, text)


def check_lyric_vocabulary(directory: Path) -> Iterator[Finding]:
    """Whether songs with words can be trained and sung; a base without the vocabulary is whole all the same."""
    path = directory / LYRIC_VOCABULARY
    if not path.is_file():
        yield Finding(
            LYRIC_VOCABULARY,
            True,
            "absent (the Hub does not have it): instrumental tracks work, a track with words stops with an error. "
            f"For words, put the vocab.json of ACE-Step's lyric tokenizer here as {LYRIC_VOCABULARY}",
        )
        return
    try:
        size = LyricTokenizer(path).size
    except Exception as error:
        # tokenizers raises a bare Exception for a file that is none of its own
        yield Finding(LYRIC_VOCABULARY, False, f"cannot be read ({error}); fetch it again")
        return
    rows = _embedding_rows(directory)
    fits = rows is None or size <= rows
    text = f"{size} ids, {rows} rows of embeddings in the transformer"
    yield Finding(LYRIC_VOCABULARY, fits, text if fits else f"{text}: it is of another model")


def _embedding_rows(directory: Path) -> int | None:
    """Rows of the transformer's lyric embeddings, None without a readable config.json."""
    from lofi_assets.files.documents import read_json
    from lofi_assets.files.writing import StoreError

    try:
        config = read_json(directory / TRANSFORMER / "config.json", default={})
    except StoreError:
        return None
    size: int | None = config.get("lyric_encoder_vocab_size")
    return size
