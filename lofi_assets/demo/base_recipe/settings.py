"""Everything that decides which weights come out: sizes, steps, rates, seeds. Two presets.

Each number has its reason beside it; docs/decisions/011 has the proofs. Imports without torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from lofi_assets.files.hashing import hash_of

StageName = Literal["dcae", "clock", "vocoder", "edges", "steady", "transformer", "bars", "beats"]
STAGES: tuple[StageName, ...] = ("dcae", "clock", "vocoder", "edges", "steady", "transformer", "bars", "beats")
"""Trained in this order. The clock marks the frames of the DCAE's images for the vocoder, edges sharpen them; the
transformer keeps time on steady music, hears all music, and last the tempi and words of lofi, where only a prompt tells
them and then everywhere. It and the vocoder do not hear each other."""
IN_TIME_STAGES: tuple[StageName, ...] = ("bars", "beats")
"""They begin with a wider text encoder and a clock (`in_time`), and can go on from a finished base."""
PresetName = Literal["full", "smoke"]
MARKS = 8
"""Mel frames of a latent frame, and the highest mel bands (above 12.3 kHz), which give way to marks of the frames."""


@dataclass(frozen=True)
class CorpusSettings:
    """The music that the codec hears; the transformer hears what is not worn."""

    clips: int = 1120
    """Clean clips, the genres in turn."""
    worn: int = 224
    """Further clips on worn tape: it has to carry hiss and crackle."""
    seconds: float = 32.0
    """Of each clip: 344 latent frames, a little more than the 31 s that the gates are judged on."""
    peak: float = 0.89
    """-1 dBFS, as processed tracks are."""


@dataclass(frozen=True)
class SteadySettings:
    """The music that the transformer hears first: few genres, tempi and keys, its beats whole latent frames."""

    clips: int = 1680
    """As long as the others."""


@dataclass(frozen=True)
class BeatsSettings:
    """The music that the transformer hears last, in the stages `bars` and `beats`, and how it hears it."""

    clips: int = 640
    """Clean hip hop from 62 to 100 BPM, as long as the others."""
    steady: int = 120
    """Of the steady clips: what it could before, it keeps."""
    others: int = 120
    """Of all other music."""
    genre_dropout: float = 0.4
    """Chance of a prompt without its genre: a prompt of lofi has none that the base knows."""
    tag_dropout: float = 0.35
    """Chance of each other tag to be left out; prompts of the demo are short."""
    bpm_dropout: float = 0.1
    unheard: float = 0.5
    """Chance of one to three words among the rest that no caption holds: they must not take its time away."""
    rope_theta: float = 8.0
    """One head of cross-attention then keeps any bar of lofi; of 300 a third of a bar's wave is left over."""
    noise_from: float = 0.93
    """Noise above which only a prompt tells where beats are. The mean of the clips of a bar's length stands for a clip
    there: nothing more can be known."""
    harmonics: int = 48
    """Of a bar in that mean. Drums are hit between frames: 16 explain 0.23 of a clip's variance, 48 explain 0.30."""
    noisy: float = 0.3
    """Share of the items of the stage `beats` that have more noise than that, drawn evenly, the rest as in the stages
    before, which give one item of 30 more than 95 %. In the stage `bars` all have."""
    own: float = 0.8
    """Share of the items of the stage `beats` that are its own clips; in `bars` all are."""
    crops: tuple[int, ...] = (112, 334)
    """Latent frames of a step of `beats`; of `bars` the longest: a period is right only if its last beat is."""
    frames_per_step: int = 672
    """Two items of 31 s, or six of 10.4 s."""


@dataclass(frozen=True)
class DcaeSettings:
    """`AutoencoderDC`: residual blocks only, nothing at full resolution."""

    channels: tuple[int, int, int, int] = (16, 32, 64, 128)
    encoder_layers: tuple[int, int, int, int] = (0, 1, 1, 1)
    """0 at full resolution: the first convolution halves the image, and a step costs a quarter."""
    decoder_layers: tuple[int, int, int, int] = (0, 2, 2, 2)
    """The decoder decides what is heard, so it is the deeper half."""
    latent_noise: float = 0.1
    """Standard deviation of noise on the latents in training: what the transformer makes is never exact."""
    moments: float = 0.05
    """Weight that holds each latent channel at mean 0 and variance 1."""


