"""Producers that delete what is not theirs: it is said, the rest goes on, nothing is stuck or paid for twice."""

from collections.abc import Callable

import pytest
from bench import Bench, params, turn
from endings import batches, calls, dead, ends_right, enqueue, held, sizes, states

from worker.core.model import State
from worker.wiring import App

STREAM = "batchmill:{default}:prompts"
LANE = "batchmill:{default}:lane"


def said(caplog: pytest.LogCaptureFixture, event: str) -> list[str]:
    """Return the error lines of an event."""
    return [str(each.msg) for each in caplog.records if f"'{event}'" in str(each.msg) and each.levelname == "ERROR"]


def entry_ids(bench: Bench) -> list[bytes]:
    """Return the ids of all entries in the lane."""
    return [entry_id for entry_id, _ in bench.redis.xrange(STREAM)]


def sealed(bench: Bench, count: int = 4) -> tuple[App, list[str]]:
    """Seal one batch and keep it from being posted."""
    app = bench.start()
    names = enqueue(bench, count)
    app.ledger.lanes.pause("default", "test")
    bench.drive(app, lambda: states(app) == [State.SEALED])
    return app, names


def stuck(bench: Bench, count: int = 4) -> tuple[App, list[str]]:
    """Bring one batch to the API, which does not end it."""
    bench.simulator.control.inject({"kind": "stuck", "on": "create"})
    app = bench.start()
    names = enqueue(bench, count)
    bench.drive(app, lambda: states(app) == [State.IN_PROGRESS])
    return app, names


def depth(app: App) -> int:
    """Return how many prompts wait, as gauges and `status` say it."""
    return app.figures().lanes[0].depth


def trim(bench: Bench) -> None:
    """Take the two oldest away, as MAXLEN does."""
    bench.redis.xtrim(STREAM, maxlen=4, approximate=False)


def delete_two(bench: Bench) -> None:
    """Take two from the middle."""
    bench.redis.xdel(STREAM, *entry_ids(bench)[1:3])


@pytest.mark.parametrize("at", [[0], [1, 2], [3]], ids=["first", "middle", "last"])
def test_a_sealed_batch_goes_on_with_what_is_left_of_it(
    bench: Bench, caplog: pytest.LogCaptureFixture, at: list[int]
) -> None:
    """The others need not wait for a human because one was deleted; what is gone is gone, and that is said."""
    app, names = sealed(bench)
    ids = entry_ids(bench)
    bench.redis.xdel(STREAM, *(ids[number] for number in at))
    app.ledger.lanes.resume("default")
    ends_right(bench, app, [name for number, name in enumerate(names) if number not in at])
    assert sizes(bench) == [4 - len(at)]
    (line,) = said(caplog, "prompts.vanished")
    assert f"'count': {len(at)}" in line
    assert depth(app) == 0
    enqueue(bench, 2, stem="later")
    assert depth(app) == 2


