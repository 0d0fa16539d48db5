"""`lofi alerts`: whether alerts reach anybody."""

import sys
from collections.abc import Mapping
from typing import Any

import click


@click.group()
def alerts() -> None:
    """Who hears of failed gates, failed runs and deliveries."""


@alerts.command()
def test() -> None:
    """Send one message of each kind to every receiver; non-zero if one did not take them all."""
    from lofi_assets.alerts.services import TEST_MESSAGES, VARIABLE, send, services
    from lofi_assets.profiles import ProfileError, load_profile

    try:
        profile = load_profile()
    except ProfileError as error:
        raise click.ClickException(str(error)) from error
    receivers = services(profile)
    if not receivers:
        click.echo(
            "No receiver is configured: alerts go to the log of the sensor `alerts` only.\n"
            f"Name apprise URLs in {VARIABLE} (separated by commas), or under `alerts:` in "
            f"config/profiles/{profile.name}.yaml; https://github.com/caronc/apprise/wiki lists the services."
        )
        return
    failed = 0
    for receiver in receivers:
        refused = {message.kind: reason for message in TEST_MESSAGES if (reason := send(receiver, message))}
        failed += bool(refused)
        taken = [message.kind for message in TEST_MESSAGES if message.kind not in refused]
        click.echo(f"{receiver}: " + (f"delivered {', '.join(taken)}" if taken else "nothing delivered"))
        for reason, kinds in _by_reason(refused).items():
            click.echo(f"    not delivered {', '.join(kinds)}: {reason}", err=True)
    sys.exit(1 if failed else 0)


def _by_reason(refused: Mapping[Any, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for kind, reason in refused.items():
        found.setdefault(reason, []).append(kind)
    return found
