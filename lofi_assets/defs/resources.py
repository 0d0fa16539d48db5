"""Resources: where the data is, which profile, where work on tracks runs, and whom to alert."""

import os
from typing import Any

import dagster as dg
from pydantic import Field

from lofi_assets.alerts.messages import Message
from lofi_assets.alerts.services import Service, send, services
from lofi_assets.environment import folder_at
from lofi_assets.profiles import AudioSettings, Profile, load_profile
from lofi_assets.store import Store, data_root
from lofi_assets.workers.mapping import MapTracks
from lofi_assets.workers.process_pool import LocalProcesses


class Platform(dg.ConfigurableResource[Any]):
    """The data root and the profile of this deployment."""

    data_dir: str = Field(default="", description="Data root; empty: LOFI_DATA_DIR, else data/ of the checkout.")
    profile_name: str = Field(default="", description="Profile; empty: LOFI_PROFILE, else demo.")

    @property
    def store(self) -> Store:
        """Paths under the data root."""
        named = self.data_dir.strip()
        return Store(folder_at(named, name="platform.data_dir") if named else data_root())

    @property
    def profile(self) -> Profile:
        """Sizes, models and counts."""
        return load_profile(self.profile_name or None)


class Workers(dg.ConfigurableResource[Any]):
    """Where work on tracks runs: processes of this machine. A cluster's resource returns another `MapTracks`."""

    def map_tracks(self, settings: AudioSettings) -> MapTracks:
        """What runs a function over tracks, in as many processes as the profile says, one per core for 0."""
        return LocalProcesses(settings.workers or os.cpu_count() or 1, settings.timeout_s, settings.memory_gb)


class Notifier(dg.ConfigurableResource[Any]):
    """The receivers of alerts: apprise URLs of the profile and of `LOFI_ALERT_URLS`; none: alerts go to the log."""

    def receivers(self, profile: Profile | None) -> list[Service]:
        """Every configured receiver; of the variable alone if the profile cannot be read."""
        return services(profile)

    def send(self, receiver: Service, message: Message) -> str:
        """Deliver one message to one receiver; "" or why it was not taken."""
        return send(receiver, message)
