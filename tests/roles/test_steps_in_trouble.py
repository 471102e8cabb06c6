"""Trouble in the midst of a step: whatever fails between two writes, the next look makes it good."""

from dataclasses import replace
from typing import Any

import pytest
from bench import Bench, params, turn
from endings import batches, ends_right, enqueue, held, marks, remote_ids, sizes, states
from midway import DUE, claim_now, doubtful, ended, in_progress, rewrite_results, sealed

from worker import drainer, poller, readings, submitter
from worker.actors import Queue
from worker.config import load_config
from worker.core.model import State
from worker.ledger.batches import Batches
from worker.ledger.prompts import Prompts
from worker.ledger.store import LedgerUnavailableError
from worker.parking import Parking
from worker.recovery import Orphans
from worker.simulator import Simulator
from worker.sinks import SinkError
from worker.sinks.protocol import ErrorType
from worker.telemetry import Telemetry
from worker.wiring import App
from worker.workspaces import Workspaces

KEYS = {"sk-ant-bench": "wrkspc_ours", "sk-ant-other": "wrkspc_theirs"}


def away(*_args: object, **_named: object) -> Any:
    """Stand in for a Redis that does not answer."""
    raise LedgerUnavailableError("Redis cannot be reached")


def with_switched_key(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> App:
    """Start a worker with the key of another workspace."""
    other = {"ANTHROPIC_API_KEY": "sk-ant-other"}
    with monkeypatch.context() as patch:
        patch.setattr("bench.load_config", lambda **settings: load_config(**settings | {"environ": other}))
        return bench.start()


def test_a_range_that_cannot_be_read_was_never_posted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis goes away while the body is sent: nobody asked for the intent, so there is nothing to take back."""
    app = bench.start()
    names = sealed(bench, app, 3)
    with monkeypatch.context() as patch:
        patch.setattr(Prompts, "entries", away)
        with pytest.raises(LedgerUnavailableError):
            app.steps[Queue.SUBMIT]([claim_now(bench, app)])
    assert (sizes(bench), states(app)) == ([], [State.SEALED])
    assert batches(app)[0].attempt == 0
    bench.redis.zadd(DUE, {batches(app)[0].uid: 0})
    ends_right(bench, app, names)


def test_an_answer_that_cannot_be_recorded_is_found_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis stays away for as long as the answer is remembered: the doubt ends in it, and nothing is paid twice."""
    app = bench.start()
    names = sealed(bench, app, 3)
    tries: list[int] = []

    def refuse(*_args: object, **_named: object) -> str:
        tries.append(len(tries))
        raise LedgerUnavailableError("Redis cannot be reached")

    with monkeypatch.context() as patch:
        patch.setattr(submitter, "ACCEPT_TRIES", 3)
        patch.setattr(Batches, "accept", refuse)
        with pytest.raises(LedgerUnavailableError):
            app.steps[Queue.SUBMIT]([claim_now(bench, app)])
    assert len(tries) == 3
    assert states(app) == [State.SUBMITTING]
    bench.redis.zadd(DUE, {batches(app)[0].uid: 0})
    ends_right(bench, app, names)
    assert sizes(bench) == [3]


def test_a_sealed_batch_waits_for_the_workspace_of_those_that_are_open(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key was switched: nothing is posted into the other workspace, and the lane says why."""
    with Simulator(ends_after=60.0, poll_hint=0, workspaces=KEYS) as two:
        bench.simulator = two
        app = bench.start(lanes__default__max_count="2")
        enqueue(bench, 2)
        bench.drive(app, lambda: states(app) == [State.IN_PROGRESS])
        switched = with_switched_key(bench, monkeypatch)
        sealed(bench, app, 1)
        (open_batch, waiting) = batches(app)
        bench.redis.zadd(DUE, {open_batch.uid: "+inf", waiting.uid: 0})
        switched.steps[Queue.SUBMIT](switched.ledger.batches.claim("default", limit=9, lease=30.0))
        assert marks(app)[1] == "workspace"
        assert [batch.state for batch in batches(app)] == [State.IN_PROGRESS, State.SEALED]
        assert sizes(bench) == [2]
        assert app.ledger.deployment.in_flight() == 2


def test_a_doubt_is_not_ended_in_another_workspace(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty listing of a stranger's workspace is no proof that nothing was made."""
    with Simulator(ends_after=60.0, poll_hint=0, workspaces=KEYS) as two:
        bench.simulator = two
        app = bench.start(lease="30s")
        app.ledger.deployment.note(workspace_id="wrkspc_ours")
        names = doubtful(bench, app)
        switched = with_switched_key(bench, monkeypatch)
        end = app.ledger.store.now() + 2 * app.config.submit.horizon
        bench.drive(switched, lambda: app.ledger.store.now() > end and marks(app)[1] == "workspace")
        switched.steps[Queue.SUBMIT]([claim_now(bench, app)])
        assert states(app) == [State.SUBMITTING]
        two.control.end()
        bench.redis.zadd(DUE, {batches(app)[0].uid: 0})
        ends_right(bench, app, names)
        assert sizes(bench) == [3]


def test_an_api_that_names_no_workspace_is_believed(bench: Bench) -> None:
    """There is nothing to compare; and nothing is written down that would look like a change later."""
    app = bench.start()
    parking = Parking(config=app.config, ledger=app.ledger, telemetry=Telemetry(version="test"), clock=app.clock)
    app.ledger.deployment.note(workspace_id="wrkspc_ours")
    assert Workspaces(ledger=app.ledger, parking=parking).admits("default", None)
    assert app.ledger.deployment.recall("workspace_id") == "wrkspc_ours"
    assert marks(app)[1] is None


@pytest.mark.parametrize(
    "trouble",
    [
        [{"kind": "status", "on": "retrieve", "status": 500}],
        [{"kind": "not_found", "on": "retrieve"}, {"kind": "status", "on": "list", "status": 500}],
    ],
    ids=["the look", "the look for the workspace"],
)
def test_results_are_not_believed_gone_while_the_api_is_in_trouble(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, trouble: list[dict[str, Any]]
) -> None:
    """A look that fails says nothing; the results are there again, and every prompt has its row."""
    monkeypatch.setattr(drainer, "PATIENCE", 1)
    app = bench.start(lease="30s")
    names = ended(bench, app)
    bench.simulator.control.inject([{"kind": "not_found", "on": "results"}])
    bench.simulator.control.inject(trouble)
    app.steps[Queue.DRAIN]([claim_now(bench, app)])
    assert states(app) == [State.ENDED]
    assert batches(app)[0].failures == 1
    ends_right(bench, app, names)


def test_an_old_batch_is_not_believed_gone_while_the_api_is_in_trouble(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose workspace it is could not be asked: the batch is looked at again later."""
    monkeypatch.setattr(poller, "YOUNG_SECONDS", 0.0)
    monkeypatch.setattr(poller, "MISSED_LOOKS", 0)
    app = bench.start(lease="30s")
    names = in_progress(bench, app)
    bench.simulator.control.inject({"kind": "not_found", "on": "retrieve"})
    bench.simulator.control.inject({"kind": "status", "on": "list", "status": 500})
    app.steps[Queue.POLL]([claim_now(bench, app)])
    assert states(app) == [State.IN_PROGRESS]
    bench.simulator.control.end()
    ends_right(bench, app, names)


def test_a_sink_that_cannot_open_falls_out_and_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the batch is lost with it."""
    app = bench.start(lease="30s")
    names = ended(bench, app)
    with monkeypatch.context() as patch:

        def full(_batch: object) -> Any:
            raise SinkError("no room", error_type=ErrorType.NO_SPACE, retryable=True)

        patch.setattr(app.sinks["results"], "open", full)
        app.steps[Queue.DRAIN]([claim_now(bench, app)])
    assert states(app) == [State.ENDED]
    assert bench.rows() == []
    ends_right(bench, app, names)


def test_lines_without_end_are_no_results(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that repeats itself for ever must not keep a thread for ever: what never ends is for a human."""
    monkeypatch.setattr(drainer, "PATIENCE", 1)
    monkeypatch.setattr(readings, "SPARE_LINES", 0)
    app = bench.start(lease="30s")
    ended(bench, app)
    bench.simulator.control.inject({"kind": "foreign_line", "lines": 9})
    app.steps[Queue.DRAIN]([claim_now(bench, app)])
    batch = held(app)
    assert batch is not None
    assert "lines without end" in str(batch.reason)
    assert bench.rows() == []


def test_a_line_about_an_entry_that_never_was_stands_in_for_none(bench: Bench) -> None:
    """It lies within the range and names no prompt: the one whose line is missing is waited for."""
    app = bench.start(lease="30s")
    stream = "batchmill:{default}:prompts"
    names = [f"p{number}" for number in range(3)]
    for number, name in enumerate(names):
        bench.redis.xadd(stream, {"params": params(name), "id": name}, id=f"{5 + 2 * number}-0")
    bench.simulator.control.inject({"kind": "stuck", "on": "create"})
    bench.drive(app, lambda: states(app) == [State.IN_PROGRESS])
    bench.simulator.control.end()
    app.steps[Queue.POLL]([claim_now(bench, app)])
    assert app.api is not None
    usual = app.api.results
    rewrite_results(app, lambda line: line.replace(b"7-0", b"8-0"))
    app.steps[Queue.DRAIN]([claim_now(bench, app)])
    assert (bench.rows(), states(app)) == ([], [State.ENDED])
    assert batches(app)[0].misses == 1
    app.api.results = usual  # type: ignore[method-assign]
    ends_right(bench, app, names)


def test_what_models_are_called_does_not_fill_the_metrics(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is too long, and the hundred-and-first one, count as another; usage without a cache counts too."""
    monkeypatch.setattr(readings, "MOST_MODELS", 2)
    app = bench.start(lease="30s")
    names = ended(bench, app, 4)
    models = iter([b"m-one", b"m-two", b"m-three", b"m" * 200])

    def rename(line: bytes) -> bytes:
        start = line.index(b'"cache_creation":')
        end = line.index(b"}", start) + 2
        return (line[:start] + line[end:]).replace(b'"claude-haiku-4-5"', b'"' + next(models) + b'"')

    rewrite_results(app, rename)
    app.steps[Queue.DRAIN]([claim_now(bench, app)])
    ends_right(bench, app, names)
    told = {
        sample.labels["model"]
        for metric in app.telemetry.registry.collect()
        for sample in metric.samples
        if "model" in sample.labels
    }
    assert told == {"m-one", "m-two", "other"}


def test_limits_that_change_hold_for_a_window_that_is_open(bench: Bench) -> None:
    """A reload: what waits is counted again under the new ones."""
    app = bench.start(lanes__default__max_age="1h", lanes__default__max_count="100")
    names = enqueue(bench, 4)
    assert app.batcher is not None
    assert app.batcher.step("default") != 0
    lanes = {name: replace(lane, max_count=2) for name, lane in app.config.lanes.items()}
    app.batcher.limits_from(replace(app.config, lanes=lanes))
    while app.batcher.step("default") == 0:
        pass
    assert [batch.count for batch in batches(app)] == [2, 2]
    ends_right(bench, app, names)


def test_orphans_are_counted_when_the_api_can_be_asked(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Not while it is in trouble, not while one may still be ours, and by one replica only."""
    app = bench.start(submit__reconcile_interval="10ms")
    in_progress(bench, app)
    bench.redis.flushall()
    turn(app)
    assert app.api is not None

    def replica() -> Orphans:
        parts: dict[str, Any] = {"config": app.config, "ledger": app.ledger, "api": app.api, "clock": app.clock}
        return Orphans(telemetry=app.telemetry, deployment=app.deployment, **parts)

    emptied_at = app.ledger.store.now() - 60
    bench.simulator.control.inject({"kind": "status", "on": "list", "status": 500})
    for _ in range(2):
        replica().step(emptied_at)
        assert app.ledger.deployment.origin().orphans is None
    bench.simulator.control.end()
    patient = replica()
    patient.step(app.ledger.store.now() + 60)
    assert app.ledger.deployment.origin().orphans is None
    for _ in range(2):
        replica().step(emptied_at)
    assert app.ledger.deployment.origin().orphans == 1
    told = [str(record.msg) for record in caplog.records if "remote.orphaned" in str(record.msg)]
    assert [remote_ids(bench)[0] in line for line in told] == [True]
