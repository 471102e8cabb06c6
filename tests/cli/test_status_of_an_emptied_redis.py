from typing import Any

import pytest
from cli_rig import Shell

from worker.ledger.ledger import Ledger


@pytest.mark.parametrize(("days", "told"), [(0, True), (6, True), (8, False)])
def test_status_says_for_a_week_that_redis_was_emptied(
    shell: Shell, redis: Any, ledger: Ledger, days: int, *, told: bool
) -> None:
    """When, what it has cost, and what to do; scripts find the instant for ever."""
    assert ledger.deployment.reclaim("abc234")
    emptied_at = ledger.store.now() - days * 86_400 - 60
    redis.hset("batchmill:deployment", mapping={"emptied_at": repr(emptied_at), "orphans": "1234"})
    out = shell.run("status").out
    assert ("Redis was found emptied" in out) is told
    assert ("1,234 remote batches" in out) is told
    assert ("restore a backup" in out) is told
    facts = shell.json("status")
    assert facts["redis_emptied_at"] == pytest.approx(emptied_at)
    assert facts["orphaned_batches"] == 1234


def test_status_says_nothing_of_a_redis_that_was_not(shell: Shell, ledger: Ledger) -> None:
    """A new deployment begins in an empty one, and that is no trouble."""
    ledger.deployment.enter("abc234")
    assert "emptied" not in shell.run("status").out
    assert shell.json("status")["redis_emptied_at"] is None
