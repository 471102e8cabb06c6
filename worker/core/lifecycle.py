"""The law of a batch: which state may follow which, and by what event.

All that may change a batch's state stands in this file, and the file does not know who asks. A pair that is not
in the table is an error and leaves the state as it was. `docs/lifecycle.md` is drawn from the table.
"""

from enum import StrEnum

from worker.core.model import State


class Event(StrEnum):
    """What happens to a batch."""

    SUBMIT = "submit"  # the intent is durable, the last byte may follow
    ACCEPT = "accept"  # the API answered with an id
    ADOPT = "adopt"  # reconciling proved that a remote batch is ours
    REFUSE = "refuse"  # the API said no, or the last byte was never sent: nothing exists
    ABSENT = "absent"  # the horizon passed and a complete listing shows no candidate
    FIND = "find"  # recovery found the remote batch of an intent that Redis had forgotten
    DISOWN = "disown"  # the results carry somebody else's token
    CANCEL = "cancel"  # the remote batch is being canceled, by us or by others
    END = "end"  # the remote batch has ended
    SKIP = "skip"  # no prompt of the range is usable: there is nothing to submit
    DELIVER = "deliver"  # every sink has committed
    SETTLE = "settle"  # every prompt of the range has its one outcome
    HOLD = "hold"  # no rule can decide; a human will
    RESUBMIT = "resubmit"  # a human decided to pay again
    BURY = "bury"  # a human gave the batch up


TABLE: dict[State, dict[Event, State]] = {
    State.SEALED: {
        Event.SUBMIT: State.SUBMITTING,
        Event.FIND: State.IN_PROGRESS,
        Event.SKIP: State.ENDED,
        Event.HOLD: State.HELD,
    },
    State.SUBMITTING: {
        Event.ACCEPT: State.IN_PROGRESS,
        Event.ADOPT: State.IN_PROGRESS,
        Event.FIND: State.IN_PROGRESS,
        Event.REFUSE: State.SEALED,
        Event.ABSENT: State.SEALED,
        Event.HOLD: State.HELD,
    },
    State.IN_PROGRESS: {
        Event.CANCEL: State.CANCELING,
        Event.END: State.ENDED,
        Event.HOLD: State.HELD,
    },
    State.CANCELING: {
        Event.END: State.ENDED,
        Event.HOLD: State.HELD,
    },
    State.ENDED: {
        Event.DISOWN: State.SUBMITTING,
        Event.DELIVER: State.DELIVERED,
        Event.HOLD: State.HELD,
    },
    State.DELIVERED: {
        Event.SETTLE: State.SETTLED,
        Event.HOLD: State.HELD,
    },
    State.HELD: {
        Event.RESUBMIT: State.SEALED,
        Event.BURY: State.ENDED,
    },
    State.SETTLED: {},
}


class IllegalTransitionError(Exception):
    """The table has no such row: a bug of ours, nothing was changed."""


def follow(state: State, event: Event) -> State:
    """Return the state that `event` leads to from `state`.

    Raises IllegalTransitionError when the table knows no such move.
    """
    try:
        return TABLE[state][event]
    except KeyError:
        raise IllegalTransitionError(f"a batch that is {state} cannot {event}") from None


def draw() -> str:
    """Draw the table as a Mermaid state diagram; `docs/lifecycle.md` holds the committed copy."""
    lines = ["stateDiagram-v2", "    [*] --> sealed"]
    for state, row in TABLE.items():
        lines += [f"    {state} --> {after}: {event}" for event, after in row.items()]
        if not row:
            lines.append(f"    {state} --> [*]")
    return "\n".join(lines)
