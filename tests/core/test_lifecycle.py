from pathlib import Path

import pytest

from worker.core.lifecycle import TABLE, Event, IllegalTransitionError, draw, follow
from worker.core.model import State

DRAWN = Path(__file__).parents[2] / "docs" / "lifecycle.md"

# Spelled by hand: a table checked only against itself does not notice a row that was deleted.
LEGAL = {
    ("sealed", "submit", "submitting"),
    ("sealed", "find", "in_progress"),
    ("sealed", "skip", "ended"),
    ("sealed", "hold", "held"),
    ("submitting", "accept", "in_progress"),
    ("submitting", "adopt", "in_progress"),
    ("submitting", "find", "in_progress"),
    ("submitting", "refuse", "sealed"),
    ("submitting", "absent", "sealed"),
    ("submitting", "hold", "held"),
    ("in_progress", "cancel", "canceling"),
    ("in_progress", "end", "ended"),
    ("in_progress", "hold", "held"),
    ("canceling", "end", "ended"),
    ("canceling", "hold", "held"),
    ("ended", "disown", "submitting"),
    ("ended", "deliver", "delivered"),
    ("ended", "hold", "held"),
    ("delivered", "settle", "settled"),
    ("delivered", "hold", "held"),
    ("held", "resubmit", "sealed"),
    ("held", "bury", "ended"),
}


@pytest.mark.parametrize(("state", "event", "after"), sorted(LEGAL))
def test_a_batch_may_move_where_the_law_says(state: str, event: str, after: str) -> None:
    """Each legal move, one by one."""
    assert follow(State(state), Event(event)) is State(after)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_every_other_move_is_refused_by_name(state: State, event: Event) -> None:
    """A move outside the law names the state and the event, so the log says whose bug it is."""
    if any(legal[:2] == (state, event) for legal in LEGAL):
        return
    with pytest.raises(IllegalTransitionError, match=f"^a batch that is {state} cannot {event}$"):
        follow(state, event)


def test_settled_is_the_only_end() -> None:
    """Whatever happens to a batch, it ends settled; held is a pause, not an end."""
    assert [state for state, row in TABLE.items() if not row] == [State.SETTLED]


def test_the_law_knows_every_state_and_uses_every_event() -> None:
    """A state without a row could never be asked about, an event in no row could never happen."""
    assert set(TABLE) == set(State)
    assert {event for row in TABLE.values() for event in row} == set(Event)


@pytest.mark.parametrize("state", State)
def test_every_state_can_still_come_to_an_end(state: State) -> None:
    """No state is a trap: from each a way leads to settled."""
    reached = {state}
    for _ in State:
        reached |= {after for known in reached for after in TABLE[known].values()}
    assert State.SETTLED in reached


def test_a_prompt_is_paid_for_again_only_where_nothing_can_exist() -> None:
    """Back to sealed, where it may be posted, lead a refusal, a proof of absence, and a human's decision."""
    back = {(state, event) for state, row in TABLE.items() for event, after in row.items() if after is State.SEALED}
    assert back == {
        (State.SUBMITTING, Event.REFUSE),
        (State.SUBMITTING, Event.ABSENT),
        (State.HELD, Event.RESUBMIT),
    }


def test_the_drawn_diagram_is_the_law() -> None:
    """`docs/lifecycle.md` holds the diagram as the table draws it today."""
    assert f"```mermaid\n{draw()}\n```" in DRAWN.read_text(encoding="utf-8")


@pytest.mark.parametrize("state", State)
def test_every_state_has_its_paragraph(state: State) -> None:
    """A reader of the diagram finds each state explained below it, once."""
    assert DRAWN.read_text(encoding="utf-8").count(f"\n**{state}** ") == 1
