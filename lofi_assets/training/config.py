"""What a training run is: settings, features and places, as one JSON file that reproduces it (constitution II).

What belongs here: the settings with their defaults (constitution, Training Configuration; the trainer defaults of
ACE-Step v1 where it is silent) and the hashes that say whether two runs are the same. What does not: a profile's
settings and paths (`settings`, `base_model`). Imports without torch.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from lofi_assets.backbones import ACE_STEP_V1, Backbone, backbone_of
from lofi_assets.errors import LofiError
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.hashing import hash_of
from lofi_assets.records import Sha256, Split, TrackId
from lofi_assets.training.features.files import KEY_PATTERN
from lofi_assets.training.hashed_settings import Positive, Settings
from lofi_assets.training.lora_settings import LoraSettings
from lofi_assets.training.process_count import AUTO, counted

UNIDENTIFYING = frozenset(
    {
        "max_steps",
        "keep_best",
        "gradient_checkpointing",
        "cuda_graphs",
        "validation_limit",
        "validation_interval",
        "early_stopping",
        "keep_best_validation",
        "divergence_factor",
        "preview_count",
        "preview_seconds",
        "state_minutes",
    }
)
"""Training settings that do not change the weights at a given step, so that a run may go on under other values.

Two of them depend on others (`TrainingSettings.identifying`): under a schedule that decays to zero every step depends
on `max_steps`, and a compiler fuses other kernels, with other last bits, where activations are computed again.
"""

TRAINING_RUN = "training_run.json"
"""In `metadata/`: the run that is planned, or goes on."""
SPLITS: tuple[Split, ...] = ("train", "validation")
S = TypeVar("S", bound=Settings)
Probability = Annotated[float, Field(ge=0, le=1)]


class ConfigError(LofiError, ValueError):
    """A run cannot be read; the message names the file, the key and the rule."""


class TrainingSettings(Settings):
    """The optimiser, the objective and the rhythm of checkpoints."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Peak learning rate (constitution). Of prodigy, a factor of the rate that it estimates: 1.0."""
    optimizer: Literal["adamw", "adamw_8bit", "prodigy"] = "adamw"
    """adamw_8bit (arXiv 2110.02861) keeps the moments of large tensors in 8 bits, 2 instead of 8 bytes for each trained
    number; it needs the `bitsandbytes` extra. prodigy (arXiv 2306.06101) is AdamW that estimates its own rate, with 16
    bytes for each trained number; it needs the `prodigy` extra."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """After the warm-up: constant, so that more steps continue exactly; or linear or a half cosine to 0 at `max_steps`,
    so that other `max_steps` make another run."""
    warmup_steps: Annotated[int, Field(ge=0)] = 10
    """Steps over which the learning rate rises linearly."""
    max_steps: Positive = 100_000
    """Optimiser steps (constitution: 500 tracks x 200 repeats)."""
    checkpoint_interval: Positive = 5_000
    """Steps between checkpoints (constitution)."""
    state_minutes: Annotated[float, Field(gt=0)] = 10.0
    """Minutes between saved states, which a killed run goes on from; the checkpoints have their own interval."""
    keep_best: Positive = 3
    """Checkpoints kept by FAD, besides the latest (constitution, Checkpoint Management)."""
    precision: Literal["bf16-mixed", "32"] = "bf16-mixed"
    """bf16-mixed: frozen base in bfloat16, adapter and optimiser in float32, autocast. 32: everything float32."""
    base_quantization: Literal["none", "int8", "nf4"] = "none"
    """Bits of the frozen attention layers, 49 % of the weights that training reads: int8 (arXiv 2208.07339) or 4-bit
    NormalFloat (arXiv 2305.14314). The adapter learns around the error and is merged into the unquantized base. Lyric
    encoder and speaker embedder keep `precision`. Needs the `bitsandbytes` extra."""
    quantized_parts: Literal["attention", "blocks"] = "attention"
    """What `base_quantization` holds in fewer bits: the attention layers, or the whole blocks, whose feed-forward
    convolutions of one frame are another 46 % of the weights."""
    gradient_clip: Annotated[float, Field(gt=0)] = 0.5
    """Largest gradient norm (constitution)."""
    batch_size: Positive = 1
    """Items per forward pass of one process. The items of a step are of similar length; the shorter ones are padded,
    which changes neither their loss nor their gradient."""
    accumulate: Positive = 1
    """Forward passes of one process per optimiser step."""
    processes: Positive = 1
    """Processes that train together, one for each GPU; a step sees `batch_size` x `accumulate` x `processes` items.
    With the same `accumulate` x `processes` it is the same run. In a profile or a run's file `auto` is as many as a
    launcher started, else one for each visible GPU, and 1 on the CPU."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """What the processes hold: ddp, the whole base each; fsdp, a share of it each, for a base that is too large for
    one GPU. Without effect on a single process."""
    betas: tuple[Probability, Probability] = (0.8, 0.9)
    """AdamW moment decay."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """AdamW decoupled weight decay, on the adapter only."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Keep an exponential moving average of the adapter, with this decay per step (0.999 remembers about 1,000 steps);
    it is what validation measures and checkpoints hold, while training goes on from the adapter itself. null: off."""
    timestep_density: Literal["logit_normal", "uniform", "mode"] = "logit_normal"
    """How often each noise level is trained, before `shift` (Esser et al. 2024, arXiv 2403.03206, section 3.1):
    logit_normal, ACE-Step's, seldom at the ends; mode, densest in the middle without leaving the ends out."""
    logit_mean: float = 0.0
    """Mean of the logit-normal density; positive leans to little noise."""
    logit_std: Annotated[float, Field(gt=0)] = 1.0
    """Standard deviation of the logit-normal density."""
    mode_scale: Annotated[float, Field(ge=-1, le=1.75)] = 1.29
    """Weight of the middle in the mode density; 0 is uniform, below 0 the ends are favoured."""
    shift: Annotated[float, Field(gt=0)] = 3.0
    """Schedule shift; inference uses the same."""
    prompt_variants: Annotated[int, Field(ge=1, le=64)] = 1
    """Wordings of a track's prompt that are trained on, one for each item: as it is written, and the same tags in other
    orders. Each has text states in the feature cache. 1: as it is written, which is what samples are asked for."""
    text_dropout: Probability = 0.15
    """Chance that an item is trained without its prompt; for a backbone that drops all at once, without any."""
    speaker_dropout: Probability = 0.5
    """Chance that an item is trained without its speaker embedding."""
    lyric_dropout: Probability = 0.15
    """Chance that an item is trained without its lyrics."""
    ssl_weight: Annotated[float, Field(ge=0)] = 0.0
    """Factor of the SSL losses, which keep the first blocks near MERT and mHuBERT (ACE-Step v1 was trained with 1.0).
    Above 0 it needs their targets in the feature cache (the profile's `ssl_encoders`) and 176 MB for the projectors."""
    crop_frames: Positive | None = None
    """Longest crop in latent frames (10.77 per second); null trains on whole tracks."""
    crop_from: Literal["anywhere", "start"] = "anywhere"
    """Where a crop begins: at random, or where the track does, as what is sampled begins. From the start, a model that
    counts beats from its first frame is not told otherwise, and what is behind a crop is never heard."""
    gradient_checkpointing: bool = True
    """Recompute block activations in the backward pass: less memory, about a third more time, same gradients."""
    compile: bool | Literal["auto"] = "auto"
    """Compile the transformer blocks (torch.compile): fuses the element-wise work between the matrix products, which
    pays on a GPU over thousands of steps, best where `crop_frames` makes the items equally long: every new size is
    compiled for a minute. Items are padded to a few sizes. Needs a C compiler. auto: on a GPU that has one, over an
    unquantized base that is not shared out; by its id such a run is one that is not compiled."""
    cuda_graphs: bool = False
    """Record a pass of each size that comes again as a CUDA graph, and replay it: one launch in place of thousands, by
    the same kernels. Pays where kernels are launched more slowly than they run, best with `compile` or a `crop_frames`
    that make the sizes few. Before the first step a replay's gradients are compared with a plain pass's bit by bit. On
    one GPU, without SSL losses and `skip_share`; takes the memory of a pass once more. Not yet measured on a GPU."""
    validation_limit: Annotated[int, Field(ge=0)] = 32
    """Most validation tracks per validation loss."""
    validation_interval: Positive | None = None
    """Steps between validation losses, besides those of the checkpoints; null: only those."""
    early_stopping: Positive | None = None
    """End the run after this many validation losses in a row that are not below the lowest before them, the first
    checkpoint at the earliest. null: never."""
    keep_best_validation: bool = False
    """Keep the checkpoint with the lowest validation loss too, besides `keep_best` by FAD and the latest."""
    preview_count: Annotated[int, Field(ge=0)] = 2
    """Validation tracks whose conditions are sampled at every checkpoint, to be heard beside the track; 0: none."""
    preview_seconds: Annotated[float, Field(gt=0)] = 10.0
    """Length of a preview."""
    divergence_factor: Annotated[float, Field(gt=1)] = 10.0
    """Stop when the smoothed loss exceeds its lowest value by this factor."""
    skip_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Leave an item out of its step if its loss is no finite number, say which, and end the run once more than this
    share of the items was left out. 0: the first one ends the run."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Every random number of the run follows from it."""

    @property
    def global_batch(self) -> int:
        """Items of one optimiser step, over all processes."""
        return self.batch_size * self.accumulate * self.processes

    def ends_early(self, *, step: int, stale: int) -> bool:
        """Whether early stopping ends a run at `step`, after `stale` validation losses in a row without a lower one."""
        return self.early_stopping is not None and stale >= self.early_stopping and step >= self.checkpoint_interval

    @property
    def in_one_process(self) -> "TrainingSettings":
        """The same steps in one process: the same forward passes over the same items, one after the other."""
        return self.model_copy(update={"accumulate": self.accumulate * self.processes, "processes": 1})

    @property
    def identifying(self) -> dict[str, object]:
        """The settings that decide the weights at a given step, as plain values."""
        free = set(UNIDENTIFYING)
        if self.schedule != "constant":
            free.discard("max_steps")
        if self.compile is True:
            free.discard("gradient_checkpointing")
        values = super().identifying | {"compile": self.compile is True}
        return {name: value for name, value in values.items() if name not in free}

    @model_validator(mode="after")
    def _parts_work_together(self) -> "TrainingSettings":
        if self.optimizer == "prodigy" and not 0.1 <= self.learning_rate <= 10:
            raise ValueError(
                f"optimizer 'prodigy' estimates its own rate, of which learning_rate {self.learning_rate:g} is a "
                "factor: set learning_rate 1.0"
            )
        if self.parallel == "fsdp" and (self.base_quantization != "none" or self.optimizer != "adamw"):
            raise ValueError(
                "parallel 'fsdp' shares out plain tensors only: set base_quantization 'none' and optimizer 'adamw', "
                "or parallel 'ddp'"
            )
        if self.compile is True and (self.parallel == "fsdp" or self.base_quantization != "none"):
            raise ValueError("compile takes a whole, unquantized base: set parallel 'ddp' and base_quantization 'none'")
        several, quantized = self.processes > 1, self.base_quantization != "none"
        if self.cuda_graphs and (several or quantized or self.ssl_weight or self.skip_share):
            raise ValueError(
                "cuda_graphs holds passes of one process over an unquantized base whose work no value decides: set "
                "processes 1, base_quantization 'none', ssl_weight 0 and skip_share 0, or cuda_graphs false"
            )
        return self


