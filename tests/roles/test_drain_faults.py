from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from bench import Bench
from endings import (
    Crash,
    batches,
    calls,
    crash,
    dead,
    ends_right,
    enqueue,
    has_ended_right,
    held,
    sizes,
    states,
    succeeded,
    turns,
)

from worker import drainer
from worker.core.model import Batch, State
from worker.ledger.batches import Batches
from worker.ledger.prompts import Prompts
from worker.simulator import Simulator
from worker.sinks.file import FileDelivery, FileSink
from worker.sinks.protocol import ErrorType, SinkError
from worker.wiring import App

TWO_SINKS = {
    "sinks__second__type": "file",
    "lanes__default__sinks": "results,second",
}


def spoil(bench: Bench, **fault: Any) -> None:
    """Let a read of results go wrong."""
    bench.simulator.control.inject(fault)


def rewrite_results(app: App, rewrite: Callable[[bytes], bytes]) -> None:
    """Change every result line on its way from the API."""
    assert app.api is not None
    results = app.api.results

    @contextmanager
    def rewritten(remote_id: str) -> Iterator[Iterator[bytes]]:
        with results(remote_id) as lines:
            yield (rewrite(line) for line in lines)

    app.api.results = rewritten  # type: ignore[method-assign]


def files(bench: Bench, folder: str = "results") -> list[str]:
    """Return the names of all files below a folder, unfinished ones too."""
    return sorted(path.name for path in (bench.directory / folder).rglob("*") if path.is_file())


def test_results_that_are_not_there_yet_are_asked_for_again(bench: Bench) -> None:
    """An ended batch may have no results for a moment."""
    spoil(bench, kind="not_found", on="results", times=3)
    names = enqueue(bench, 3)
    app = bench.start()
    ends_right(bench, app, names)
    assert sizes(bench) == [3]


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize("mid_line", [False, True], ids=["between lines", "within a line"])
@pytest.mark.parametrize("mode", ["reset", "clean"])
def test_results_cut_half_way_are_read_again(bench: Bench, framing: str, mode: str, mid_line: bool) -> None:
    """However a stream ends early, nothing of it shows, and the second reading has everything."""
    with Simulator(ends_after=0.0, poll_hint=0, framing=framing) as other:
        bench.simulator = other
        spoil(bench, kind="cut_results", mode=mode, mid_line=mid_line, fraction=0.5)
        names = enqueue(bench, 30)
        app = bench.start()
        bench.drive(app, lambda: any(batch.failures for batch in batches(app)))
        assert files(bench) == []
        ends_right(bench, app, names)
        assert sizes(bench) == [30]


@pytest.mark.parametrize("fraction", [0.0, 0.97])
def test_results_cut_at_either_end_are_read_again(bench: Bench, fraction: float) -> None:
    """No line at all is as incomplete as one line too few."""
    spoil(bench, kind="cut_results", mode="clean", fraction=fraction, times=2)
    names = enqueue(bench, 30)
    app = bench.start()
    ends_right(bench, app, names)
    assert sizes(bench) == [30]


def test_a_line_that_comes_twice_makes_one_row(bench: Bench) -> None:
    """The first wins."""
    spoil(bench, kind="duplicate_line", lines=2, times=None)
    names = enqueue(bench, 5)
    app = bench.start()
    ends_right(bench, app, names)


def test_a_line_that_comes_twice_does_not_stand_in_for_a_missing_one(bench: Bench) -> None:
    """Lines are not counted but checked off."""
    spoil(bench, kind="missing_line")
    spoil(bench, kind="duplicate_line")
    names = enqueue(bench, 5)
    app = bench.start()
    ends_right(bench, app, names)
    assert calls(bench, "results") == 2


def test_a_missing_line_is_read_again(bench: Bench) -> None:
    """A prompt without its line is not settled."""
    spoil(bench, kind="missing_line", times=3)
    names = enqueue(bench, 5)
    app = bench.start()
    ends_right(bench, app, names)
    assert calls(bench, "results") == 4


