"""How far a test is, for whoever runs it: counts alone, until a planned look says more."""

from collections.abc import Sequence

from lofi_assets.listening.answers import collect
from lofi_assets.listening.errors import ListeningError
from lofi_assets.listening.invitations import read_invitations
from lofi_assets.listening.ledger import Entry, ended, of_test
from lofi_assets.listening.plan import read_plan
from lofi_assets.listening.tiers import tiers_result
from lofi_assets.listening.verdict import state_of
from lofi_assets.metrics.mushra import MushraResult
from lofi_assets.store import Store
from lofi_assets.wording import counted


def status_lines(store: Store, entry: Entry, entries: Sequence[Entry]) -> list[str]:
    """Lines about one test."""
    invited = len(read_invitations(store, entry.test)) if (store.listening / entry.test).is_dir() else 0
    state = "ended" if ended(entries, entry.test) else "open"
    lines = [f"{entry.test}  {entry.kind}  {entry.name}  {entry.at.date()}  {state}, {counted(invited, 'invitation')}"]
    try:
        lines += _tiers(tiers_result(store, entry)) if entry.kind == "tiers" else [_progress(store, entry, entries)]
    except ListeningError as error:
        lines.append(f"    {error}")
    for event in ("look", "closed", "lifted"):
        for found in of_test(entries, entry.test, event):
            what = f"look {found.look} at {found.listeners} listeners: {found.verdict}" if event == "look" else event
            who = f" by {found.by}: {found.reason}" if found.by else ""
            lines.append(f"    {found.at.date()} {what}{who}")
    return lines


def _progress(store: Store, entry: Entry, entries: Sequence[Entry]) -> str:
    plan = read_plan(store, entry)
    collected = collect(store, entry.test, seconds=plan.seconds)
    return f"    {state_of(plan, collected, len(of_test(entries, entry.test, 'look')))}"


def _tiers(result: MushraResult) -> list[str]:
    lines = [f"    {counted(len(result.listeners), 'listener')}, {counted(result.pieces, 'piece')}"]
    for name, score in sorted(result.conditions.items(), key=lambda item: -item[1].mean):
        low, high = score.interval or (None, None)
        interval = f"[{low:.1f}, {high:.1f}]" if low is not None and high is not None else "-"
        lines.append(
            f"    {name:12s} {score.mean:5.1f} {interval:14s} median {score.median:g}, "
            f"{score.below_reference:+.1f} below the hidden reference"
        )
    lines += [f"    left out {who}: {why}" for who, why in result.excluded.items()]
    return lines + [f"    {note}" for note in result.notes]
