from typing import Any

import pytest
from bench import Bench
from endings import (
    Crash,
    batches,
    crash,
    dead,
    ends_right,
    enqueue,
    files,
    has_ended_right,
    sizes,
    states,
    succeeded,
    turns,
)

from worker import drainer
from worker.core.model import Batch, State
from worker.ledger.batches import Batches
from worker.ledger.prompts import Prompts
from worker.sinks.file import FileDelivery, FileSink
from worker.sinks.protocol import ErrorType, SinkError
from worker.wiring import App

TWO_SINKS = {
    "sinks__second__type": "file",
    "lanes__default__sinks": "results,second",
}


def failing(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, *, times: int, folder: str = "results", method: str = "commit"
) -> list[str]:
    """Let a step of the deliveries into `folder` fail; returns a list of those that did."""
    step = getattr(FileDelivery, method)
    failed: list[str] = []

    def fails(delivery: FileDelivery, *args: Any) -> None:
        if (bench.directory / folder) in delivery._final.parents and len(failed) < times:
            failed.append(delivery._final.name)
            raise SinkError("no space left", error_type=ErrorType.NO_SPACE, retryable=True)
        step(delivery, *args)

    monkeypatch.setattr(FileDelivery, method, fails)
    return failed


@pytest.mark.parametrize("method", ["write", "commit"])
def test_a_sink_that_fails_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Results wait at the API until the sink can have them; nothing half-written shows."""
    failed = failing(monkeypatch, bench, times=3, method=method)
    names = enqueue(bench, 5)
    app = bench.start()
    bench.drive(app, lambda: len(failed) == 2)
    assert files(bench) == []
    assert states(app) == [State.ENDED]
    ends_right(bench, app, names)
    assert len(failed) == 3
    assert len(files(bench)) == 1


def two_sinks(bench: Bench) -> App:
    """Start a worker whose lane has two file sinks."""
    return bench.start(**TWO_SINKS, sinks__second__path=str(bench.directory / "second/{batch}.jsonl"))


def test_a_sink_that_fails_delays_only_itself(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other sink has its rows at once, and only once."""
    failed = failing(monkeypatch, bench, times=3, folder="second")
    opened: list[str] = []
    begin = FileSink.open

    def count(sink: FileSink, batch: Batch) -> FileDelivery:
        opened.append(sink.name)
        return begin(sink, batch)

    monkeypatch.setattr(FileSink, "open", count)
    names = enqueue(bench, 5)
    app = two_sinks(bench)
    bench.drive(app, lambda: len(failed) == 2)
    assert sorted(row["id"] for row in bench.rows()) == names
    assert list(batches(app)[0].commits) == ["results"]
    ends_right(bench, app, names)
    assert (opened.count("results"), opened.count("second")) == (1, 4)
    assert files(bench, "second") == files(bench)
    first, second = (bench.directory / path / files(bench)[0] for path in ("results/default", "second"))
    assert sorted(first.read_bytes().splitlines()) == sorted(second.read_bytes().splitlines())


def test_two_sinks_that_fail_in_turns_both_get_everything(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sink's commit is remembered for itself."""
    failing(monkeypatch, bench, times=1, folder="results")
    failing(monkeypatch, bench, times=2, folder="second", method="write")
    names = enqueue(bench, 5)
    app = two_sinks(bench)
    ends_right(bench, app, names)
    assert files(bench, "second") == files(bench)


def test_death_between_a_sinks_commit_and_its_record_leaves_every_row_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file has the batch's name, so the second delivery finds it there."""
    names = enqueue(bench, 5)
    with monkeypatch.context() as patch:
        patch.setattr(Batches, "commit", crash)
        app = bench.start()
        with pytest.raises(Crash):
            bench.drive(app)
    assert len(bench.rows()) == 5
    successor = bench.start()
    ends_right(bench, successor, names)
    assert len(files(bench)) == 1


def test_death_between_two_sinks_leaves_every_row_once_in_both(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first sink has is not delivered to it again, and the second gets all of it."""
    names = enqueue(bench, 5)
    app = two_sinks(bench)
    commit = Batches.commit

    def dies_at_the_second(ledger: Batches, *args: Any, **named: Any) -> str:
        if args[1] == "second":
            raise Crash
        return commit(ledger, *args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Batches, "commit", dies_at_the_second)
        with pytest.raises(Crash):
            bench.drive(app)
    successor = two_sinks(bench)
    ends_right(bench, successor, names)
    assert files(bench, "second") == files(bench)


def test_death_in_the_middle_of_settling_settles_the_rest(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are out by then; what was settled stays so, retries are in the lane once, dead letters are there once."""
    monkeypatch.setattr(drainer, "SETTLE_CHUNK", 4)
    bench.simulator.control.inject(
        [
            {"kind": "rows", "result": "expired", "fraction": 0.4},
            {"kind": "rows", "error_type": "invalid_request_error", "fraction": 0.2},
        ]
    )
    names = enqueue(bench, 20)
    settle, done = Prompts.settle, iter(range(2))

    def dies_at_the_third(ledger: Prompts, *args: Any, **named: Any) -> bool:
        if next(done, None) is None:
            raise Crash
        return settle(ledger, *args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Prompts, "settle", dies_at_the_third)
        app = bench.start()
        with pytest.raises(Crash):
            bench.drive(app)
    successor = bench.start()
    ends_right(bench, successor, names)
    assert sizes(bench) == [20, 8]
    assert len(dead(successor)) == 4
    assert succeeded(bench) == 16


def test_a_worker_that_stops_hands_its_batch_over_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one need not wait for the lease, and nothing half-read shows."""
    monkeypatch.setattr("worker.readings.PAGE", 2)
    names = enqueue(bench, 10)
    app = bench.start(lease="60s")
    bench.drive(app, lambda: states(app) == [State.ENDED])
    app.stopping.set()
    turns(app, 3)
    assert states(app) == [State.ENDED]
    assert bench.rows() == []
    successor = bench.start()
    bench.drive(successor, timeout=5.0)
    has_ended_right(bench, successor, names)


def test_the_remote_batch_is_deleted_once_everything_is_settled(bench: Bench) -> None:
    """With `delete_when_settled` nothing of the prompts stays at the API; a failure to delete costs nothing else."""
    bench.simulator.control.inject({"kind": "status", "on": "delete", "status": 500})
    names = enqueue(bench, 2)
    app = bench.start(lanes__default__max_count="1", poll__delete_when_settled="true")
    ends_right(bench, app, names)
    state: Any = bench.simulator.control.state()["batches"]
    assert sorted(batch["deleted_at"] is None for batch in state) == [False, True]
