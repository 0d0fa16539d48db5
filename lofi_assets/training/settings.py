"""The settings of a run: LoRA file and profile, checked."""

from pathlib import Path

from pydantic import ValidationError

from lofi_assets.profiles import Profile, ProfileError, broken_keys
from lofi_assets.store import CONFIG_DIR
from lofi_assets.training.config import TrainingSettings, load_lora_settings
from lofi_assets.training.lora_settings import LoraSettings
from lofi_assets.training.process_count import counted


def lora_settings(profile: Profile, *, config_dir: Path = CONFIG_DIR) -> LoraSettings:
    """`config/lofi_lora_config.json` with the profile's overrides.

    Raises:
        ConfigError: naming file, key and rule.
        ProfileError: naming the key of the profile that is unknown or does not fit.
    """
    values = load_lora_settings(config_dir / "lofi_lora_config.json").model_dump() | profile.lora
    try:
        return LoraSettings.model_validate(values)
    except ValidationError as error:
        raise ProfileError(f"config/profiles/{profile.name}.yaml, {broken_keys(error, below='lora')}") from error


def training_settings(profile: Profile) -> TrainingSettings:
    """The profile's training section over the trainer's defaults.

    Raises:
        ProfileError: naming the key that is unknown or does not fit.
    """
    values = {key: value for key, value in profile.training.items() if key != "device"}
    if "processes" in values:
        values["processes"] = counted(values["processes"], device=str(profile.training.get("device", "auto")))
    try:
        return TrainingSettings.model_validate(values)
    except ValidationError as error:
        raise ProfileError(f"config/profiles/{profile.name}.yaml, {broken_keys(error, below='training')}") from error
