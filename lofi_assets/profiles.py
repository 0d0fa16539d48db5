"""Profiles: sizes, models and counts of one deployment (design.md section 6).

`LOFI_PROFILE` names a file of `config/profiles/` (default `demo`), `LOFI_DATA_DIR` the data root. A profile never sets
a gate: unknown keys are refused here, and `lofi constitution` audits the files.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
)

from lofi_assets.backbones import ACE_STEP_V1
from lofi_assets.backbones.sampling import FLOAT32, Precision
from lofi_assets.environment import variable
from lofi_assets.errors import DiskError, LofiError
from lofi_assets.files.hand_written import HandWrittenError, decoded, parse_yaml
from lofi_assets.records import Sha256
from lofi_assets.store import CONFIG_DIR, require_config

EXTENDS = "extends"
"""Key of a profile's file that names another, whose sections it changes."""


class ProfileError(LofiError, ValueError):
    """A profile cannot be read; the message names the file and the key."""


AtLeast1 = Annotated[int, Field(ge=1)]
Above0 = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class BaseModelSettings(_Section):
    """Which model to train on."""

    architecture: str = ACE_STEP_V1
    """Model family (`backbones.backbone_of`)."""

    kind: Literal["tiny", "shipped", "folder", "hub"]
    """tiny: written here with random weights; shipped: the trained one inside the package; folder: a local one in the
    Hub's layout; hub: downloaded."""
    path: str = ""
    """Folder, or Hub repository id."""
    revision: str | None = None
    """Hub commit; the fingerprint of the weights is recorded in any case."""


class LyricVocabularySettings(_Section):
    """Upstream's `vocab.json`, which the Hub repository lacks; needed as soon as a track has words."""

    source: str
    """Path relative to the data root, or https URL; downloaded once."""
    sha256: Sha256
    """Of the file; another file is refused."""


class AudioSettings(_Section):
    """How tracks are worked on."""

    workers: Annotated[int, Field(ge=0)]
    """Worker processes; 0 means one per core."""
    timeout_s: Above0
    """Seconds after which a worker on one track is ended."""
    memory_gb: Above0
    """Memory that one worker may take."""
    lossless: bool = False
    """Keep each master as 24-bit FLAC beside its MP3 and train on that; about 12 MB per minute."""
    segment: bool = False
    """Cut a file that is too long for one track into parts of 60 to 120 s at quiet points, instead of rejecting it."""