class TrackFeatures(Settings):
    """A track as the trainer sees it."""

    track_id: TrackId
    """Identifier in the dataset."""
    key: Annotated[str, Field(pattern=KEY_PATTERN)]
    """Cached features (`features.files.FeatureKey`)."""
    variants: tuple[Annotated[str, Field(pattern=KEY_PATTERN)], ...] = ()
    """The same features under the other wordings of its prompt (`prompt_variants`)."""
    split: Split = "train"
    """Validation tracks are never trained on; they give the validation loss."""
    repeat: Positive = 1
    """How often the track comes in one pass over the training set."""


class InitialAdapter(Settings):
    """A LoRA that a run starts from, as it was taken into the data root (`training.initial`)."""

    folder: Path
    """Its copy, by content; the only field that may be another for the same run."""
    sha256: Sha256
    """Of the file, or of weights and configuration together."""
    form: str
    """Whose form it has (`adapter_forms`)."""
    strength: float | None = None
    """Factor on B A that was asked for; None: what the file says."""
    checkpoint: str = ""
    """Run and checkpoint of this data root that it is; empty for one from elsewhere."""
    trained_on: tuple[TrackId, ...] = ()
    """Tracks of this data root that it was trained on, by itself or by what it started from."""
    foreign: tuple[Sha256, ...] = ()
    """LoRAs from elsewhere that it is, or goes back to: what they were trained on, nobody here knows."""

    @property
    def identifying(self) -> dict[str, object]:
        """Everything but where the copy lies."""
        return {name: value for name, value in super().identifying.items() if name != "folder"}


