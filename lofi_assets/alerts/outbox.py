"""A queue per receiver: every message reaches each of them once and in order, or it is said how many did not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lofi_assets.alerts.messages import Message
from lofi_assets.alerts.services import Service
from lofi_assets.alerts.state import AlertState, Queue
from lofi_assets.wording import counted

MAX_WAITING = 100
"""Messages kept for one receiver; beyond that the oldest are dropped and counted."""
MAX_ABSENT = 5
"""Queues kept for receivers that are configured no longer."""
PATIENCE = 20
"""Failed attempts, one a tick, after which a receiver is tried less often."""
LATER_SECONDS = 600.0
"""How often then."""
SUSPECT = 5
"""Failed attempts after which the next message is tried too: is it the receiver, or this one message?"""

Send = Callable[[Service, Message], str]
"""Delivers one message; "" or why not."""


@dataclass
class Delivery:
    """What came of one round."""

    sent: int = 0
    troubles: list[str] = field(default_factory=list)
    """One sentence for each receiver that did not take something."""


def enqueue(state: AlertState, receivers: Sequence[Service], messages: Sequence[Message]) -> None:
    """Let every receiver wait for the messages.

    A receiver that is configured for the first time takes over what waits for one that is configured no longer: an
    address that was mended gets what its wrong form did not.
    """
    keys = {service.key for service in receivers}
    absent = [key for key in state.queues if key not in keys]
    for service in receivers:
        if service.key not in state.queues:
            state.queues[service.key] = state.queues.pop(absent.pop(0)) if absent else Queue()
            state.queues[service.key].tries = 0
        queue = state.queues[service.key]
        queue.shown = service.shown
        _append(queue, messages)
    waiting = [key for key in absent if state.queues[key].messages][-MAX_ABSENT:]
    for key in set(absent) - set(waiting):
        del state.queues[key]


def _append(queue: Queue, messages: Sequence[Message]) -> None:
    waiting = (*queue.messages, *messages)
    queue.messages = waiting[-MAX_WAITING:]
    queue.dropped += len(waiting) - len(queue.messages)


def deliver(
    state: AlertState,
    receivers: Sequence[Service],
    send: Send,
    *,
    now: Callable[[], float],
    until: float,
    save: Callable[[], None],
) -> Delivery:
    """Send what waits, to each receiver until it refuses; those that work come first.

    Args:
        now: seconds since 1970.
        until: no attempt begins later.
        save: writes the state; called after every message that a receiver took.
    """
    done = Delivery()
    for service in sorted(receivers, key=lambda service: state.queues[service.key].tries):
        queue = state.queues[service.key]
        if queue.tries > PATIENCE and now() - queue.tried < LATER_SECONDS:
            done.troubles.append(f"{service}: {_waiting(queue)}; tried again every {LATER_SECONDS / 60:.0f} minutes")
            continue
        while (queue.messages or queue.dropped) and now() < until:
            reason = _send_next(queue, service, send)
            if reason:
                queue.tries, queue.tried = queue.tries + 1, now()
                done.troubles.append(f"{service}: {_waiting(queue)}: {reason}")
                save()
                break
            done.sent += 1
            queue.tries = 0
            save()
    return done


def _send_next(queue: Queue, service: Service, send: Send) -> str:
    """Deliver the notice of what was dropped, else the oldest message; "" or why not."""
    if queue.dropped:
        reason = send(service, _dropped(queue.dropped))
        if not reason:
            queue.dropped = 0
        return reason
    reason = send(service, queue.messages[0])
    if not reason:
        queue.messages = queue.messages[1:]
    elif queue.tries >= SUSPECT and len(queue.messages) > 1 and not send(service, queue.messages[1]):
        queue.messages = queue.messages[2:]
        queue.dropped += 1
        reason = ""
    return reason


def _dropped(number: int) -> Message:
    return Message(
        kind="warning",
        title=f"WARNING {counted(number, 'earlier alert')} did not reach you",
        body=f"At most {MAX_WAITING} wait for one receiver, and a message that it refuses is left out. "
        "All of them are in the log of the sensor `alerts`.",
    )


def _waiting(queue: Queue) -> str:
    return f"{counted(len(queue.messages), 'alert')} wait{'s' if len(queue.messages) == 1 else ''} for it"