class SamplingSettings(_Section):
    """Audio generated for the validation prompts, or for the tier comparison."""

    count: AtLeast1
    """Clips per checkpoint or tier."""
    seconds: Above0
    """Length of a clip."""
    steps: AtLeast1
    """Euler steps."""
    guidance_scale: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Strength of adaptive projected guidance."""
    seed: Annotated[int, Field(ge=0)]
    """Clip i uses `seed + i`."""
    device: str = "cpu"
    """Torch device; for tiers, what ONNX Runtime computes on, for which `cuda` needs onnxruntime-gpu."""
    precision: Precision = FLOAT32
    """Of the model's passes in torch; noise, schedule, guidance and codec are float32 in any case."""
    cuda_graphs: bool = Field(default=False, exclude=True)
    """Replay the model's passes as CUDA graphs: one launch in place of thousands, by the same kernels, so that no clip
    depends on it. Not yet measured on a GPU."""

    @property
    def conditions(self) -> str:
        """What the clips are like, for whoever reads a number about them: `31 s, 16 steps, guidance 3`."""
        return f"{self.seconds:g} s, {self.steps} steps, guidance {self.guidance_scale:g}"

    @model_serializer(mode="wrap")
    def _without_the_usual_precision(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Settings that are float32 have the hash that they had when nothing else could be chosen."""
        dumped: dict[str, Any] = handler(self)
        return {name: value for name, value in dumped.items() if name != "precision" or value != FLOAT32}


class EvaluationSettings(_Section):
    """Encoders of the metrics."""

    encoder: Literal["musicnn", "vggish"]
    """FAD and KAD encoder; the gate's limit is on VGGish's scale."""
    encoder_weights: str | None = None
    """Weights of the encoder, relative to the data root; MusiCNN's are shipped."""
    clap: str | None = None
    """Folder of a trained CLAP model, relative to the data root; without it the CLAP gate stays inconclusive."""
    aesthetics: str | None = None
    """Folder of Audiobox Aesthetics, relative to the data root: advisory scores, which no gate reads."""
    resamples: AtLeast1
    """Bootstrap resamples."""
    device: str = "cpu"
    """Torch device."""


class ReleaseSettings(_Section):
    """Where a release goes once every gate holds."""

    target: Literal["folder", "hub"]
    """A local folder under `release/published`, or the Hugging Face Hub."""
    license: str
    """Licence of the released weights, an SPDX id."""
    repo_id: str = ""
    """Hub repository of the adapter."""
    tiers_repo_id: str = ""
    """Hub repository of the ONNX tiers."""
    comfyui_checkpoint: bool = False
    """Whether the merged model is released too, as one BF16 file for ComfyUI's checkpoint loader (7.5 GB at 3.3 B)."""
    merged_repo_id: str = ""
    """Hub repository of that file."""
    public: bool = False
    """Whether a repository that everybody can read may be written to. One that the release makes is private."""
    endpoint: str = ""
    """Address of a Hub other than huggingface.co, which HF_ENDPOINT then has to name; empty: that one, or one on this
    machine."""


class Profile(_Section):
    """One file of `config/profiles/`."""

    name: str
    """The file's stem."""
    base_model: BaseModelSettings
    lyric_vocabulary: LyricVocabularySettings | None = None
    """None: `lyric_vocab.json` in the base's folder, if it holds one."""
    ssl_encoders: dict[Literal["mert", "m-hubert"], str] = {}
    """Folders, relative to the data root, of the encoders whose targets are cached for `training.ssl_weight`."""
    audio: AudioSettings
    lora: dict[str, Any]
    """Overrides of `config/lofi_lora_config.json`; production overrides nothing."""
    training: dict[str, Any]
    """Fields of `training.config.TrainingSettings`."""
    init_from: str = ""
    """Id of the LoRA that training starts from, as `lofi train --init-from FILE` says it; empty: from nothing."""
    sampling: SamplingSettings
    evaluation: EvaluationSettings
    quantization: SamplingSettings
    release: ReleaseSettings
    alerts: tuple[str, ...] = ()
    """apprise URLs; `LOFI_ALERT_URLS` (comma-separated) adds more. None: alerts go to the log."""

    @field_validator("quantization")
    @classmethod
    def _tiers_have_their_own(cls, settings: SamplingSettings) -> SamplingSettings:
        if settings.precision != FLOAT32:
            raise ValueError("precision is for sampling only: every tier runs in the precision of its files")
        return settings


def load_profile(name: str | None = None, *, config_dir: Path = CONFIG_DIR) -> Profile:
    """The named profile, else `LOFI_PROFILE`, else demo.

    Raises:
        ProfileError: no such file, a key that is not known, or a value that does not fit.
        ConstitutionError: the folder of the configuration is not there.
    """
    return _read_profile(name or variable("LOFI_PROFILE") or "demo", config_dir)


@cache
def _read_profile(name: str, config_dir: Path) -> Profile:
    require_config(config_dir)
    path = config_dir / "profiles" / f"{name}.yaml"
    known = sorted(file.stem for file in (config_dir / "profiles").glob("*.yaml"))
    if name not in known:  # `../x` is a file too, but none that is audited
        raise ProfileError(f"{path}: no such profile; LOFI_PROFILE can be {', '.join(known)}")
    try:
        return Profile(name=name, **_sections(path))
    except HandWrittenError as error:
        raise ProfileError(str(error)) from error
    except ValidationError as error:
        raise ProfileError(f"{path}: {broken_keys(error)}") from error
    except TypeError as error:
        raise ProfileError(f"{path}: not YAML with the profile's keys ({' '.join(str(error).split())})") from error


def _sections(path: Path) -> dict[str, Any]:
    """What a profile's file says, over the sections of the one that it extends; a key of a section replaces one."""
    said = parse_yaml(decoded(path.read_bytes(), where=str(path)), where=str(path))
    if not isinstance(said, dict) or EXTENDS not in said:
        return said
    name = said.pop(EXTENDS)
    known = {file.stem: file for file in path.parent.glob("*.yaml") if file != path}
    if not isinstance(name, str) or name not in known:
        raise ProfileError(f"{path}: {EXTENDS} is {name!r}; it can be {', '.join(sorted(known))}")
    below = parse_yaml(decoded(known[name].read_bytes(), where=str(known[name])), where=str(known[name]))
    if not isinstance(below, dict) or EXTENDS in below:
        raise ProfileError(f"{path}: {EXTENDS} is {name!r}, which is no whole profile; name one that is")
    merged = dict(below)
    for key, value in said.items():
        both = isinstance(value, dict) and isinstance(below.get(key), dict)
        merged[key] = {**below[key], **value} if both else value
    return merged


def broken_keys(error: ValidationError, *, below: str = "") -> str:
    """Every key that does not fit, with what it should be, in one line."""
    faults = [(".".join(filter(None, (below, *map(str, fault["loc"])))), fault["msg"]) for fault in error.errors()]
    return "; ".join(f"{key}: {message}" for key, message in faults)


@contextmanager
def setting(profile: Profile, key: str) -> Iterator[None]:
    """Within the block, a fault names the profile's file and the key that leads there.

    Raises:
        ProfileError: from the fault.
    """
    try:
        yield
    except DiskError:
        raise  # no setting's fault
    except LofiError as error:
        raise ProfileError(f"config/profiles/{profile.name}.yaml, {key}: {error}") from error
