"""Text to music from a tier's folder, with onnxruntime, numpy and tokenizers alone.

One class, five sessions, the loop on the host. The same code runs every tier: inputs and outputs are float32 and
int64 in all of them, and a seed gives the same noise in all of them and in torch (`flow.seeded_noise`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lofi_assets.lofi_onnx.flow import (
    GUIDED_SHARE,
    OMEGA,
    TRAIN_TIMESTEPS,
    Array,
    Guidance,
    euler_step,
    guided_steps,
    resample,
    schedule,
    seeded_noise,
)

if TYPE_CHECKING:
    import onnxruntime

    from lofi_assets.lyrics.tokenizer import LyricTokenizer

Integers = NDArray[np.int64]

OUTPUT_RATE = 48000
VOCODER_RATE = 44100
SAMPLES_PER_FRAME = 4096
MAX_TEXT_TOKENS = 256
TOKENIZER = "tokenizer.json"
LYRIC_VOCABULARY = "lyric_vocab.json"
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "DEFAULT"}
"""Products of float32 in float32 (by default an Ampere or later takes 10 bits of each factor), and the same convolution
kernels each time (by default they are timed against each other)."""
SESSION_CONFIG = {"session.qdq_matmulnbits_accuracy_level": "1"}
"""Of every session: stored integers are multiplied as the float numbers that they mean. By default ONNX Runtime rounds
the activations to 8 bits as well, in a kernel that differs by CPU (decision 024)."""
CPU_PROFILE = "{component}.cpu.onnx"
"""File of a component that a CPU runs faster; other providers do not know its operators."""


def session_options(*, threads: int | None = None) -> onnxruntime.SessionOptions:
    """What every session of a tier's graph is opened with, so that it computes what the tiers were measured with.

    Args:
        threads: of a node; by default `OMP_NUM_THREADS`, as for torch and numpy, and without it onnxruntime's choice.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    for entry, value in SESSION_CONFIG.items():
        options.add_session_config_entry(entry, value)
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if threads is None and asked.isdigit():
        threads = int(asked)
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


class RuntimeFolderError(FileNotFoundError):
    """A tier's folder that lacks a file; the message says which and what to do."""


class ProviderError(RuntimeError):
    """ONNX Runtime as it is installed cannot compute on a device; the message says what to install."""


Provider = str | tuple[str, dict[str, str]]


def providers_of(device: str) -> list[Provider]:
    """Execution providers for `cpu`, `cuda` or `cuda:1`, best first; what CUDA has no kernel for runs on the CPU.

    Raises:
        ProviderError: CUDA is asked for, and this ONNX Runtime was built without it; another kind of device.
    """
    import onnxruntime

    kind, _, number = device.partition(":")
    if kind == "cpu":
        return [CPU]
    if kind != "cuda":
        raise ProviderError(f"ONNX Runtime is run on cpu or cuda here, not on {device}")
    if CUDA not in onnxruntime.get_available_providers():
        raise ProviderError(
            f"{device}: this ONNX Runtime has no CUDA; in its place install onnxruntime-gpu, or compute on the cpu"
        )
    return [(CUDA, {"device_id": number or "0", **CUDA_OPTIONS}), CPU]


def _name(provider: Provider) -> str:
    return provider if isinstance(provider, str) else provider[0]


@dataclass(frozen=True)
class Conditions:
    """What a batch is conditioned on; batch first, masks 1 for a token."""

    text_hidden_states: Array
    text_attention_mask: Integers
    speaker_embeds: Array
    lyric_token_ids: Integers
    lyric_mask: Integers

    def null(self) -> Conditions:
        """The unconditional branch: zeros throughout, no lyric counted, the text mask kept."""
        return replace(
            self,
            text_hidden_states=np.zeros_like(self.text_hidden_states),
            speaker_embeds=np.zeros_like(self.speaker_embeds),
            lyric_token_ids=np.zeros_like(self.lyric_token_ids),
            lyric_mask=np.zeros_like(self.lyric_mask),
        )


