"""Where everything lives: the configuration, the data root, and every path below it.

Paths of the storage layout (data model, File Storage Layout; design.md section 2), and increments (new, stale,
unchanged, orphaned). Files are written and read by `files/`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lofi_assets.environment import SettingError, folder, variable

PACKAGE = Path(__file__).resolve().parent
"""The folder of this package, for what lies in it or beside it; only a module at its root may ask where it is."""


def _config_dir() -> Path:
    try:
        return folder("LOFI_CONFIG_DIR", PACKAGE.parent / "config")
    except SettingError:
        # Said by `require_config` to whoever asks for it, rather than by a traceback of an import.
        return Path(variable("LOFI_CONFIG_DIR"))


CONFIG_DIR = _config_dir()
"""Configuration of this checkout; `LOFI_CONFIG_DIR` names another."""


def require_config(config_dir: Path = CONFIG_DIR) -> None:
    """Ask for the folder of the configuration.

    Raises:
        SettingError: it is not there.
    """
    if not config_dir.is_dir():
        raise SettingError(
            f"{config_dir}: no such folder; LOFI_CONFIG_DIR must name one like the checkout's config/, or be blank"
        )


def data_root() -> Path:
    """`LOFI_DATA_DIR`, else `data/` beside `config/`; a relative one is below the working directory of each process.

    Raises:
        SettingError: the home of a user who does not exist.
    """
    return folder("LOFI_DATA_DIR", CONFIG_DIR.parent / "data")


CHOSEN_STYLES = "chosen_styles.json"
"""In `metadata/`: track id -> [style ids], written by people alone."""
STYLE_MAPPING = "style_mapping.json"
"""In `metadata/`: the data model's file, a result. Its copy in `cache/` tells a person's edit from what was written."""
REVIEWS = "reviews.jsonl"
"""In `metadata/`: one decision about a prompt per line, only ever appended to."""
SPEAKERS = "speakers.json"
"""In `metadata/`, written by hand: track id -> .npy or .safetensors file below the data root; an artist's tracks share
one file. A track that is not named has no speaker embedding."""


@dataclass(frozen=True)
class Store:
    """Paths under one data root. The root may be moved: everything recorded is relative to it."""

    root: Path

    @property
    def raw(self) -> Path:
        """Audio as acquired: commissioned/, royalty-free/, creative-commons/, partnerships/."""
        return self.root / "raw"

    @property
    def processed(self) -> Path:
        """`<style category>/<track_id>.mp3`."""
        return self.root / "processed"

    @property
    def quarantine(self) -> Path:
        """`<stage>/<track_id>.json` for every rejected track: rule, reason, measures."""
        return self.root / "quarantine"

    @property
    def final(self) -> Path:
        """Training split: MP3, prompt and lyrics side by side."""
        return self.root / "final"

    @property
    def validation(self) -> Path:
        """Validation split, laid out as `final`."""
        return self.root / "validation"

    @property
    def datasets(self) -> Path:
        """`<dataset_id>/`, one immutable folder per version."""
        return self.root / "dataset"

    @property
    def cache(self) -> Path:
        """Derived data that can be deleted at any time."""
        return self.root / "cache"

    @property
    def features(self) -> Path:
        """Latents and text states, content-addressed."""
        return self.cache / "features"

    @property
    def checkpoints(self) -> Path:
        """`epoch=0-step={N}_lora/` and manifest.json."""
        return self.root / "checkpoints"

    @property
    def adapters(self) -> Path:
        """LoRAs that runs start from, a folder each, by content (`training.initial`)."""
        return self.root / "adapters"

    @property
    def logs(self) -> Path:
        """Training logs, one JSON object per line."""
        return self.root / "logs"

    @property
    def samples(self) -> Path:
        """`<checkpoint_id>/*.mp3`."""
        return self.root / "samples"

    @property
    def listening(self) -> Path:
        """Listening tests, a folder each, and the ledger of all of them (`listening`)."""
        return self.root / "listening"

    @property
    def merged(self) -> Path:
        """`<checkpoint_id>/`: base with the LoRA merged in, in the Hub's layout."""
        return self.root / "models" / "merged"

    @property
    def base_models(self) -> Path:
        """Bases that the project writes itself."""
        return self.root / "models" / "base"

    @property
    def quantized(self) -> Path:
        """`fp32|fp16|int8|int4/`: ONNX components per tier (fp32 is the baseline of the tolerances)."""
        return self.root / "quantized"

    @property
    def export(self) -> Path:
        """The deployable bundle."""
        return self.root / "export"

    @property
    def release(self) -> Path:
        """The folder that is published, with the model card."""
        return self.root / "release"

    @property
    def alerts(self) -> Path:
        """What people were told, and what waits for a receiver that is down."""
        return self.root / "alerts"

    def metadata(self, name: str) -> Path:
        """A file of `metadata/`."""
        return self.root / "metadata" / name

    def relative(self, path: Path) -> str:
        """`path` as stored in records: POSIX, relative to the data root."""
        return path.relative_to(self.root).as_posix()


@dataclass(frozen=True)
class Increment:
    """What a stage has to do, by identifier: what is recorded against what is wanted."""

    new: tuple[str, ...]
    stale: tuple[str, ...]
    unchanged: tuple[str, ...]
    orphaned: tuple[str, ...]

    @classmethod
    def between(cls, *, recorded: Mapping[str, str], wanted: Mapping[str, str]) -> "Increment":
        """From what is recorded to what is wanted, each identifier -> hash of what decides its content."""
        both = sorted(wanted.keys() & recorded.keys())
        return cls(
            new=tuple(sorted(wanted.keys() - recorded.keys())),
            stale=tuple(key for key in both if wanted[key] != recorded[key]),
            unchanged=tuple(key for key in both if wanted[key] == recorded[key]),
            orphaned=tuple(sorted(recorded.keys() - wanted.keys())),
        )

    @property
    def todo(self) -> tuple[str, ...]:
        """Identifiers to compute, sorted."""
        return tuple(sorted((*self.new, *self.stale)))

    def counts(self) -> dict[str, int]:
        """Number of identifiers in each state."""
        return {name: len(getattr(self, name)) for name in ("new", "stale", "unchanged", "orphaned")}