@dataclass(frozen=True)
class VocoderSettings:
    """`ADaMoSHiFiGANV1`: depth where a frame is 512 samples, few channels where it is one."""

    depths: tuple[int, ...] = (2,)
    dims: tuple[int, ...] = (384,)
    """One stage, wide enough for the oscillators that it starts with and what is learnt beside them."""
    rates: tuple[int, ...] = (4, 4, 8, 4)
    """The last makes 4 samples of one: the oscillators play at 11 kHz."""
    kernels: tuple[int, ...] = (8, 8, 16, 8)
    initial: int = 256
    """Channels before the first upsampling, halved by each: never fewer than the samples that are still to be made of
    one position, or the sound would be squeezed through them."""
    residual_kernels: tuple[int, ...] = (3,)
    residual_dilations: tuple[tuple[int, ...], ...] = ((1,),)
    """One pair of convolutions per rate: full stacks at full rate are what makes a HiFi-GAN head slow on a CPU."""
    post_kernel: int = 13
    mel_weight: float = 1.0
    """Of the log-mel error, in nats, beside the spectral losses."""
    low_weight: float = 1.0
    """Of the error below 640 Hz, bin by bin."""
    context: int = 16
    """Mel frames on either side of a crop that DCAE and backbone see and the head need not sound."""
    clock: float = 0.8
    """How far the marks that tell a latent frame's eight mel frames apart stand out of the image, above 0."""
    image_weight: float = 1.0
    """Of the decoder's own log-mel error, marks included: its images stay mels."""
    discriminator: bool = False
    """Adversarial and feature-matching losses on spectrograms."""
    discriminator_from: float = 0.5
    """Share of the steps after which it joins."""
    discriminator_channels: int = 16
    adversarial_weight: float = 0.25
    matching_weight: float = 0.5


@dataclass(frozen=True)
class EdgesSettings:
    """What the finished vocoder is given in place of the decoder's images: an unsharp mask in time."""

    frames: int = 5
    """Of the mean that an image's difference from is amplified."""
    strength: float = 0.5
    level: float = -0.15
    """Nats that are added: sharper is louder."""


@dataclass(frozen=True)
class TransformerSettings:
    """The transformer, and the text encoder that learns with it."""

    layers: int = 4
    heads: int = 3
    head_dim: int = 64
    """Less than half of the parameters of 6 layers of 256, which learn less in the same minutes."""
    rope_theta: float = 300.0
    """A third of the rotary periods are those of beats and bars, 5 to 40 frames; at the published 1e6 it is a tenth."""
    patch_embed_mult: int = 24
    """Channels per latent channel: 192 for the 128 numbers of a frame."""
    speaker_width: int = 64
    lyric_width: int = 32
    text_width: int = 128
    text_layers: int = 2
    text_heads: int = 4
    text_hidden: int = 256
    crops: tuple[int, ...] = (112, 168, 334)
    """Latent frames of a step, drawn evenly: 10.4, 15.6 and 31 s, so that no length is new to it."""
    tag_dropout: float = 0.2
    """Chance of each tag but the genre to be left out, so that short prompts mean something."""
    text_dropout: float = 0.15
    """Chance of an item without a prompt, for guidance."""
    lyric_dropout: float = 0.15
    speaker_dropout: float = 0.5
    velocity_loss: bool = True
    """Weigh all noise levels alike; otherwise upstream's loss on the clean estimate, which forgives fine detail."""
    frames_per_step: int = 1344
    """Latent frames of a step whatever its crop: 12, 8 or 4 items."""


@dataclass(frozen=True)
class Training:
    """How a stage is optimised."""

    steps: int
    learning_rate: float
    """AdamW's, at its peak."""
    batch: int
    """Stereo crops of a step (the transformer counts frames instead)."""
    frames: int = 0
    """Mel frames of a crop, 11.6 ms each, whole latent frames."""
    warmup: int = 200
    schedule: Literal["cosine", "constant"] = "cosine"
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-2
    clip: float = 1.0
    """Largest gradient norm of each group."""
    muon_rate: float = 0.0
    """Muon's peak, for the matrices; 0: all are AdamW's."""
    ema: float = 0.999
    save_every: int = 200
    """Steps between states that a killed run goes on from."""


@dataclass(frozen=True)
class ReportSettings:
    """What the result is judged on."""

    references: int = 24
    """Lofi songs of the demo corpus's recipe, with other notes than the demo's."""
    samples: int = 24
    """Clips generated for lofi prompts, as many for clean ones."""
    tempo_pairs: int = 4
    """Clips per tempo, slow and fast."""
    seconds: float = 31.0
    steps: int = 40
    """Euler steps."""
    guidance_scale: float = 15.0
    seed: int = 90_000


