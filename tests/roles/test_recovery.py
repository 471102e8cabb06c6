from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench import Bench, params, turn
from endings import (
    before_create,
    calls,
    dead,
    ends_right,
    enqueue,
    posts,
    remote_ids,
    sizes,
    states,
    succeeded,
    turns,
)
from mortal import Mortal

from worker.core.model import State
from worker.ledger.lanes import Lanes
from worker.simulator import Simulator


@pytest.fixture
def forgetful(tmp_path: Path, simulator: Simulator) -> Iterator[Mortal]:
    """A Redis that keeps snapshots only: nothing makes an intent durable."""
    mortal = Mortal(tmp_path, simulator, appendonly=False)
    yield mortal
    mortal.end()


@pytest.fixture
def careful(tmp_path: Path, simulator: Simulator) -> Iterator[Mortal]:
    """A Redis with an append-only file, and with it a durability barrier."""
    mortal = Mortal(tmp_path, simulator, appendonly=True)
    yield mortal
    mortal.end()


def settle_later(bench: Bench) -> None:
    """Let batches stay in progress until the test ends them."""
    bench.simulator.control.inject({"kind": "stuck", "on": "create"})


def recovering(bench: Bench) -> bool:
    """Whether the lane waits for its recovery."""
    return bool(bench.redis.hget("batchmill:{default}:lane", "recovering_since"))


def test_an_intent_that_redis_forgot_is_read_back_from_the_api(forgetful: Mortal) -> None:
    """Redis says `sealed`, the API has the batch: it is found by its token, not made again."""
    bench = forgetful.bench
    settle_later(bench)
    names = enqueue(bench, 3)
    app = bench.start()
    assert app.barrier.kind == "none"
    assert app.batcher is not None
    app.batcher.step("default")
    forgetful.snapshot()
    bench.drive(app, lambda: states(app) == [State.IN_PROGRESS])
    app.close()
    forgetful.dies_and_comes_back()
    successor = bench.start()
    assert states(successor) == [State.SEALED]
    bench.simulator.control.end()
    ends_right(bench, successor, names)
    assert sizes(bench) == [3]


def test_a_seal_that_redis_forgot_is_made_again_as_it_was(forgetful: Mortal) -> None:
    """The custom_ids of the remote batch say which prompts it holds; none of them is sealed into another."""
    bench = forgetful.bench
    settle_later(bench)
    names = enqueue(bench, 5)
    app = bench.start(lanes__default__max_count="3")
    forgetful.snapshot()
    bench.drive(app, lambda: len(sizes(bench)) == 2)
    app.close()
    forgetful.dies_and_comes_back()
    successor = bench.start()
    assert states(successor) == []
    bench.simulator.control.end()
    ends_right(bench, successor, names)
    assert sorted(sizes(bench)) == [2, 3]
    assert {row["batch_id"] for row in bench.rows()} == set(remote_ids(bench))


def test_unusable_prompts_of_a_forgotten_seal_have_their_rows(forgetful: Mortal) -> None:
    """What never was in the remote batch is told so, as it would have been without the crash."""
    bench = forgetful.bench
    settle_later(bench)
    bench.redis.xadd("batchmill:{default}:prompts", {"params": "[]", "id": "bad0"})
    names = enqueue(bench, 2)
    bench.redis.xadd("batchmill:{default}:prompts", {"params": "[]", "id": "bad1"})
    app = bench.start()
    forgetful.snapshot()
    bench.drive(app, lambda: len(sizes(bench)) == 1)
    app.close()
    forgetful.dies_and_comes_back()
    successor = bench.start()
    bench.simulator.control.end()
    ends_right(bench, successor, ["bad0", *names, "bad1"])
    assert sizes(bench) == [2]
    assert sorted(reason for _, reason, _ in dead(successor)) == ["not_an_object", "not_an_object"]