class TrainingRun(Settings):
    """Everything that a run is made from. Relative paths are taken from the working directory."""

    architecture: str = ACE_STEP_V1
    """Model family of the base (`backbones.backbone_of`)."""
    base: Path
    """Folder of the base model, in the Hub's layout."""
    base_fingerprint: str
    """`Backbone.fingerprint(base)` when the features were computed."""
    features_dir: Path
    """Cache that holds the keys of `tracks`."""
    tracks: tuple[TrackFeatures, ...]
    """Training and validation tracks."""
    dataset_id: str
    """Dataset version, for people."""
    dataset_hash: Sha256
    """Content hash of the dataset version (constitution II)."""
    checkpoints_dir: Path
    """Receives `epoch=0-step={N}_lora/` and manifest.json."""
    logs_dir: Path
    """Receives `train-<run id>.jsonl`."""
    lora: LoraSettings
    """The adapter."""
    training: TrainingSettings = TrainingSettings()
    """The optimiser."""
    initial: InitialAdapter | None = None
    """What the adapter starts from; None: from nothing, as every run did before there was a choice."""
    device: str = "auto"
    """`auto` (first GPU, or the CPU), `cpu`, `cuda`, `cuda:1`."""
    split_identifies: bool = False
    """Whether runs differ by how a step is shared out among processes, as they did in the version before. True for a
    file that does not say, so that a run of that version goes on under its id."""

    @model_validator(mode="before")
    @classmethod
    def _processes_are_counted(cls, data: Any) -> Any:
        training = data.get("training") if isinstance(data, Mapping) else None
        if not isinstance(training, Mapping) or training.get("processes") != AUTO:
            return data
        count = counted(AUTO, device=str(data.get("device", "auto")))
        return {**data, "training": {**training, "processes": count}}

    @model_validator(mode="after")
    def _recorded_passes_draw_nothing(self) -> "TrainingRun":
        if self.training.cuda_graphs and self.lora.lora_dropout:
            raise ValueError("training.cuda_graphs cannot hold the masks of lora_dropout: set one of them only")
        return self

    @model_validator(mode="after")
    def _tracks_make_a_training_set(self) -> "TrainingRun":
        repeated = [name for name, count in Counter(track.track_id for track in self.tracks).items() if count > 1]
        if repeated:
            raise ValueError(f"tracks: {', '.join(sorted(repeated))} listed twice; use `repeat`")
        if not self.of_split("train"):
            raise ValueError("tracks: none has split 'train'; there is nothing to train on")
        return self

    def of_split(self, split: Split) -> tuple[TrackFeatures, ...]:
        """Tracks of a split, sorted by id: the order of the file never matters."""
        return tuple(sorted((t for t in self.tracks if t.split == split), key=lambda track: track.track_id))

    @property
    def backbone(self) -> Backbone:
        """The model family.

        Raises:
            BackboneError: it is not installed.
        """
        return backbone_of(self.architecture)

    @property
    def config_hash(self) -> str:
        """sha256 of base, adapter and training settings, less those that leave the weights at a given step alone, and
        of what the adapter starts from, if it does not start from nothing."""
        training = self.training if self.split_identifies else self.training.in_one_process
        start = (self.initial.identifying,) if self.initial else ()
        return hash_of(self.base_fingerprint, self.lora.identifying, training.identifying, *start)

    @property
    def run_id(self) -> str:
        """12 hex digits of configuration, dataset and features: under the same id, a later run continues an earlier."""
        tracks = [track.identifying for split in SPLITS for track in self.of_split(split)]
        return hash_of(self.config_hash, self.dataset_hash, tracks)[:12]


def load_lora_settings(path: Path) -> LoraSettings:
    """The adapter's settings from `config/lofi_lora_config.json`.

    Raises:
        ConfigError: naming file, key and rule.
    """
    return _parse(LoraSettings, path)


def load_run(path: Path) -> TrainingRun:
    """A run from its JSON file.

    Raises:
        ConfigError: naming file, key and rule.
    """
    return _parse(TrainingRun, path, absent={"split_identifies": True})


def save_run(path: Path, run: TrainingRun) -> None:
    """Write a run so that `load_run` gives it back."""
    write_json(path, run.model_dump(mode="json"))


def _parse(kind: type[S], path: Path, *, absent: Mapping[str, object] | None = None) -> S:
    """`absent`: key -> what a file means that does not have it."""
    data = read_json(path)
    if data is None:
        raise ConfigError(f"{path}: no such file; it should hold the {kind.__name__} as JSON")
    try:
        return kind.model_validate({**(absent or {}), **data} if isinstance(data, dict) else data)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or '(run)'}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{path}: {faults}") from error
