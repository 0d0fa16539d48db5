"""Resources: where the data is, which profile, how training is launched, and whom to alert."""

import logging
import os

import dagster as dg
from pydantic import Field

from lofi_assets.environment import folder_at
from lofi_assets.profiles import Profile, data_root, load_profile
from lofi_assets.store import Store


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
    """Sends alerts with apprise to whatever the configuration names; without any URL they go to the log."""

    def send(self, *, platform: Platform, title: str, body: str, log: logging.Logger) -> None:
        """Alert people.

        Raises:
            dg.Failure: a configured service did not take the message; the sensor then tries again at its next tick.
        """
        urls = [*platform.profile.alerts, *filter(None, os.environ.get("LOFI_ALERT_URLS", "").split(","))]
        log.warning(f"ALERT {title}: {body}")
        if not urls:
            return
        import apprise

        sender = apprise.Apprise()
        if not all(sender.add(url.strip()) for url in urls):
            raise dg.Failure("an alert URL is not understood by apprise; see https://github.com/caronc/apprise/wiki")
        if not sender.notify(title=title, body=body):
            raise dg.Failure(f"alert {title!r} was not delivered to every service; it is sent again at the next tick")