def test_prompts_before_a_forgotten_batch_are_sealed_as_well(
    forgetful: Mortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of two batches never reached the API, the second did: each prompt ends in one of them."""
    bench = forgetful.bench
    bench.simulator.control.inject({"kind": "status", "on": "create", "status": 429, "retry_after": 60})
    settle_later(bench)
    names = enqueue(bench, 4)
    app = bench.start(lanes__default__max_count="2")
    forgetful.snapshot()
    assert app.api is not None
    monkeypatch.setattr(app.api._budget, "pause", lambda _seconds: None)
    bench.drive(app, lambda: len(sizes(bench)) == 1)
    app.close()
    forgetful.dies_and_comes_back()
    successor = bench.start()
    bench.simulator.control.end()
    ends_right(bench, successor, names)
    assert sizes(bench) == [2, 2]


def test_work_that_was_done_since_the_snapshot_is_not_paid_for_again(forgetful: Mortal) -> None:
    """Redis forgets that everything was settled: the rows are delivered again into the same file."""
    bench = forgetful.bench
    names = enqueue(bench, 3)
    app = bench.start()
    forgetful.snapshot()
    bench.drive(app)
    app.close()
    forgetful.dies_and_comes_back()
    successor = bench.start()
    assert not bench.idle(successor)
    ends_right(bench, successor, names)
    assert sizes(bench) == [3]


def test_a_forgotten_batch_that_is_still_open_is_waited_for(forgetful: Mortal) -> None:
    """Until it has ended it cannot show whose it is, and nothing is posted in the meantime."""
    bench = forgetful.bench
    settle_later(bench)
    names = enqueue(bench, 3)
    app = bench.start()
    forgetful.snapshot()
    bench.drive(app, lambda: len(sizes(bench)) == 1)
    app.close()
    forgetful.dies_and_comes_back()
    successor = bench.start()
    looks = calls(bench, "list")
    bench.drive(successor, lambda: calls(bench, "list") > looks + 3)
    assert sizes(bench) == [3]
    assert recovering(bench)
    bench.simulator.control.end()
    ends_right(bench, successor, names)
    assert sizes(bench) == [3]
    assert not recovering(bench)


def test_strangers_batches_do_not_disturb_a_recovery(forgetful: Mortal) -> None:
    """Their tokens are not ours; they are looked at once and left alone."""
    bench = forgetful.bench
    names = enqueue(bench, 3)
    app = bench.start()
    before_create(app, lambda: bench.simulator.control.foreign(3))
    forgetful.snapshot()
    bench.drive(app, lambda: len(sizes(bench)) == 1)
    app.close()
    forgetful.dies_and_comes_back(meanwhile=lambda: bench.simulator.control.foreign(3))
    successor = bench.start()
    ends_right(bench, successor, names)
    assert sizes(bench) == [3]


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "on": "list", "status": 500, "times": 3},
        {"kind": "status", "on": "results", "status": 500, "times": 2},
        {"kind": "cut_results", "mode": "clean", "fraction": 0.0, "times": 2},
        {"kind": "cut_results", "mode": "clean", "fraction": 0.5, "times": 2},
        {"kind": "cut_results", "mode": "reset", "fraction": 0.5, "times": 2},
    ],
    ids=["list", "results", "no line", "half the lines", "half the lines, reset"],
)
def test_a_recovery_concludes_nothing_from_what_it_could_not_read(forgetful: Mortal, fault: dict[str, Any]) -> None:
    """An error, an empty stream or half of one is no proof that a batch is not ours, nor of what it holds."""
    bench = forgetful.bench
    names = enqueue(bench, 6)
    app = bench.start()
    forgetful.snapshot()
    assert app.batcher is not None
    bench.drive(app, lambda: len(sizes(bench)) == 1)
    app.close()
    bench.simulator.control.inject(fault)
    forgetful.dies_and_comes_back()
    successor = bench.start()
    ends_right(bench, successor, names)
    assert sizes(bench) == [6]
    assert succeeded(bench) == 6


def test_a_create_on_its_way_during_the_crash_is_found(forgetful: Mortal) -> None:
    """The API may commit after Redis is back: recovery waits for the horizon before it looks."""
    bench = forgetful.bench
    bench.simulator.control.inject({"kind": "late_commit", "on": "create", "seconds": 300})
    names = enqueue(bench, 3)
    app = bench.start(submit__horizon="1500ms")
    forgetful.snapshot()
    bench.drive(app, lambda: bool(posts(bench)))
    app.close()
    forgetful.dies_and_comes_back()
    successor = bench.start()
    turns(successor, 5)
    assert recovering(bench)
    bench.simulator.control.advance(300)
    ends_right(bench, successor, names)
    assert sizes(bench) == [3]


def test_with_a_barrier_a_restart_is_recovered_at_once(careful: Mortal) -> None:
    """Everything that the API could know of is on disk, so there is nothing to look for."""
    bench = careful.bench
    settle_later(bench)
    names = enqueue(bench, 3)
    app = bench.start(submit__horizon="1h")
    assert app.barrier.kind != "none"
    bench.drive(app, lambda: states(app) == [State.IN_PROGRESS])
    app.close()
    careful.dies_and_comes_back()
    successor = bench.start()
    assert not recovering(bench)
    more = enqueue(bench, 2, stem="more")
    bench.drive(successor, lambda: len(sizes(bench)) == 2)
    bench.simulator.control.end()
    ends_right(bench, successor, names + more)
    assert sorted(sizes(bench)) == [2, 3]


def test_with_a_barrier_a_lost_answer_outlives_a_restart(careful: Mortal) -> None:
    """The intent is on disk before the last byte leaves; the doubt goes on where it was."""
    bench = careful.bench
    bench.simulator.control.inject({"kind": "drop_reply", "on": "create"})
    names = enqueue(bench, 3)
    app = bench.start(submit__horizon="1h")
    bench.drive(app, lambda: states(app) == [State.SUBMITTING])
    app.close()
    careful.dies_and_comes_back()
    ends_right(bench, bench.start(), names)
    assert sizes(bench) == [3]


def test_nothing_is_sealed_or_posted_under_a_server_that_was_restarted(forgetful: Mortal) -> None:
    """Every decision asks for the server's life in which its lane was recovered; facts are taken all the same."""
    bench = forgetful.bench
    settle_later(bench)
    enqueue(bench, 3)
    app = bench.start(submit__horizon="1h")
    bench.drive(app, lambda: states(app) == [State.IN_PROGRESS])
    enqueue(bench, 2, stem="later")
    assert app.batcher is not None
    app.batcher.step("default")
    forgetful.snapshot()
    forgetful.dies_and_comes_back()
    bench.drive(app, lambda: recovering(bench))
    enqueue(bench, 1, stem="last")
    turns(app, 30)
    assert sizes(bench) == [3]
    assert states(app) == [State.IN_PROGRESS, State.SEALED]
    bench.simulator.control.end()
    bench.drive(app, lambda: states(app) == [State.SEALED])
    assert len(bench.rows()) == 3
    assert sizes(bench) == [3]


def test_one_process_lives_through_a_restart(careful: Mortal) -> None:
    """The worker need not be restarted because Redis was."""
    bench = careful.bench
    names = enqueue(bench, 2)
    app = bench.start()
    bench.drive(app)
    careful.dies_and_comes_back()
    names += enqueue(bench, 2, stem="later")
    ends_right(bench, app, names)
    assert sizes(bench) == [2, 2]


def test_a_redis_that_lost_everything_begins_anew(forgetful: Mortal) -> None:
    """Nothing of the old work is there to be confused with the new."""
    bench = forgetful.bench
    names = enqueue(bench, 2)
    app = bench.start()
    bench.drive(app)
    forgetful.dies_and_comes_back()
    names += enqueue(bench, 2, stem="later")
    bench.drive(app, lambda: len(bench.rows()) == 4)
    ends_right(bench, app, names)
    assert sizes(bench) == [2, 2]


def test_a_restart_between_seal_and_post_is_seen_by_the_intent(forgetful: Mortal) -> None:
    """Even within one step of a role: the last byte is only sent under the server that the lane was recovered in."""
    bench = forgetful.bench
    names = enqueue(bench, 3)
    app = bench.start()
    assert app.api is not None
    newest, struck = app.api.newest, iter([1])

    def restart_once() -> Any:
        if next(struck, None):
            forgetful.snapshot()
            forgetful.dies_and_comes_back()
        return newest()

    app.api.newest = restart_once  # type: ignore[method-assign]
    turn(app)
    assert calls(bench, "create") == 0
    ends_right(bench, app, names)
    assert sizes(bench) == [3]


def test_lanes_whose_entries_have_the_same_ids_are_not_mixed_up(forgetful: Mortal) -> None:
    """Entry ids are unique in their own stream only: a forgotten batch goes back into the lane that it came from."""
    bench = forgetful.bench
    for number in range(3):
        for lane in ("alpha", "beta"):
            fields: Any = {"params": params(lane * (number + 1)), "id": f"{lane}{number}"}
            bench.redis.xadd(f"batchmill:{{{lane}}}:prompts", fields, id=f"1700000000000-{number}")
    settle_later(bench)
    app = bench.start(lanes__alpha__max_age="0s", lanes__beta__max_age="0s")
    app.ledger.lanes.pause("alpha", "so that only beta posts")
    forgetful.snapshot()
    bench.drive(app, lambda: len(sizes(bench)) == 1)
    app.close()
    forgetful.dies_and_comes_back()
    successor = bench.start()
    successor.ledger.lanes.resume("alpha")
    bench.simulator.control.end()
    bench.drive(successor)
    rows = bench.rows()
    assert sorted(row["id"] for row in rows) == sorted(f"{lane}{n}" for lane in ("alpha", "beta") for n in range(3))
    assert {row["result"]["type"] for row in rows} == {"succeeded"}
    assert sizes(bench) == [3, 3]
    first = remote_ids(bench)[0]
    assert {row["lane"] for row in rows if row["batch_id"] == first} == {"beta"}


def test_a_recovery_that_another_replica_overtakes_opens_nothing_by_itself(
    forgetful: Mortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seal that came too late says that somebody else is in the middle of it: to go on would seal and pay twice."""
    bench = forgetful.bench
    settle_later(bench)
    names = enqueue(bench, 5)
    app = bench.start(lanes__default__max_count="3")
    forgetful.snapshot()
    bench.drive(app, lambda: len(sizes(bench)) == 2)
    app.close()
    forgetful.dies_and_comes_back()
    successor = bench.start()
    bench.simulator.control.end()
    seal, late = Lanes.seal, iter(range(1))

    def overtaken(*args: Any, **named: Any) -> str:
        return seal(*args, **named) if next(late, None) is None else "STALE"

    monkeypatch.setattr(Lanes, "seal", overtaken)
    ends_right(bench, successor, names)
    assert sorted(sizes(bench)) == [2, 3]