def test_a_line_that_stays_missing_is_for_a_human(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some readings that end well and do not add up, the batch is held with the count, and shows nothing."""
    monkeypatch.setattr(drainer, "PATIENCE", 3)
    spoil(bench, kind="missing_line", times=None)
    enqueue(bench, 5)
    app = bench.start()
    bench.drive(app, lambda: held(app))
    batch = held(app)
    assert batch is not None
    assert "4 of 5" in str(batch.reason)
    assert calls(bench, "results") == 3
    assert files(bench) == []


def test_a_strangers_line_is_left_out(bench: Bench) -> None:
    """A line that is not ours makes no row and blocks nothing."""
    spoil(bench, kind="foreign_line", lines=2, times=None)
    names = enqueue(bench, 5)
    app = bench.start()
    ends_right(bench, app, names)


def test_a_strangers_line_before_a_cut_does_not_make_our_batch_a_strangers(bench: Bench) -> None:
    """Only a whole stream of others' lines proves a wrong adoption; a batch given back would be paid for again."""
    spoil(bench, kind="cut_results", mode="clean", fraction=0.0)
    spoil(bench, kind="foreign_line")
    names = enqueue(bench, 3)
    app = bench.start()
    ends_right(bench, app, names)
    assert sizes(bench) == [3]


def test_results_deleted_before_they_were_read_are_held(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were paid for and are gone: whether to pay again is for a human."""
    monkeypatch.setattr(drainer, "PATIENCE", 3)
    spoil(bench, kind="status", on="results", status=500, times=1)
    enqueue(bench, 3)
    app = bench.start()
    bench.drive(app, lambda: states(app) == [State.ENDED])
    bench.simulator.control.delete(str(batches(app)[0].remote_id))
    bench.drive(app, lambda: held(app))
    batch = held(app)
    assert batch is not None
    assert "deleted" in str(batch.reason)


def test_results_archived_before_they_were_read_are_held(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The API still knows the batch and has nothing to give any more."""
    monkeypatch.setattr(drainer, "PATIENCE", 3)
    spoil(bench, kind="status", on="results", status=500, times=1)
    enqueue(bench, 3)
    app = bench.start()
    bench.drive(app, lambda: states(app) == [State.ENDED])
    bench.simulator.control.advance(30 * 86_400)
    bench.drive(app, lambda: held(app))


def test_a_tenth_that_must_be_tried_again_is_all_that_is_sent_again(bench: Bench) -> None:
    """Of 200 prompts the expired and the API's own errors come back, what is invalid is buried, the rest is done."""
    bench.simulator.control.inject(
        [
            {"kind": "rows", "result": "expired", "fraction": 0.05},
            {"kind": "rows", "error_type": "api_error", "fraction": 0.05},
            {"kind": "rows", "error_type": "invalid_request_error", "fraction": 0.02},
        ]
    )
    names = enqueue(bench, 200)
    app = bench.start(lanes__default__max_count="200")
    ends_right(bench, app, names)
    first, second = sizes(bench)
    assert first == 200
    assert second == 20
    assert sum(row["attempt"] == 2 for row in bench.rows()) == 20
    buried = dead(app)
    assert {(reason, attempt) for _, reason, attempt in buried} == {("invalid_request_error", 1)}
    assert len(buried) == 4
    assert succeeded(bench) == 196
    assert bench.verdict()["prompts_billed"] == 196


def test_an_error_nobody_knows_is_tried_twice(bench: Bench) -> None:
    """Its cause may be the prompt itself, so the cap is low."""
    spoil(bench, kind="rows", error_type="brand_new_error", fraction=1.0, times=None)
    names = enqueue(bench, 2)
    app = bench.start(lanes__default__max_attempts="5")
    ends_right(bench, app, names)
    assert sizes(bench) == [2, 2]
    assert sorted(dead(app)) == [("p0", "brand_new_error", 2), ("p1", "brand_new_error", 2)]


def test_a_result_nobody_knows_is_passed_on_and_kept(bench: Bench) -> None:
    """The row carries it as it is, and the prompt is a dead letter that can be redriven."""
    names = enqueue(bench, 2)
    app = bench.start()
    rewrite_results(app, lambda line: line.replace(b'"type":"succeeded"', b'"type":"paused"'))
    ends_right(bench, app, names)
    assert [row["result"]["type"] for row in bench.rows()] == ["paused", "paused"]
    assert sorted(dead(app)) == [("p0", "unknown_result", 1), ("p1", "unknown_result", 1)]


@pytest.mark.parametrize("garbage", [b"not json", b"[]", b'{"custom_id": 7}', b"\xff\xfe"])
def test_a_line_that_cannot_be_read_is_read_again(bench: Bench, garbage: bytes) -> None:
    """What arrives broken was broken on its way."""
    names = enqueue(bench, 4)
    app = bench.start()
    broken = iter([2])
    count = iter(range(1000))

    def break_one(line: bytes) -> bytes:
        return garbage if next(count) == 2 and next(broken, None) else line

    rewrite_results(app, break_one)
    ends_right(bench, app, names)
    assert calls(bench, "results") == 2


def test_a_prompt_past_its_deadline_is_not_tried_again(bench: Bench) -> None:
    """An answer nobody waits for any more is not paid for."""
    spoil(bench, kind="rows", result="expired", fraction=1.0, times=None)
    bench.enqueue("late", id="late", deadline="1000000000")
    app = bench.start()
    ends_right(bench, app, ["late"])
    assert sizes(bench) == [1]
    assert dead(app) == [("late", "expired", 1)]


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
