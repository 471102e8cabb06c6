import random
import signal
from pathlib import Path

import pytest
from rig import Rig, deployment, elapsed, wait_until


def kill_at_random(rig: Rig, *, kills: int, prompts: int, seed: int) -> None:
    """Two workers share the work; one of them dies at a random moment and is replaced, again and again."""
    chance = random.Random(seed)
    workers = [rig.start(), rig.start()]
    names: list[str] = []
    for number in range(kills):
        names += rig.enqueue(prompts // kills, name=f"round{number}")
        wait_until(elapsed(chance.uniform(0.0, 1.5)), description="a random moment")
        at = chance.randrange(2)
        workers[at].kill()
        workers[at] = rig.spawn()
        if chance.random() < 0.3:
            workers[1 - at].kill()
            workers[1 - at] = rig.spawn()
    rig.await_rows(len(names), timeout=120)
    rig.assert_exact(names)
    assert all(worker.ready().alive for worker in workers)


@pytest.mark.timeout(240)
def test_workers_may_die_at_any_moment(tmp_path: Path) -> None:
    """A few kills at random moments lose nothing and pay for nothing twice."""
    with deployment(tmp_path) as rig:
        kill_at_random(rig, kills=4, prompts=1200, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [2, 3])
def test_workers_may_die_again_and_again(tmp_path: Path, seed: int) -> None:
    """Twenty rounds of kills, with an API that is slow, hides batches and cuts results."""
    with deployment(tmp_path, seed=seed) as rig:
        rig.inject("hold", on="create", seconds=1.0, times=None, probability=0.5)
        rig.inject("cut_results", times=None, probability=0.2)
        rig.inject("drop_reply", on="create", times=None, probability=0.1)
        rig.inject("hide_from_list", times=None, probability=0.3, seconds=0.5)
        kill_at_random(rig, kills=20, prompts=4000, seed=seed)


def test_a_batch_that_was_created_before_the_kill_is_paid_for_once(rig: Rig) -> None:
    """The API has registered it, its answer never came, the worker is dead: the next one finds it by its token."""
    rig.inject("hold", on="create", seconds=60)
    names = rig.enqueue(30)
    first = rig.start(submit__horizon="2s")
    wait_until(rig.created, description="the batch is created, its answer is not")
    first.kill()
    second = rig.start(submit__horizon="2s")
    rig.await_rows(30)
    rig.assert_exact(names)
    assert len(rig.created()) == 1
    assert second.metric("batchmill_submissions_in_doubt_total", resolution="adopted") == 1


def test_a_batch_that_was_never_created_is_sent_again_after_the_horizon(rig: Rig) -> None:
    """The last byte had left, the API did nothing: absence is proven by time and a complete listing."""
    rig.inject("reset_before", on="create")
    names = rig.enqueue(30)
    worker = rig.start(submit__horizon="2s")
    rig.await_rows(30)
    rig.assert_exact(names)
    assert len(rig.created()) == 1
    assert worker.metric("batchmill_submissions_in_doubt_total", resolution="resubmitted") == 1


def test_a_worker_frozen_for_longer_than_its_lease_does_no_harm(rig: Rig) -> None:
    """SIGSTOP while the answer is under way: another takes over; what the frozen one says later is no news."""
    rig.inject("hold", on="create", seconds=2)
    names = rig.enqueue(30)
    frozen = rig.start(lease="1s")
    other = rig.start(lease="1s")
    wait_until(rig.created, description="one of the two waits for an answer")
    # both look alike from outside: freeze the one that knocks, whichever it is, by freezing each in turn
    frozen.signal(signal.SIGSTOP)
    rig.await_rows(30)
    frozen.signal(signal.SIGCONT)
    names += rig.enqueue(30, name="later")
    rig.await_rows(60)
    other.signal(signal.SIGSTOP)
    names += rig.enqueue(30, name="last")
    rig.await_rows(90)
    other.signal(signal.SIGCONT)
    wait_until(lambda: other.get("/readyz")[0] == 200, description="the second works again")
    rig.assert_exact(names)
    assert frozen.alive
    assert other.alive
    assert frozen.stop() == other.stop() == 0


@pytest.mark.parametrize("stage", ["upload", "answer"])
def test_a_lone_worker_frozen_and_thawed_goes_on(rig: Rig, stage: str) -> None:
    """Its own lease is long gone when it wakes up; another has done the work, and its own is thrown away."""
    early = stage == "upload"
    rig.inject("delay" if early else "hold", on="create", seconds=1, **({"early": True} if early else {}))
    names = rig.enqueue(200)
    frozen = rig.start(lease="1s", submit__horizon="1s")
    wait_until(lambda: rig.simulator.control.state()["attempts"], description="it posts")
    frozen.signal(signal.SIGSTOP)
    successor = rig.start(lease="1s", submit__horizon="1s")
    rig.await_rows(200)
    frozen.signal(signal.SIGCONT)
    wait_until(lambda: frozen.get("/readyz")[0] == 200, description="it works again")
    names += rig.enqueue(50, name="later")
    rig.await_rows(250)
    rig.assert_exact(names)
    assert frozen.stop() == successor.stop() == 0
