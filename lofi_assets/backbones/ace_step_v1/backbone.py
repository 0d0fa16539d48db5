"""ACE-Step v1 as a `Backbone`: what the rest of the platform knows of it.

Every method says in one place what the modules of this folder do. Imports without torch, like whatever asks for a
backbone's name, kinds or fingerprint.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lofi_assets import lofi_onnx
from lofi_assets.backbones import BackboneError
from lofi_assets.backbones.ace_step_v1.features import KINDS, LYRICS, SPEAKER, TEXT, Encoders
from lofi_assets.backbones.ace_step_v1.identity import base_fingerprint
from lofi_assets.backbones.ace_step_v1.lyric_vocabulary import LYRIC_VOCABULARY, vocabulary_file
from lofi_assets.backbones.export import Exportable, ExportLayout, Probe, ProtectedPart, ReleaseRuntime, Runtime
from lofi_assets.backbones.features import Conditions, FeatureKind, LatentShape
from lofi_assets.backbones.sampling import FLOAT32, Precision
from lofi_assets.backbones.sizes import ModelSize
from lofi_assets.backbones.training import ObjectiveSettings

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

    from lofi_assets.backbones.ace_step_v1.generation import AceStepSampler
    from lofi_assets.backbones.ace_step_v1.objective import Objective
    from lofi_assets.lofi_onnx.pipeline import OnnxPipeline

TEXT_ENCODER, TOKENIZER = "umt5-base", "tokenizer.json"
_CODEC = ("music_dcae_f8c8", "music_vocoder")
_UNADAPTED = {"text_encoder": (TEXT_ENCODER,), "dcae_decoder": _CODEC, "vocoder": _CODEC}
"""Component -> folders that it is read from, whole."""
NOTICE = """\
ACE-Step v1 (https://github.com/ace-step/ACE-Step, arXiv 2506.00045) by ACE Studio and StepFun: Apache-2.0.
Its text encoder is UMT5-base (https://huggingface.co/google/umt5-base) by Google: Apache-2.0.
lyric_vocab.json, where a tier holds one, is the lyric vocabulary of ACE-Step's repository: Apache-2.0.
The architecture of the graphs, and the weights where the base is from the Hub, are theirs.
"""


class AceStepV1:
    """ACE-Step v1 (arXiv 2506.00045), of any size."""

    architecture = "ace_step_v1"
    title = "ACE-Step v1"
    hub_tag = "ace-step"
    latents = LatentShape((8, 16, None), frames_per_second=44_100 / 4_096)
    feature_kinds: Mapping[str, FeatureKind] = KINDS

    # --- the base -----------------------------------------------------------------------------------------------------

    def write_tiny(self, folder: Path) -> None:
        """A base with random weights, small enough for tests."""
        from lofi_assets.backbones.ace_step_v1.tiny import write_tiny_base

        write_tiny_base(folder)

    def base_directory(self, path_or_repo: str, *, revision: str | None) -> Path:
        """The folder of a base of the Hub, downloaded if need be."""
        from lofi_assets.backbones.ace_step_v1.loading import base_directory

        return base_directory(path_or_repo, revision=revision)

    def downloaded(self, repo: str, *, revision: str | None) -> Path | None:
        """The folder of a base of the Hub if it is on this machine."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(repo, "ace_step_transformer/config.json", revision=revision)
        return Path(found).parents[1] if isinstance(found, str) else None

    def fingerprint(self, base: Path) -> str:
        """Hash of a base's weights and configuration."""
        return base_fingerprint(base)

    def lyric_vocabulary(self, source: str, *, sha256: str, root: Path, downloads: Path) -> Path:
        """A lyric vocabulary that lies beside the base, its content checked."""
        return vocabulary_file(source, sha256=sha256, root=root, downloads=downloads)

    # --- the feature cache --------------------------------------------------------------------------------------------

    def encoders(
        self,
        base: Path,
        *,
        fingerprint: str,
        device: str = "auto",
        dtype: str = "float32",
        vocabulary: Path | None = None,
        ssl_encoders: Mapping[str, Path] | None = None,
    ) -> Encoders:
        """DCAE, text encoder, lyric tokenizer, speaker files and SSL encoders."""
        return Encoders(base, fingerprint, device, dtype, vocabulary, ssl_encoders or {})

    def conditions(self, features: "Mapping[str, Tensor]") -> Conditions:
        """Text states, lyric ids with their mask, speaker embedding."""
        from lofi_assets.backbones.ace_step_v1.conditions import conditions_of

        return conditions_of(features[TEXT], features[LYRICS], features[SPEAKER])

    def token_counts(self, features: "Mapping[str, Tensor]") -> dict[str, int]:
        """Tokens of prompt and lyrics."""
        return {kind: len(features[kind]) for kind in (TEXT, LYRICS)}

    # --- training -----------------------------------------------------------------------------------------------------

    def dropout(self, settings: ObjectiveSettings) -> dict[str, float]:
        """Text, speaker and lyrics, each by itself."""
        return {"text": settings.text_dropout, "speaker": settings.speaker_dropout, "lyrics": settings.lyric_dropout}

    def without(self, conditions: Conditions, groups: Collection[str]) -> Conditions:
        """Zeros in place of what is dropped."""
        from lofi_assets.backbones.ace_step_v1.conditions import without

        return without(conditions, groups)

    def draw_sigma(self, settings: ObjectiveSettings, random: "torch.Generator") -> float:
        """From the shifted table of 1,000."""
        from lofi_assets.backbones.ace_step_v1.objective import draw_sigma

        return draw_sigma(settings, random)

    def validation_sigmas(self, settings: ObjectiveSettings, *, levels: int) -> dict[int, float]:
        """Evenly spread over the table, by index."""
        from lofi_assets.backbones.ace_step_v1.objective import validation_sigmas

        return validation_sigmas(settings, levels=levels)

    def trainable(
        self, base: Path, settings: ObjectiveSettings, *, dtype: Literal["float32", "bfloat16"], device: str
    ) -> "nn.Module":
        """The transformer without the projections that nothing reads, with SSL projectors if they are trained with."""
        from lofi_assets.backbones.ace_step_v1.loading import load_base

        options = {"drop_dead_projections": True, "build_projectors": settings.ssl_weight > 0}
        loaded = load_base(base, dtype=dtype, device=device, components=("transformer",), transformer_options=options)
        transformer = loaded.transformer
        assert transformer is not None
        if settings.gradient_checkpointing:
            transformer.recompute_blocks(same_chance=not settings.cuda_graphs)
        return transformer

    def blocks(self, model: "nn.Module") -> "Sequence[nn.Module]":
        """`transformer_blocks`."""
        return list(model.get_submodule("transformer_blocks").children())

    def quantizable(self, name: str) -> bool:
        """The blocks only. Lyric encoder and speaker embedder may not go below 8 bits (constitution IV), and what every
        step passes through (proj_in, t_block, final_layer) is 2 % of the weights."""
        return name.startswith("transformer_blocks.")

    def objective(
        self, model: Callable[..., Any], settings: ObjectiveSettings, *, dtype: "torch.dtype", device: "torch.device"
    ) -> "Objective":
        """Flow matching."""
        from lofi_assets.backbones.ace_step_v1.objective import Objective

        return Objective(model, dtype, device, ssl_weight=settings.ssl_weight, stepped=settings.compile is True)

    # --- the plan -----------------------------------------------------------------------------------------------------

    longest_tokens: Mapping[str, int] = {TEXT: 256, LYRICS: 1}

    def size(self, base: Path | None, *, rank: int, adapt: "Callable[[nn.Module], int]") -> ModelSize:
        """On the meta device."""
        from lofi_assets.backbones.ace_step_v1.size import measure

        return measure(base, self.latents, rank=rank, adapt=adapt)

    # --- sampling -----------------------------------------------------------------------------------------------------

    def frames(self, seconds: float) -> int:
        """10.77 a second."""
        from lofi_assets.backbones.ace_step_v1.frame_rates import latent_frames
        from lofi_assets.backbones.ace_step_v1.sampler import OUTPUT_RATE

        return latent_frames(round(seconds * OUTPUT_RATE), sample_rate=OUTPUT_RATE)

    def decoder(self, base: Path, *, device: str) -> "Callable[[Tensor], np.ndarray]":
        """DCAE and vocoder."""
        from lofi_assets.backbones.ace_step_v1.generation import decoder

        return decoder(base, device=device)

    def sample_latents(
        self,
        model: Any,
        conditions: Conditions,
        *,
        frames: int,
        seed: int,
        steps: int,
        guidance_scale: float,
        device: "torch.device",
        dtype: "torch.dtype",
    ) -> "Tensor":
        """Latents (8, 16, frames)."""
        from lofi_assets.backbones.ace_step_v1.generation import sampled

        return sampled(
            model,
            conditions,
            frames=frames,
            seed=seed,
            steps=steps,
            guidance_scale=guidance_scale,
            device=device,
            dtype=dtype,
        )

    def sampler(
        self,
        base: Path,
        *,
        device: str,
        vocabulary: Path | None = None,
        precision: Precision = FLOAT32,
        cuda_graphs: bool = False,
    ) -> "AceStepSampler":
        """The whole base in memory."""
        from lofi_assets.backbones.ace_step_v1.generation import load_sampler

        return load_sampler(base, device=device, vocabulary=vocabulary, precision=precision, cuda_graphs=cuda_graphs)

    # --- merging and the tiers ----------------------------------------------------------------------------------------

    layout = ExportLayout(
        floors={"text_encoder": 8, "condition_encoder": 8, "transformer": 4, "dcae_decoder": 16, "vocoder": 16},
        denoiser="transformer",
        protected={
            "dcae_decoder": ProtectedPart("dcae_decoder", "", 16),
            "vocoder": ProtectedPart("vocoder", "", 16),
            "lyric_encoder": ProtectedPart("condition_encoder", r"lyric_(encoder|embs|proj)\b", 8),
            "speaker_embedder": ProtectedPart("condition_encoder", r"speaker_embedder\b", 8),
        },
        kept_in_float=r"(proj_in|time_proj|timestep_embedder|t_block|final_layer)\b",  # 2 % of it
        block=r"transformer_blocks\.(\d+)\.",
    )

    def mergeable(self, base: Path) -> "nn.Module":
        """The transformer."""
        from lofi_assets.backbones.ace_step_v1.merging import mergeable

        return mergeable(base)

    def velocity_probe(self, model: "nn.Module") -> "Callable[[nn.Module], Tensor]":
        """Of two items, 20 frames each."""
        from lofi_assets.backbones.ace_step_v1.merging import velocity_probe

        return velocity_probe(model)

    def write_merged(self, model: "nn.Module", base: Path, folder: Path, *, vocabulary: Path | None) -> None:
        """In the Hub's layout."""
        from lofi_assets.backbones.ace_step_v1.merging import write_merged

        write_merged(model, base, folder, vocabulary=vocabulary)

    def exportable(self, component: str, merged: Path) -> Exportable:
        """One of the five."""
        from lofi_assets.backbones.ace_step_v1.export import exportable

        return exportable(component, merged)

    def unadapted_files(self, component: str, merged: Path) -> tuple[Path, ...]:
        """Text encoder, decoder and vocoder: only the transformer takes an adapter."""
        folders = _UNADAPTED.get(component, ())
        return tuple(path for name in folders for path in sorted((merged / name).rglob("*")) if path.is_file())

    def tokenizers(self, merged: Path) -> dict[str, Path]:
        """The text tokenizer, and the lyric vocabulary if there is one."""
        files = {TOKENIZER: merged / TEXT_ENCODER / TOKENIZER, LYRIC_VOCABULARY: merged / LYRIC_VOCABULARY}
        return {name: file for name, file in files.items() if name == TOKENIZER or file.is_file()}

    def runtime(
        self, folder: Path, *, cpu_profile: bool = True, device: str = "cpu", threads: int | None = None
    ) -> "OnnxPipeline":
        """`lofi_onnx`."""
        from lofi_assets.lofi_onnx.pipeline import OnnxPipeline, ProviderError, providers_of

        try:
            pipeline = OnnxPipeline(folder, threads=threads, providers=providers_of(device), cpu_profile=cpu_profile)
            if device != "cpu":
                pipeline.session("text_encoder")  # what does not start is said before hours of sampling
        except ProviderError as error:
            raise BackboneError(str(error)) from error
        return pipeline

    def release_runtime(self) -> ReleaseRuntime:
        """`lofi_onnx`, and what of `lyrics` it needs."""
        from lofi_assets.lofi_onnx.description import described

        package = Path(lofi_onnx.__file__).parent
        lyrics = package.parent / "lyrics"
        own = {name: package / name for name in ("clip.py", "description.py", "flow.py", "pipeline.py")}
        return ReleaseRuntime(
            title="ACE-Step v1 in ONNX Runtime, with numpy alone.",
            modules={**own, **{name: lyrics / name for name in ("tokenizer.py", "language.py", "spelling.py")}},
            generate=package / "generate.py",
            requirements=("numpy", "onnxruntime", "py3langid", "tokenizers"),
            readme=package / "BUNDLE.md",
            licence=package / "LICENSE",
            notice=NOTICE,
            describe=described,
        )

    def probes(self, runtime: Runtime) -> list[Probe]:
        """The transformer's at eight noise levels."""
        from lofi_assets.backbones.ace_step_v1.onnx_probes import record
        from lofi_assets.lofi_onnx.pipeline import OnnxPipeline

        assert isinstance(runtime, OnnxPipeline)
        return record(runtime)

    def stress(self, runtime: Runtime) -> list[Probe]:
        """Latents of guided sampling, doubled; text and conditions as they are."""
        from lofi_assets.backbones.ace_step_v1.onnx_probes import stressed
        from lofi_assets.lofi_onnx.pipeline import OnnxPipeline

        assert isinstance(runtime, OnnxPipeline)
        return stressed(runtime)


ACE_STEP_V1 = AceStepV1()
