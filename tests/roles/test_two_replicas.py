import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import Any

import pytest
from bench import Bench, turn, wait_until
from endings import (
    batches,
    calls,
    dead,
    ends_right,
    enqueue,
    has_ended_right,
    posts,
    remote_ids,
    sizes,
    states,
    succeeded,
)

from worker.actors import QUEUE_OF
from worker.batches_api import Complaint, Created, Listing, Unavailable
from worker.core.model import Claim, State
from worker.wiring import App


def claim_one(app: App) -> Claim:
    """Claim the lane's one batch, waiting until it is due."""
    while not (claims := app.ledger.batches.claim("default", limit=1, lease=60.0)):
        pass
    return claims[0]


def step(app: App, claim: Claim) -> None:
    """Answer a knock."""
    app.steps[QUEUE_OF[claim.state]]([claim])


def test_two_replicas_in_turns_share_the_work(bench: Bench) -> None:
    """Whoever looks first does it; the other finds it done."""
    names = enqueue(bench, 12)
    first, second = bench.start(lanes__default__max_count="3"), bench.start()
    workers = cycle((second, first))
    while not bench.idle(first):
        turn(next(workers))
    has_ended_right(bench, first, names)
    assert sizes(bench) == [3, 3, 3, 3]


def test_replicas_in_threads_post_every_batch_once(bench: Bench) -> None:
    """Three of them at the same time, on the same lane, with retries and lost answers in between."""
    bench.simulator.control.inject(
        [
            {"kind": "drop_reply", "on": "create", "times": 2, "after": 1},
            {"kind": "rows", "result": "expired", "fraction": 0.2, "times": 4},
        ]
    )
    names = enqueue(bench, 60)
    apps = [bench.start(lanes__default__max_count="6") for _ in range(3)]
    done = threading.Event()

    def work(app: App) -> None:
        while not done.is_set():
            turn(app)

    with ThreadPoolExecutor(len(apps)) as pool:
        working = [pool.submit(work, app) for app in apps]
        try:
            wait_until(
                lambda: bench.idle(apps[0]) or any(one.done() for one in working), description="everything is settled"
            )
        finally:
            done.set()
        for one in working:
            one.result()
    has_ended_right(bench, apps[0], names)
    assert succeeded(bench) == 60
    assert dead(apps[0]) == []
    assert len({row["batch_id"] for row in bench.rows()}) <= len(remote_ids(bench))


@pytest.fixture
def pair(bench: Bench) -> tuple[App, App]:
    """Two workers of one deployment."""
    return bench.start(), bench.start()


def overtake_at(app: App, call: str, act: Callable[[], object]) -> None:
    """Let something happen while a worker that has checked its claim makes this call of the API."""
    asks = getattr(app.api, call)

    def overtaken(*args: object, **named: object) -> object:
        act()
        return asks(*args, **named)

    setattr(app.api, call, overtaken)


def take_over(bench: Bench, app: App, claim: Claim) -> Claim:
    """Claim a batch whose lease is over, as far as anybody can tell."""
    bench.redis.zadd("batchmill:{default}:due", {claim.uid: 0})
    return claim_one(app)


def seal(app: App) -> None:
    """Seal what waits, and nothing more."""
    assert app.batcher is not None
    app.batcher.step("default")


def test_a_stale_claim_posts_nothing(bench: Bench, pair: tuple[App, App]) -> None:
    """The intent asks for the fence: a worker that slept through its lease does not send the last byte."""
    slow, quick = pair
    names = enqueue(bench, 3)
    seal(quick)
    old = claim_one(slow)
    taken: list[Claim] = []
    overtake_at(slow, "newest", lambda: taken.append(take_over(bench, quick, old)))
    step(slow, old)
    assert states(quick) == [State.SEALED]
    assert calls(bench, "create") == 0
    step(quick, taken[0])
    assert states(quick) == [State.IN_PROGRESS]
    ends_right(bench, quick, names)
    assert sizes(bench) == [3]


def test_a_claim_that_is_stale_from_the_start_asks_nobody(bench: Bench, pair: tuple[App, App]) -> None:
    """A knock that was answered late costs no call of the API."""
    slow, quick = pair
    names = enqueue(bench, 3)
    seal(quick)
    old = claim_one(slow)
    new = take_over(bench, quick, old)
    step(slow, old)
    assert calls(bench, "list") == 0
    step(quick, new)
    ends_right(bench, quick, names)


