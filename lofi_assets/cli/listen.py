"""`lofi listen`: listening tests with people, from the plan to the verdict."""

import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from lofi_assets.cli.ports import require_free
from lofi_assets.store import Store, data_root

if TYPE_CHECKING:
    from lofi_assets.listening.ledger import Entry

SECONDS = click.FloatRange(4.0, 30.0)


@click.group()
def listen() -> None:
    """Do people hear that it was generated? Plan a test, invite people, take their answers."""


@listen.command()
@click.option("--form", type=click.Choice(["pair", "single", "both"]), default="pair", show_default=True)
@click.option("--trials", type=int, help="Of one listener, without controls; default: as many as there are, up to 16.")
@click.option("--listeners", type=int, help="Who count at the last look; default: as many as give power 0.8.")
@click.option("--seconds", type=SECONDS, default=10.0, show_default=True, help="Of an excerpt.")
@click.option(
    "--spending", type=click.Choice(["obrien_fleming", "pocock"]), default="obrien_fleming", show_default=True
)
def plan(**options: Any) -> None:
    """Open a test of the best checkpoint against the validation tracks; the plan is fixed from then on."""
    from lofi_assets.evaluation.human_evaluation import open_listening_test
    from lofi_assets.listening.plan import plan_hash

    made = open_listening_test(Store(data_root()), now=_now(), **options)
    forms = ", ".join(f"{count} {form}" for form, count in made.forms.items())
    click.echo(
        f"test {made.test} of {made.checkpoint_id}, plan {plan_hash(made)[:12]}\n"
        f"{made.listeners} listeners, {forms} trials each and {made.obvious} obvious controls; looks at "
        f"{', '.join(map(str, made.looks))} ({made.spending})\n"
        f"equivalence within +-{made.margin:g} at {made.equivalence_alpha:g}, guessing at {made.alpha:g}; "
        f"if nobody hears a difference, the test shows it with a probability of about {made.power():.2f}\n"
        f"now: lofi listen invite --count {round(1.25 * made.listeners)}, then lofi listen serve"
    )


@listen.command()
@click.option("--seconds", type=SECONDS, default=10.0, show_default=True, help="Of an excerpt.")
def tiers(seconds: float) -> None:
    """Open a comparison of INT8 and INT4 with FP32: MUSHRA, with hidden reference and anchors (ITU-R BS.1534)."""
    from lofi_assets.quantization.tier_listening import compare_tiers_by_ear

    made = compare_tiers_by_ear(Store(data_root()), seconds=seconds, now=_now())
    click.echo(
        f"test {made.test}: {made.pieces} pieces, {', '.join(made.conditions)}\n"
        f"now: lofi listen invite --test {made.test}, then lofi listen serve; lofi listen status has the summary"
    )


@listen.command()
@click.option("--count", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--test", default="", help="Default: the test that was opened last.")
def invite(count: int, test: str) -> None:
    """Make invitations, one link per line; each is for one person, and is not shown again."""
    from lofi_assets.listening.invitations import invite as make
    from lofi_assets.listening.ledger import ended, read_ledger
    from lofi_assets.listening.server import listen_url

    store = Store(data_root())
    entry = _test(store, test)
    if ended(read_ledger(store), entry.test):
        raise click.ClickException(f"test {entry.test} has ended; lofi listen plan opens another")
    for token in make(store, entry.test, count=count, now=_now()):
        click.echo(f"{listen_url()}/#{token}")


@listen.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; behind a proxy, its side.")
@click.option("--port", type=click.IntRange(1, 65535), default=3002, show_default=True)
def serve(host: str, port: int) -> None:
    """Serve the listening tests to whoever was invited, until Ctrl-C; answers are on the disk as they come."""
    from lofi_assets.environment import variable
    from lofi_assets.listening.ledger import read_ledger
    from lofi_assets.listening.server import HOST, LISTEN_URL, listen_url, serve_listening

    if host not in (HOST, "localhost", "::1") and not variable(LISTEN_URL):
        raise click.ClickException(
            f"--host {host} is for a proxy: say by {LISTEN_URL} under which address people reach it, e.g. "
            "https://listen.example.org; any other name gets no answer"
        )
    store = Store(data_root())
    read_ledger(store)
    require_free(port, option="--port")
    click.echo(f"listening tests: {listen_url(port)} (Ctrl-C ends it)")
    with contextlib.suppress(KeyboardInterrupt):
        serve_listening(store, host=host, port=port)


@listen.command()
def status() -> None:
    """Every test with how far it is; answers are counted, and looked at only at the planned looks."""
    from lofi_assets.listening.ledger import opened, read_ledger
    from lofi_assets.listening.status import status_lines

    store = Store(data_root())
    entries = read_ledger(store)
    for entry in opened(entries):
        click.echo("\n".join(status_lines(store, entry, entries)))
    if not opened(entries):
        click.echo("No listening test was ever opened; lofi listen plan opens one.")


@listen.command()
@click.argument("test")
@click.option("--by", required=True, help="Your name; it goes on record.")
@click.option("--reason", required=True, help="Why; it goes on record.")
def close(test: str, by: str, reason: str) -> None:
    """End TEST before its time. Its answers so far are judged against guessing, and the next test has a lower level."""
    from lofi_assets.listening.verdict import close_test

    store = Store(data_root())
    entry = _test(store, test)
    verdict = close_test(store, entry, by=by, reason=reason, now=_now())
    click.echo(f"closed {entry.test}: {verdict}; now materialise human_evaluation")


@listen.command()
@click.argument("test")
@click.option("--by", required=True, help="Your name; it goes on record.")
@click.option("--reason", required=True, help="Why its verdict is wrong; it goes on record.")
def lift(test: str, by: str, reason: str) -> None:
    """Let the verdict of TEST count no more. It stays in the ledger, and so does who lifted it."""
    from lofi_assets.listening.verdict import lift_verdict

    store = Store(data_root())
    entry = _test(store, test)
    lift_verdict(store, entry, by=by, reason=reason, now=_now())
    click.echo(f"lifted {entry.test}; now materialise human_evaluation")


def _test(store: Store, test: str) -> "Entry":
    from lofi_assets.listening.errors import ListeningError
    from lofi_assets.listening.ledger import opened, read_ledger, the_test

    entries = read_ledger(store)
    if test:
        return the_test(entries, test)
    if not (tests := opened(entries)):
        raise ListeningError("no listening test was ever opened; lofi listen plan opens one")
    return tests[-1]


def _now() -> datetime:
    return datetime.now(UTC)