def test_a_sealed_batch_of_which_nothing_is_left_ends(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """The whole stream was deleted: there is nothing to send, and nobody to tell."""
    app, _ = sealed(bench)
    bench.redis.delete(STREAM)
    app.ledger.lanes.resume("default")
    bench.drive(app)
    assert calls(bench, "create") == 0
    assert held(app) is None
    assert len(said(caplog, "prompts.vanished")) == 1
    names = enqueue(bench, 2, stem="later")
    bench.drive(app, lambda: len(bench.rows()) == 2)
    ends_right(bench, app, names)


def test_unusable_prompts_that_are_left_have_their_rows(bench: Bench) -> None:
    """What was found unusable and is still there is buried and told as ever."""
    bench.redis.xadd(STREAM, {"params": "[]", "id": "bad"})
    app, names = sealed(bench, 2)
    bench.redis.xdel(STREAM, entry_ids(bench)[1])
    app.ledger.lanes.resume("default")
    ends_right(bench, app, ["bad", names[1]])
    assert [prompt for prompt, _, _ in dead(app)] == ["bad"]


@pytest.mark.parametrize("delete", [trim, delete_two], ids=["xtrim", "xdel"])
def test_waiting_prompts_that_are_deleted_are_said_to_be(
    bench: Bench, caplog: pytest.LogCaptureFixture, delete: Callable[[Bench], None]
) -> None:
    """Once for each time, and never for what batchmill itself deletes."""
    app = bench.start(lanes__default__max_age="1h")
    enqueue(bench, 2, stem="first")
    app.ledger.lanes.flush("default")
    bench.drive(app)
    enqueue(bench, 6)
    turn(app)
    app.rescuer._keep_house()
    assert said(caplog, "prompts.deleted") == []
    delete(bench)
    for _ in range(3):
        app.rescuer._keep_house()
    assert len(said(caplog, "prompts.deleted")) == 1
    app.ledger.lanes.flush("default")
    bench.drive(app)
    assert len(bench.rows()) == 6
    assert sizes(bench) == [2, 4]


def test_results_of_deleted_prompts_are_delivered_by_their_entry_ids(bench: Bench) -> None:
    """They were sent and paid for: what the producer called them is gone, the answer is not."""
    app, _ = stuck(bench)
    ids = [entry_id.decode() for entry_id in entry_ids(bench)]
    bench.redis.delete(STREAM)
    bench.simulator.control.end()
    bench.drive(app, lambda: states(app) == [])
    assert sorted(row["id"] for row in bench.rows()) == sorted(ids)
    assert {row["result"]["type"] for row in bench.rows()} == {"succeeded"}


def test_a_deleted_prompt_that_would_be_retried_has_its_last_row(bench: Bench) -> None:
    """There is nothing left to send again; what happened to it is told instead of nothing."""
    bench.simulator.control.inject({"kind": "rows", "result": "expired", "fraction": 1.0})
    app, names = stuck(bench)
    ids = [entry_id.decode() for entry_id in entry_ids(bench)]
    bench.redis.xdel(STREAM, ids[0])
    bench.simulator.control.end()
    bench.drive(app)
    rows = {row["id"]: row["result"]["type"] for row in bench.rows()}
    assert rows == {ids[0]: "expired"} | dict.fromkeys(names[1:], "succeeded")


def test_the_record_of_a_lane_comes_back(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Without its cursor everything in the stream would be sealed again, and paid for twice."""
    app, names = stuck(bench)
    bench.redis.delete(LANE)
    names += enqueue(bench, 2, stem="later")
    bench.drive(app, lambda: len(sizes(bench)) == 2)
    assert len(said(caplog, "lane.forgotten")) == 1
    bench.simulator.control.end()
    ends_right(bench, app, names)
    assert sizes(bench) == [4, 2]
    assert depth(app) == 0


def test_the_record_of_a_lane_comes_back_with_several_batches(bench: Bench) -> None:
    """Behind the last of them, in whatever order they were sealed, split or put aside."""
    bench.simulator.control.inject({"kind": "stuck", "on": "create", "times": 3})
    app = bench.start(lanes__default__max_count="2")
    names = enqueue(bench, 5)
    bench.drive(app, lambda: len(sizes(bench)) == 3)
    bench.redis.delete(LANE)
    for _ in range(5):
        turn(app)
    assert len(batches(app)) == 3
    bench.simulator.control.end()
    ends_right(bench, app, names)
    assert sorted(sizes(bench)) == [1, 2, 2]


def test_a_lane_and_its_stream_that_were_deleted_begin_anew(bench: Bench) -> None:
    """Nothing of the old prompts is left to be sealed, the results of what ran are delivered."""
    app, _ = stuck(bench)
    bench.redis.delete(LANE, STREAM)
    names = enqueue(bench, 2, stem="later")
    bench.drive(app, lambda: len(sizes(bench)) == 2)
    bench.simulator.control.end()
    bench.drive(app)
    assert {row["id"] for row in bench.rows()} >= set(names)
    assert bench.verdict()["prompts_billed_twice"] == 0
    assert held(app) is None


def test_the_registry_of_lanes_comes_back(bench: Bench) -> None:
    """Those that are configured at the next look, those that are not when streams are looked for."""
    app = bench.start()
    enqueue(bench, 1)
    bench.drive(app)
    bench.redis.delete("batchmill:lanes")
    app.rescuer._housekeeping_at = 0.0
    names = enqueue(bench, 2, stem="later")
    bench.drive(app, lambda: len(bench.rows()) == 3)
    assert {row["id"] for row in bench.rows()} == {"p0", *names}


def test_a_stream_that_begins_anew_behind_the_cursor_is_worked_off(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Deleted, and filled by a clock that went back: no seal would ever look there."""
    app = bench.start()
    names = enqueue(bench, 2)
    bench.drive(app)
    bench.redis.delete(STREAM)
    for number in range(3):
        names.append(f"old{number}")
        bench.redis.xadd(STREAM, {"params": params(), "id": names[-1]}, id=f"1700000000000-{number}")
    turn(app)
    assert len(bench.rows()) == 2
    app.rescuer._keep_house()
    assert len(said(caplog, "lane.rewound")) == 1
    ends_right(bench, app, names)
    app.rescuer._keep_house()
    assert len(said(caplog, "lane.rewound")) == 1


def test_what_has_ids_of_a_batchs_range_is_not_waited_for_by_it(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """The stream was deleted under an open batch and filled by a clock that went back: it closes, and they follow."""
    bench.simulator.control.inject({"kind": "stuck", "on": "create"})
    app = bench.start()
    for entry_id in ("1700000000000-0", "1700000009999-0"):
        bench.redis.xadd(STREAM, {"params": params()}, id=entry_id)
    bench.drive(app, lambda: states(app) == [State.IN_PROGRESS])
    bench.redis.delete(STREAM)
    bench.redis.xadd(STREAM, {"params": params(), "id": "new"}, id="1700000005000-0")
    bench.simulator.control.end()
    bench.drive(app, lambda: not states(app))
    assert any("'prompts.unknown'" in str(each.msg) for each in caplog.records)
    app.rescuer._keep_house()
    bench.drive(app)
    assert "new" in {row["id"] for row in bench.rows()}
    assert bench.verdict()["prompts_billed_twice"] == 0


def test_nothing_is_rewound_while_a_batch_is_under_way(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """All that is in the stream is its own, and lies behind the cursor as it should."""
    app, names = stuck(bench)
    app.rescuer._keep_house()
    assert said(caplog, "lane.rewound") == []
    bench.simulator.control.end()
    ends_right(bench, app, names)
    app.rescuer._keep_house()
    assert said(caplog, "lane.rewound") == []
    assert sizes(bench) == [4]