class OnnxPipeline:
    """A tier, ready to generate, in several threads at once.

    Args:
        folder: with the five component files, the text tokenizer, and lyric_vocab.json if lyrics are to be sung.
        threads: per session; onnxruntime's choice by default.
        providers: onnxruntime execution providers, best first (`providers_of`).
        cpu_profile: where only the CPU computes, take the CPU's own file of a component if the tier has one.
    Raises:
        RuntimeFolderError: a file is absent.
    """

    def __init__(
        self,
        folder: Path,
        *,
        threads: int | None = None,
        providers: Sequence[Provider] = (CPU,),
        cpu_profile: bool = True,
    ) -> None:
        self.folder = Path(folder)
        self._threads, self._providers = threads, list(providers)
        self._cpu_profile = cpu_profile and self._providers == [CPU]
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        self._opening = Lock()
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(self._file(TOKENIZER)))
        self._tokenizer.enable_truncation(MAX_TEXT_TOKENS)
        self._tokenizer.no_padding()
        self._lyric_tokenizer: LyricTokenizer | None = None

    def generate(
        self,
        prompts: Sequence[str],
        *,
        seconds: float,
        seeds: Sequence[int],
        lyrics: Sequence[str] | None = None,
        steps: int = 60,
        guidance_scale: float = 15.0,
        omega_scale: float = OMEGA,
        guidance_interval: float = GUIDED_SHARE,
        language: str | None = None,
        on_latents: Callable[[Array], None] | None = None,
    ) -> Array:
        """Music for each prompt: (B, 2, seconds * 48000) float32 in [-1, 1] at 48 kHz; instrumental without lyrics.

        Args:
            language: of all lyrics; None takes each song's own, as training does.
            on_latents: is given the latents (B, 8, 16, frames) before they are decoded.

        Raises:
            ValueError: prompts, lyrics and seeds differ in number, or the duration is not above zero.
        """
        words = [""] * len(prompts) if lyrics is None else lyrics
        if not len(prompts) == len(words) == len(seeds) or not prompts:
            raise ValueError(f"one seed and lyric for each prompt: {len(prompts)}, {len(seeds)}, {len(words)} given")
        if not seconds > 0:
            raise ValueError(f"the duration must be above zero, not {seconds} s")
        frames = math.ceil(seconds * VOCODER_RATE / SAMPLES_PER_FRAME)
        latents = self.sample_latents(
            self.conditions(prompts, lyrics=words, language=language),
            noise=seeded_noise(seeds, frames=frames),
            steps=steps,
            guidance_scale=guidance_scale,
            omega_scale=omega_scale,
            guidance_interval=guidance_interval,
        )
        if on_latents is not None:
            on_latents(latents)
        return self.decode(latents)[..., : round(seconds * OUTPUT_RATE)]

    def conditions(self, prompts: Sequence[str], *, lyrics: Sequence[str], language: str | None = None) -> Conditions:
        """Encode prompts and lyrics; speakers are zeros, as in the published model."""
        text, text_mask = self.encode_text(prompts)
        ids, mask = _padded([self._lyric_ids(words, language) for words in lyrics])
        speaker_width = self.session("condition_encoder").get_inputs()[2].shape[1]
        return Conditions(text, text_mask, np.zeros((len(prompts), speaker_width), np.float32), ids, mask)

    def tokenize(self, prompts: Sequence[str]) -> tuple[Integers, Integers]:
        """Token ids (B, tokens) padded with 0, and their mask."""
        return _padded([encoding.ids for encoding in self._tokenizer.encode_batch(list(prompts))])

    def encode_text(self, prompts: Sequence[str]) -> tuple[Array, Integers]:
        """Text states (B, tokens, width) and mask (B, tokens)."""
        ids, mask = self.tokenize(prompts)
        (states,) = self._run("text_encoder", input_ids=ids, attention_mask=mask)
        return states, mask

    def sample_latents(
        self,
        conditions: Conditions,
        *,
        noise: Array,
        steps: int = 60,
        guidance_scale: float = 15.0,
        omega_scale: float = OMEGA,
        guidance_interval: float = GUIDED_SHARE,
    ) -> Array:
        """Integrate the flow from noise (B, 8, 16, frames) to latents.

        A guidance scale of 1 or less samples without the unconditional branch.
        """
        context = self._run("condition_encoder", **vars(conditions))
        null = self._run("condition_encoder", **vars(conditions.null())) if guidance_scale > 1 else None
        sigmas = schedule(steps)
        guided = guided_steps(steps, guidance_interval)
        guide = Guidance(guidance_scale)
        sample = noise
        for step in range(steps):
            velocity = self.velocity(sample, context, sigma=float(sigmas[step]))
            if null is not None and step in guided:
                velocity = guide(velocity, self.velocity(sample, null, sigma=float(sigmas[step])))
            now, later = float(sigmas[step]), float(sigmas[step + 1])
            sample = euler_step(sample, velocity, sigma=now, sigma_next=later, omega=omega_scale)
        return sample

    def velocity(self, sample: Array, context: Sequence[NDArray[Any]], *, sigma: float) -> Array:
        """The transformer's prediction for all items at one sigma."""
        states, mask = context
        (velocity,) = self._run(
            "transformer",
            hidden_states=sample,
            encoder_hidden_states=states,
            encoder_hidden_mask=mask,
            timestep=np.full(len(sample), np.float32(sigma) * TRAIN_TIMESTEPS, np.float32),
        )
        return velocity

    def decode(self, latents: Array) -> Array:
        """Latents (B, 8, 16, frames) -> audio (B, 2, n) at 48 kHz, clipped to [-1, 1]; item by item to bound memory."""
        tracks = []
        for item in latents:
            (mel,) = self._run("dcae_decoder", latents=item[None])
            (audio,) = self._run("vocoder", mel=mel[0])
            tracks.append(resample(audio, source=VOCODER_RATE, target=OUTPUT_RATE))
        return np.clip(np.stack(tracks), -1, 1)

    def session(self, component: str) -> onnxruntime.InferenceSession:
        """The component's session, opened on first use and kept.

        Raises:
            ProviderError: the first provider does not start.
        """
        with self._opening:
            if component not in self._sessions:
                self._sessions[component] = self._opened(component)
            return self._sessions[component]

    def _opened(self, component: str) -> onnxruntime.InferenceSession:
        import onnxruntime

        options = session_options(threads=self._threads)
        options.use_deterministic_compute = self._providers != [CPU]  # a CPU is so in any case
        session = onnxruntime.InferenceSession(str(self.component_file(component)), options, providers=self._providers)
        wanted = _name(self._providers[0])
        if wanted not in session.get_providers():  # it only logs that it goes without
            raise ProviderError(
                f"{wanted} is installed and could not be started; see what ONNX Runtime says above, most often a "
                "missing CUDA or cuDNN library, or compute on the cpu"
            )
        return session

    def component_file(self, component: str) -> Path:
        """The file that the component is run from.

        Raises:
            RuntimeFolderError: it is absent.
        """
        profile = self.folder / CPU_PROFILE.format(component=component)
        return profile if self._cpu_profile and profile.is_file() else self._file(f"{component}.onnx")

    def _run(self, component: str, **inputs: NDArray[Any]) -> list[NDArray[Any]]:
        outputs: list[NDArray[Any]] = self.session(component).run(None, inputs)
        return outputs

    def _file(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise RuntimeFolderError(f"{path} is absent: {self.folder} is no complete tier; build or download it again")
        return path

    def _lyric_ids(self, words: str, language: str | None) -> list[int]:
        if self._lyric_tokenizer is None:
            from lofi_assets.lyrics.tokenizer import LyricTokenizer

            vocabulary = self.folder / LYRIC_VOCABULARY
            self._lyric_tokenizer = LyricTokenizer(vocabulary if vocabulary.is_file() else None)
        return self._lyric_tokenizer.encode(words, language=language)


def _padded(sequences: Sequence[Sequence[int]]) -> tuple[Integers, Integers]:
    longest = max(map(len, sequences))
    ids = np.zeros((len(sequences), longest), np.int64)
    mask = np.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return ids, mask
