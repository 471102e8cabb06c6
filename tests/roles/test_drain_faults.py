from typing import Any

import pytest
from bench import Bench
from endings import (
    batches,
    calls,
    dead,
    ends_right,
    enqueue,
    files,
    held,
    sizes,
    states,
    succeeded,
)
from midway import rewrite_results

from worker import drainer
from worker.core.model import State
from worker.simulator import Simulator


def spoil(bench: Bench, **fault: Any) -> None:
    """Let a read of results go wrong."""
    bench.simulator.control.inject(fault)


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
