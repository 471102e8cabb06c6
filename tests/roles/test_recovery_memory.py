from typing import Any

from bench import Bench


def test_a_recovery_forgets_what_it_read_of_batches_that_are_no_longer_listed(bench: Bench) -> None:
    """A process lives through many restarts of Redis, and strangers make batches all the time."""
    app = bench.start(submit__horizon="0s")
    step: Any = app.rescuer._recover_by_token
    stranger: Any = bench.simulator.control.foreign(1)["id"]
    bench.simulator.control.end()
    step.__self__._strays._tokens["msgbatch_of_last_year"] = None
    app.ledger.lanes.begin_recovery("default", app.ledger.deployment.incarnation())
    assert step("default")
    assert step.__self__._strays._tokens == {stranger: None}