def test_a_stale_claim_gives_nothing_of_the_other_back(bench: Bench, pair: tuple[App, App]) -> None:
    """The share of the account's queue is the batch's, whoever reserved it: only its owner may give it back."""
    slow, quick = pair
    bench.simulator.control.inject({"kind": "stuck", "on": "create"})
    enqueue(bench, 3)
    seal(quick)
    old = claim_one(slow)
    overtake_at(slow, "newest", lambda: step(quick, take_over(bench, quick, old)))
    step(slow, old)
    assert states(quick) == [State.IN_PROGRESS]
    assert sizes(bench) == [3]
    assert quick.ledger.deployment.in_flight() == 3


def test_a_stale_claim_settles_nothing(bench: Bench, pair: tuple[App, App]) -> None:
    """A drain that was overtaken commits nothing to the ledger; its rows go into the same file."""
    slow, quick = pair
    names = enqueue(bench, 3)
    bench.drive(quick, lambda: states(quick) == [State.ENDED])
    old = claim_one(slow)
    taken: list[Claim] = []
    overtake_at(slow, "results", lambda: taken.append(take_over(bench, quick, old)))
    step(slow, old)
    assert states(quick) == [State.ENDED]
    assert dict(batches(quick)[0].commits) == {}
    step(quick, taken[0])
    has_ended_right(bench, quick, names)


def test_a_stale_claim_polls_in_vain(bench: Bench, pair: tuple[App, App]) -> None:
    """What an overtaken poll has seen is seen again by the one who overtook it."""
    slow, quick = pair
    bench.simulator.control.inject({"kind": "stuck", "on": "create"})
    names = enqueue(bench, 3)
    bench.drive(quick, lambda: states(quick) == [State.IN_PROGRESS])
    old = claim_one(slow)
    taken: list[Claim] = []
    overtake_at(slow, "retrieve", lambda: taken.append(take_over(bench, quick, old)))
    bench.simulator.control.end()
    step(slow, old)
    assert states(quick) == [State.IN_PROGRESS]
    step(quick, taken[0])
    assert states(quick) == [State.ENDED]
    ends_right(bench, quick, names)


def test_an_answer_that_arrives_after_the_lease_is_a_fact(bench: Bench, pair: tuple[App, App]) -> None:
    """Who was overtaken while waiting for the answer records it all the same: it is true whoever says it."""
    slow, quick = pair
    names = enqueue(bench, 3)
    seal(slow)
    claim = claim_one(slow)
    assert slow.api is not None
    create = slow.api.create

    def slow_create(*args: Any, **named: Any) -> Created:
        created = create(*args, **named)
        doubted = take_over(bench, quick, claim)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(quick.api, "newer_than", nothing_to_see)
            step(quick, doubted)
        assert [batch.doubt for batch in batches(quick)] == ["lost"]
        return created

    slow.api.create = slow_create  # type: ignore[method-assign]
    step(slow, claim)
    assert states(quick) == [State.IN_PROGRESS]
    ends_right(bench, quick, names)
    assert sizes(bench) == [3]


def nothing_to_see(*_args: object, **_named: object) -> Listing:
    """Stand in for a list that cannot be had just now."""
    raise Unavailable(Complaint("connection reset"))


def test_a_lane_sealed_by_two_at_once_is_sealed_once(bench: Bench) -> None:
    """Both have read the same window; one seal wins, the other looks again and finds nothing left."""
    names = enqueue(bench, 3)
    first, second = bench.start(), bench.start()
    assert first.batcher is not None
    assert second.batcher is not None
    decided = second.batcher._ledger.lanes.marks

    def be_overtaken(lane: str) -> object:
        seen = decided(lane)
        assert first.batcher is not None
        first.batcher.step(lane)
        return seen

    second.batcher._ledger = _Overtaken(second.batcher._ledger, be_overtaken)  # type: ignore[assignment]
    second.batcher.step("default")
    assert states(first) == [State.SEALED]
    ends_right(bench, first, names)
    assert posts(bench) == {"created": 1}


class _Overtaken:
    """A ledger whose look at a lane's marks lets somebody else act before it is acted upon."""

    def __init__(self, ledger: object, marks: object) -> None:
        self._ledger = ledger
        self._marks = marks
        self.lanes = self

    def __getattr__(self, name: str) -> object:
        return getattr(self._ledger, name, None) or getattr(self._ledger.lanes, name)  # type: ignore[attr-defined]

    @property
    def marks(self) -> object:
        return self._marks