@dataclass(frozen=True)
class Recipe:
    """All of it. The same recipe gives the same weights on one machine with the same threads."""

    preset: PresetName
    seed: int = 5
    corpus: CorpusSettings = CorpusSettings()
    dcae: DcaeSettings = DcaeSettings()
    vocoder: VocoderSettings = VocoderSettings()
    edges: EdgesSettings = EdgesSettings()
    transformer: TransformerSettings = TransformerSettings()
    steady: SteadySettings = SteadySettings()
    beats: BeatsSettings = BeatsSettings()
    training: dict[StageName, Training] = field(default_factory=dict)
    report: ReportSettings = ReportSettings()

    @property
    def recipe_hash(self) -> str:
        """Of every setting that the weights depend on."""
        return hash_of(asdict(self))

    def with_steps(self, steps: dict[StageName, int]) -> Recipe:
        """The same with other numbers of steps."""
        training = {name: replace(stage, steps=steps.get(name, stage.steps)) for name, stage in self.training.items()}
        return replace(self, training=training)


FULL = Recipe(
    preset="full",
    training={
        "dcae": Training(steps=3_600, learning_rate=1e-3, batch=4, frames=128),
        "clock": Training(steps=400, learning_rate=5e-4, batch=4, frames=128, warmup=50),
        "vocoder": Training(steps=8_000, learning_rate=1e-3, batch=2, frames=48, weight_decay=0.0, muon_rate=4e-3),
        "edges": Training(steps=400, learning_rate=5e-4, batch=4, frames=128, warmup=50),
        "steady": Training(steps=9_000, learning_rate=2e-3, batch=0),
        "transformer": Training(steps=6_000, learning_rate=1e-3, batch=0),
        "bars": Training(
            steps=220,
            learning_rate=2e-3,
            batch=0,
            warmup=20,
            schedule="constant",
            muon_rate=4e-3,
            ema=0.98,
            save_every=50,
        ),
        "beats": Training(steps=2_400, learning_rate=2e-3, batch=0, warmup=20, muon_rate=4e-3, ema=0.99, save_every=50),
    },
)
SMOKE = Recipe(
    preset="smoke",
    corpus=CorpusSettings(clips=14, worn=2, seconds=13.0),
    dcae=DcaeSettings(channels=(8, 16, 16, 32), decoder_layers=(0, 1, 1, 1)),
    vocoder=VocoderSettings(
        dims=(336,),
        initial=160,
        discriminator=True,
        discriminator_channels=4,
    ),
    transformer=TransformerSettings(
        layers=2,
        heads=2,
        head_dim=32,
        patch_embed_mult=16,
        text_width=32,
        text_layers=1,
        text_hidden=32,
        crops=(64, 128),
        frames_per_step=256,
    ),
    steady=SteadySettings(clips=14),
    beats=BeatsSettings(clips=10, steady=2, others=2, crops=(64, 128), frames_per_step=256),
    training={
        "dcae": Training(steps=60, learning_rate=3e-3, batch=2, frames=64, warmup=5, ema=0.95, save_every=20),
        "clock": Training(steps=60, learning_rate=3e-3, batch=2, frames=64, warmup=5, ema=0.95, save_every=20),
        "vocoder": Training(
            steps=60,
            learning_rate=1e-3,
            batch=2,
            frames=32,
            warmup=5,
            betas=(0.8, 0.99),
            weight_decay=0.0,
            muon_rate=3e-3,
            ema=0.95,
            save_every=20,
        ),
        "edges": Training(steps=60, learning_rate=3e-3, batch=2, frames=64, warmup=5, ema=0.95, save_every=20),
        "steady": Training(steps=60, learning_rate=2e-3, batch=0, warmup=5, ema=0.95, save_every=20),
        "transformer": Training(steps=60, learning_rate=1e-3, batch=0, warmup=5, ema=0.95, save_every=20),
        "bars": Training(steps=30, learning_rate=1e-3, batch=0, warmup=5, ema=0.95, save_every=20),
        "beats": Training(steps=30, learning_rate=1e-3, batch=0, warmup=5, ema=0.95, save_every=20),
    },
    report=ReportSettings(references=4, samples=3, tempo_pairs=1, seconds=12.0, steps=6),
)
PRESETS: dict[PresetName, Recipe] = {"full": FULL, "smoke": SMOKE}
