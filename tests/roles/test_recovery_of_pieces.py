"""Redis goes back behind a batch that was cut in pieces: what was posted of it is found piece by piece."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bench import Bench, wait_until
from endings import batches, calls, dead, ends_right, enqueue, refuse_bodies_with, remote_ids, sizes, states
from mortal import Mortal

from worker.core.model import State
from worker.recovery import strays
from worker.simulator import Simulator
from worker.wiring import App


@pytest.fixture
def forgetful(tmp_path: Path, simulator: Simulator) -> Iterator[Mortal]:
    """A Redis that keeps snapshots only: nothing makes an intent durable."""
    mortal = Mortal(tmp_path, simulator, appendonly=False)
    yield mortal
    mortal.end()


def stick(bench: Bench, times: int) -> None:
    """Let the next batches stay in progress until the test ends them."""
    bench.simulator.control.inject({"kind": "stuck", "on": "create", "times": times})


def snapshot_when_sealed(app: App, mortal: Mortal) -> None:
    """Let Redis know of the whole batch, sealed."""
    assert app.batcher is not None
    app.batcher.step("default")
    mortal.snapshot()


def snapshot_at_intent(app: App, mortal: Mortal) -> None:
    """Let Redis know of the intent to post the whole batch."""
    durably, once = app.barrier.durably, iter([mortal.snapshot])

    def watched(write: Callable[[Any], str]) -> str:
        answer = durably(write)
        next(once, lambda: None)()
        return answer

    app.barrier.durably = watched  # type: ignore[method-assign]


def crash(mortal: Mortal, app: App) -> App:
    """Let Redis go back, and a new process begin."""
    app.close()
    mortal.dies_and_comes_back()
    successor = mortal.bench.start()
    mortal.bench.simulator.control.end()
    return successor


SNAPSHOTS = pytest.mark.parametrize(
    "snapshot", [snapshot_when_sealed, snapshot_at_intent], ids=lambda act: act.__name__.removeprefix("snapshot_")
)


@SNAPSHOTS
def test_halves_that_were_posted_are_not_posted_again(forgetful: Mortal, snapshot: Any) -> None:
    """Refused as a whole and halved: each half that the API has is found, what it has not is sent."""
    bench = forgetful.bench
    names = [*enqueue(bench, 2), *enqueue(bench, 1, stem="guilty"), *enqueue(bench, 1, stem="last")]
    stick(bench, 2)
    app = bench.start()
    refuse_bodies_with(app, b"guilty")
    snapshot(app, forgetful)
    bench.drive(app, lambda: len(sizes(bench)) == 2)
    assert sorted(sizes(bench)) == [1, 2]
    successor = crash(forgetful, app)
    assert [batch.count for batch in batches(successor)] == [4]
    ends_right(bench, successor, names)
    assert sorted(sizes(bench)) == [1, 1, 2]
    assert bench.verdict()["prompts_committed_twice"] == 0


@SNAPSHOTS
def test_what_was_taken_out_of_a_batch_is_told_as_it_was(forgetful: Mortal, snapshot: Any) -> None:
    """The API named one prompt and took the others: these are found, that one is buried as refused."""
    bench = forgetful.bench
    names = enqueue(bench, 5)
    fault = {"kind": "status", "on": "create", "status": 400, "error_type": "invalid_request_error"}
    bench.simulator.control.inject(fault | {"message": "requests.2.params.max_tokens: must be positive"})
    stick(bench, 1)
    app = bench.start()
    snapshot(app, forgetful)
    bench.drive(app, lambda: sizes(bench) == [4])
    successor = crash(forgetful, app)
    ends_right(bench, successor, names)
    assert sizes(bench) == [4]
    assert [(prompt, reason) for prompt, reason, _ in dead(successor)] == [("p2", "refused")]


def test_a_probe_that_was_posted_is_not_posted_again(forgetful: Mortal) -> None:
    """A parked lane cuts one prompt off and sends it; Redis forgets the cut."""
    bench = forgetful.bench
    names = enqueue(bench, 4)
    trouble = {"kind": "status", "on": "create", "status": 403, "error_type": "permission_error"}
    bench.simulator.control.inject(trouble)
    stick(bench, 2)
    app = bench.start()
    snapshot_when_sealed(app, forgetful)
    bench.drive(app, lambda: sorted(sizes(bench)) == [1, 3])
    successor = crash(forgetful, app)
    ends_right(bench, successor, names)
    assert sorted(sizes(bench)) == [1, 3]


def test_a_tail_alone_is_found_in_the_whole(forgetful: Mortal) -> None:
    """Only the second half reached the API: the first is sent, under its old name."""
    bench = forgetful.bench
    names = [*enqueue(bench, 1, stem="guilty"), *enqueue(bench, 3)]
    stick(bench, 1)
    app = bench.start()
    refuse_bodies_with(app, b"guilty")
    snapshot_when_sealed(app, forgetful)
    bench.drive(app, lambda: sizes(bench) == [2])
    successor = crash(forgetful, app)
    ends_right(bench, successor, names)
    assert sum(sizes(bench)) == 4
    assert bench.verdict()["prompts_committed_twice"] == 0


def test_unusable_prompts_stay_with_the_pieces(forgetful: Mortal) -> None:
    """At the ends and in between: each has its one row."""
    bench = forgetful.bench

    def bad(name: str) -> str:
        bench.redis.xadd("batchmill:{default}:prompts", {"params": "[]", "id": name})
        return name

    names = [bad("bad0"), *enqueue(bench, 2), bad("bad1"), *enqueue(bench, 1, stem="guilty")]
    names += [bad("bad2"), *enqueue(bench, 1, stem="last"), bad("bad3")]
    stick(bench, 2)
    app = bench.start()
    refuse_bodies_with(app, b"guilty")
    snapshot_when_sealed(app, forgetful)
    bench.drive(app, lambda: sorted(sizes(bench)) == [1, 2])
    successor = crash(forgetful, app)
    ends_right(bench, successor, names)
    assert bench.verdict()["prompts_committed_twice"] == 0


@pytest.mark.parametrize("cut", ["split", "eject"])
def test_another_replica_that_cuts_the_same_batch_costs_a_look(
    forgetful: Mortal, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    """A cut that comes too late opens nothing: the lane is looked at again."""
    bench = forgetful.bench
    names = enqueue(bench, 4)
    fault: dict[str, object] = {"kind": "status", "on": "create", "status": 400, "error_type": "invalid_request_error"}
    how: dict[str, dict[str, object]] = {
        "split": {"status": 413},
        "eject": {"message": "requests.1.params.max_tokens: must be positive"},
    }
    bench.simulator.control.inject(fault | how[cut])
    stick(bench, 2)
    app = bench.start()
    snapshot_when_sealed(app, forgetful)
    bench.drive(app, lambda: sum(sizes(bench)) >= 3)
    created = sizes(bench)
    successor = crash(forgetful, app)
    does, late = getattr(type(successor.ledger.batches), cut), iter([1])

    def overtaken(*args: Any, **named: Any) -> str:
        return "STALE" if next(late, None) else does(*args, **named)

    monkeypatch.setattr(type(successor.ledger.batches), cut, overtaken)
    ends_right(bench, successor, names)
    assert next(late, None) is None
    assert sizes(bench) == created


def test_results_that_never_add_up_keep_the_lane_closed_and_say_so(
    forgetful: Mortal, caplog: pytest.LogCaptureFixture
) -> None:
    """Which prompts it holds cannot be told, so nothing is sent; deleted by a human it keeps nobody waiting."""
    bench = forgetful.bench
    names = enqueue(bench, 4)
    stick(bench, 1)
    app = bench.start()
    forgetful.snapshot()
    bench.drive(app, lambda: states(app) == [State.IN_PROGRESS])
    bench.simulator.control.inject({"kind": "missing_line", "times": None})
    successor = crash(forgetful, app)

    def blocked() -> list[str]:
        return [str(record.msg) for record in caplog.records if "recovery.blocked" in str(record.msg)]

    bench.drive(successor, lambda: bool(blocked()))
    for _ in range(3):
        bench.drive(successor, lambda: True)
    assert sizes(bench) == [4]
    assert remote_ids(bench)[0] in blocked()[0]
    bench.simulator.control.clear_faults()
    bench.simulator.control.delete(remote_ids(bench)[0])
    bench.drive(successor)
    assert len(blocked()) == 1
    assert sorted(row["id"] for row in bench.rows()) == names


def test_a_recovery_among_many_strangers_takes_several_looks(
    forgetful: Mortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks is watched: a look that reads thousands of tokens would be taken for stuck, and begin again."""
    bench = forgetful.bench
    names = enqueue(bench, 3)
    stick(bench, 1)
    app = bench.start()
    forgetful.snapshot()
    for _ in range(6):
        bench.simulator.control.foreign(2)
    bench.drive(app, lambda: states(app) == [State.IN_PROGRESS])
    successor = crash(forgetful, app)
    assert successor.api is not None
    moment, read = [0.0], successor.api.results

    def slow(remote_id: str) -> Any:
        moment[0] += strays.READING_SECONDS / 2
        return read(remote_id)

    monkeypatch.setattr(successor.api, "results", slow)
    monkeypatch.setattr(successor.clock, "monotonic", lambda: moment[0])
    since = successor.ledger.lanes.past("default").recovering_since
    assert since is not None
    wait_until(lambda: successor.ledger.store.now() > since + 0.3, description="the horizon is over")
    looks = []
    for _ in range(9):
        moment[0] += 1.0
        before = calls(bench, "results")
        successor.rescuer.step()
        looks.append(calls(bench, "results") - before)
    assert [count for count in looks if count] == [3, 3, 2]
    monkeypatch.undo()
    ends_right(bench, successor, names)
    assert sizes(bench) == [3]
