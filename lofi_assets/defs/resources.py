"""Resources: where the data is, which profile, how training is launched, and whom to alert."""

import dagster as dg
from pydantic import Field

from lofi_assets.alerts.messages import Message
from lofi_assets.alerts.services import Service, send, services
from lofi_assets.environment import folder_at
from lofi_assets.profiles import Profile, load_profile
from lofi_assets.store import Store, data_root


class Platform(dg.ConfigurableResource):
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


class Notifier(dg.ConfigurableResource):
    """The receivers of alerts: apprise URLs of the profile and of `LOFI_ALERT_URLS`; none: alerts go to the log."""

    def receivers(self, profile: Profile | None) -> list[Service]:
        """Every configured receiver; of the variable alone if the profile cannot be read."""
        return services(profile)

    def send(self, receiver: Service, message: Message) -> str:
        """Deliver one message to one receiver; "" or why it was not taken."""
        return send(receiver, message)
