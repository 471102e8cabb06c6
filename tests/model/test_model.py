"""The model of the protocol: its fast rows come to what the table says."""

import pytest
from protocol.holding import HOLDING
from protocol.row import Row
from protocol.rows import ROWS
from protocol.search import explore
from protocol.setting import Rules
from protocol.words import LEFT_OUT, MOVES

from worker.core.lifecycle import TABLE

FAST = [row for row in ROWS if row.fast]


def test_the_model_moves_batches_as_the_table_says() -> None:
    """Every move of `core.lifecycle` is either made by the model or left out by name, and none is invented."""
    table = {(state.value, event.value): after.value for state, row in TABLE.items() for event, after in row.items()}
    assert table == {**MOVES, **LEFT_OUT}
    assert not MOVES.keys() & LEFT_OUT.keys()


@pytest.mark.parametrize("row", [row for row in FAST if not row.breaks], ids=lambda row: row.name)
def test_the_protocol_keeps_its_promises(row: Row) -> None:
    """In every state that can be reached within the row's bounds."""
    verdict = explore(row.setting)
    assert (verdict.complete, verdict.broken) == (True, ""), "\n".join([row.says, *verdict.trace, verdict.end])


@pytest.mark.parametrize("row", [row for row in FAST if row.breaks], ids=lambda row: row.name)
def test_without_a_rule_or_an_assumption_a_promise_breaks(row: Row) -> None:
    """Otherwise the rule would be idle, or the model blind."""
    verdict = explore(row.setting)
    assert verdict.broken in row.breaks, row.says
    assert verdict.trace


def test_every_rule_is_taken_away_by_some_row() -> None:
    """A rule that no row can do without is justified; any other is not used."""
    taken = {
        name for row in ROWS if row.breaks for name in Rules.__annotations__ if not getattr(row.setting.rules, name)
    }
    assert taken | {"fences"} == Rules.__annotations__.keys()


def test_fences_are_no_safety_device() -> None:
    """Without them state and attempt still refuse whatever is stale: leases only save work."""
    assert any(not row.setting.rules.fences and not row.breaks for row in HOLDING)


def test_rows_have_names_of_their_own() -> None:
    """A row is asked for by its name."""
    assert len({row.name for row in ROWS}) == len(ROWS)
