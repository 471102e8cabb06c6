from bench import Bench
from endings import batches, ends_right, enqueue

from worker.core.model import Batch
from worker.parking import Parking
from worker.refusals import Refusals
from worker.wiring import App


def refusals_of(app: App) -> Refusals:
    """Return what a submitter of this process decides refusals with."""
    shared = {"config": app.config, "ledger": app.ledger, "telemetry": app.telemetry, "clock": app.clock}
    return Refusals(parking=Parking(**shared), **shared)  # type: ignore[arg-type]


def seen_before_others_settled_it(bench: Bench, app: App) -> tuple[Batch, list[str]]:
    """Return a sealed batch as a process saw it that was frozen since; by now it is settled."""
    names = enqueue(bench, 3)
    assert app.batcher is not None
    app.batcher.step("default")
    seen = batches(app)[0]
    ends_right(bench, app, names)
    return seen, names


def test_a_probe_that_comes_too_late_is_cut_from_nothing(bench: Bench) -> None:
    """Its prompts are settled and gone: there is nothing to decide, and nobody needs to hear of it."""
    app = bench.start()
    seen, names = seen_before_others_settled_it(bench, app)
    refusals_of(app).split(seen, "1", 1, probe=True)
    assert batches(app) == []
    assert len(bench.rows()) == len(names)


def test_a_prompt_that_others_settled_is_not_taken_out(bench: Bench) -> None:
    """The index that a late refusal names is of a body that nobody will send again."""
    app = bench.start()
    seen, names = seen_before_others_settled_it(bench, app)
    refusals_of(app)._eject(seen, "1", 2)
    assert batches(app) == []
    assert len(bench.rows()) == len(names)
