"""Knocks: what the ticker sends for what is due, and what becomes of a step that fails."""

from collections.abc import Iterator, Sequence

import pytest
from bench import Bench, wait_until
from dramatiq import Worker
from endings import batches, ends_right, enqueue, states

from worker.actors import Knocks, Queue
from worker.batches_api import Complaint, Unavailable
from worker.broker import KnockBroker, make_worker
from worker.core.model import Claim, State
from worker.ledger.store import LedgerFullError, LedgerRefusedError, LedgerUnavailableError
from worker.telemetry import Telemetry
from worker.wiring import App

CLAIM = Claim("default", "uid1", "7", State.SEALED)


def metric(telemetry: Telemetry, name: str, role: str = "submitter") -> float:
    """Return a figure of the role that answers the knocks."""
    return telemetry.registry.get_sample_value(name, {"role": role}) or 0.0


class Door:
    """Somebody who answers knocks of one queue, on a real broker."""

    def __init__(self, url: str) -> None:
        self.telemetry = Telemetry(version="test")
        self.seen: list[Claim] = []
        self.followed = 0
        self.trouble: Exception | None = None
        self.broker = KnockBroker(url=url, prefix="batchmill:")
        self.knocks = Knocks(broker=self.broker, steps={Queue.SUBMIT: self.answer}, telemetry=self.telemetry)
        self.knocks.followed = self.count
        self.worker: Worker = make_worker(self.broker, queues={Queue.SUBMIT.value, Queue.POLL.value}, threads=1)

    def answer(self, claims: Sequence[Claim]) -> None:
        """Take the step, or fail as the test says."""
        self.seen += claims
        if self.trouble is not None:
            raise self.trouble

    def count(self) -> None:
        """Be woken after a step."""
        self.followed += 1


@pytest.fixture
def door(bench: Bench) -> Iterator[Door]:
    """A worker's threads that answer the knocks of submitters."""
    door = Door(bench.url)
    door.worker.start()
    yield door
    door.worker.stop()
    door.broker.close()


def test_a_knock_is_answered_with_the_claims_it_was_sent_for(door: Door) -> None:
    """Word by word, and whoever may have a next turn is woken."""
    claims = [CLAIM, Claim("other", "uid2", "8", State.SUBMITTING)]
    door.knocks.knock(Queue.SUBMIT, claims)
    wait_until(lambda: door.followed, description="the knock is answered")
    assert door.seen == claims
    assert metric(door.telemetry, "batchmill_role_last_tick_timestamp_seconds") > 0


def test_a_knock_for_a_role_that_is_not_played_here_is_forgotten(door: Door) -> None:
    """It stays nobody's: the batch comes due again, and the next knock is answered as ever."""
    door.knocks.knock(Queue.POLL, [CLAIM])
    wait_until(lambda: door.broker.backlog(Queue.POLL) == 0, description="the knock is fetched")
    door.knocks.knock(Queue.SUBMIT, [CLAIM])
    wait_until(lambda: door.followed, description="the knock is answered")
    assert door.seen == [CLAIM]


@pytest.mark.parametrize(
    ("trouble", "event", "failed"),
    [
        (LedgerUnavailableError("away"), "redis.lost", 0),
        (LedgerFullError("full"), "step.failed", 0),
        (LedgerRefusedError("refused"), "step.failed", 0),
        (Unavailable(Complaint("no answer")), "step.failed", 0),
        (RuntimeError("nobody foresaw it"), "role.failed", 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_step_that_fails_is_said_and_not_repeated(
    door: Door, caplog: pytest.LogCaptureFixture, trouble: Exception, event: str, failed: int
) -> None:
    """The lease is what brings the batch back; nobody is woken for nothing, and the thread answers the next knock."""
    door.trouble = trouble
    door.knocks.knock(Queue.SUBMIT, [CLAIM])

    def said() -> list[str]:
        return [record.msg["event"] for record in caplog.records if isinstance(record.msg, dict)]

    wait_until(lambda: event in said(), description="it is said")
    assert metric(door.telemetry, "batchmill_role_errors_total") == failed
    assert (door.seen, door.followed) == ([CLAIM], 0)
    door.trouble = None
    door.knocks.knock(Queue.SUBMIT, [CLAIM])
    wait_until(lambda: door.followed, description="the next knock is answered")
    assert door.seen == [CLAIM, CLAIM]


def knocked(app: App, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Queue, list[Claim]]]:
    """Return a list that grows by every knock."""
    sent: list[tuple[Queue, list[Claim]]] = []
    monkeypatch.setattr(app.knocks, "knock", lambda queue, claims: sent.append((queue, list(claims))))
    return sent


def test_a_tick_knocks_once_for_all_polls_and_once_for_each_other_batch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One list call may answer many polls; a submit or a drain is long, and another thread's."""
    bench.simulator.control.inject({"kind": "stuck", "on": "create", "times": 2})
    app = bench.start(lanes__default__max_count="1")
    names = enqueue(bench, 2)
    bench.drive(app, lambda: states(app) == [State.IN_PROGRESS] * 2)
    names += enqueue(bench, 2, stem="later")
    assert app.batcher is not None
    while app.batcher.step("default") == 0:
        pass
    due = "batchmill:{default}:due"
    bench.redis.zadd(due, dict.fromkeys(app.ledger.batches.live("default"), 0))
    sent = knocked(app, monkeypatch)
    assert 0 < app.ticker.step() < 1
    counts = sorted((queue.value, len(claims)) for queue, claims in sent)
    assert counts == [("poll", 2), ("submit", 1), ("submit", 1)]
    bench.simulator.control.end()
    ends_right(bench, app, names)


def test_a_held_batch_is_knocked_for_by_nobody(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody made it due by hand: it waits for a human all the same."""
    app = bench.start()
    enqueue(bench, 1)
    assert app.batcher is not None
    app.batcher.step("default")
    (batch,) = batches(app)
    bench.redis.hset(f"batchmill:{{default}}:batch:{batch.uid}", "state", "held")
    bench.redis.zadd("batchmill:{default}:due", {batch.uid: 0})
    sent = knocked(app, monkeypatch)
    app.ticker.step()
    assert sent == []
    assert states(app) == [State.HELD]


def test_a_queue_that_nobody_answers_is_not_filled(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """More knocks would help nobody; what is due there is put off, and knocked for again once there is room."""
    app = bench.start()
    names = enqueue(bench, 1)
    assert app.batcher is not None
    app.batcher.step("default")
    due = "batchmill:{default}:due"
    (batch,) = batches(app)
    sent = knocked(app, monkeypatch)
    backlog: dict[str, int] = {Queue.SUBMIT: 500}
    monkeypatch.setattr(app.broker, "backlog", lambda queue: backlog.get(queue, 0))

    def tick() -> int:
        bench.redis.zadd(due, {batch.uid: 0})
        before = len(sent)
        app.ticker.step()
        return len(sent) - before

    assert [tick() for _ in range(3)] == [1, 0, 0]
    backlog.clear()
    assert [tick() for _ in range(2)] == [1, 1]
    ends_right(bench, app, names)
