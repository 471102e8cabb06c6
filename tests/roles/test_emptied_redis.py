"""FLUSHALL by mistake: said loudly, the deployment stays one, and nothing foreign is taken for ours afterwards."""

import threading

import pytest
from bench import Bench, params, turn, wait_until
from endings import doubts, ends_right, enqueue, held, posts, remote_ids, sizes, states, turns

from worker.core.model import State
from worker.rescuer import ForeignDeploymentError
from worker.wiring import App


def emptied_at(app: App) -> float | None:
    """Return when this deployment found its Redis empty, as operators see it."""
    return app.figures().emptied_at


def test_lanes_and_the_deployment_come_back_without_a_restart(bench: Bench) -> None:
    """The same run_id, nothing left: the next look of any replica writes down again who works here."""
    app = bench.start()
    enqueue(bench, 2)
    bench.drive(app)
    assert emptied_at(app) is None
    bench.redis.flushall()
    app.rescuer.step()
    assert app.ledger.deployment.lanes() == ["default"]
    assert app.ledger.deployment.recall("id") == app.deployment
    assert app.ledger.deployment.recall("dedupe_ttl") == "86400"
    assert app.ledger.deployment.recall("intake_max_bytes") == "2000000000"
    assert emptied_at(app) == pytest.approx(app.ledger.store.now(), abs=5.0)
    names = enqueue(bench, 3, stem="later")
    bench.drive(app)
    assert sorted(row["id"] for row in bench.rows()) == ["later0", "later1", "later2", "p0", "p1"]
    assert len(names) == 3


def test_it_is_said_once_and_loudly(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """An error line with what to do; not again at each look, nor by a replica that finds it mended."""
    first, second = bench.start(), bench.start()
    bench.redis.flushall()
    for app in (first, second, first, second):
        app.rescuer.step()
    lines = [record for record in caplog.records if "redis.emptied" in str(record.msg)]
    assert [record.levelname for record in lines] == ["ERROR"]
    assert "restore" in str(lines[0].msg)
    assert first.deployment in str(lines[0].msg)


def test_replicas_that_come_back_at_once_stay_one_deployment(bench: Bench) -> None:
    """Whoever is first writes the same id: a new replica finds it, and invents none."""
    apps = [bench.start() for _ in range(4)]
    bench.redis.flushall()
    together = threading.Barrier(len(apps))

    def look(app: App) -> None:
        together.wait()
        app.rescuer.step()

    threads = [threading.Thread(target=look, args=(app,)) for app in apps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {app.deployment for app in [*apps, bench.start()]} == {apps[0].deployment}


def test_a_new_replica_that_comes_first_makes_the_old_ones_start_anew(bench: Bench) -> None:
    """It cannot know the old id: then theirs is the past, and they end; a new start works for the new one."""
    old = bench.start()
    bench.redis.flushall()
    new = bench.start()
    assert new.deployment != old.deployment
    with pytest.raises(ForeignDeploymentError):
        old.rescuer.step()
    assert bench.start().deployment == new.deployment


def test_what_an_old_replica_posted_meanwhile_is_delivered_by_the_new_one(bench: Bench) -> None:
    """Its prompts carry the old id: the batch's record says so, and the results are taken for what they are."""
    old = bench.start()
    bench.redis.flushall()
    new = bench.start()
    names = enqueue(bench, 3)
    assert new.batcher is not None
    new.batcher.step("default")
    (claim,) = new.ledger.batches.claim("default", limit=9, lease=9.0)
    old.steps["submit"]([claim])  # type: ignore[index]
    assert states(new) == [State.IN_PROGRESS]
    ends_right(bench, new, names)
    assert sizes(bench) == [3]


def test_a_doubt_that_an_old_replica_left_is_ended_by_the_new_one(bench: Bench) -> None:
    """The token names the deployment that posted, not the one that reconciles: it is adopted, not paid again."""
    old = bench.start()
    bench.redis.flushall()
    new = bench.start()
    names = enqueue(bench, 3)
    bench.simulator.control.inject({"kind": "drop_reply", "on": "create"})
    assert new.batcher is not None
    new.batcher.step("default")
    (claim,) = new.ledger.batches.claim("default", limit=9, lease=9.0)
    old.steps["submit"]([claim])  # type: ignore[index]
    assert states(new) == [State.SUBMITTING]
    ends_right(bench, new, names)
    assert sizes(bench) == [3]
    assert doubts(new, "adopted") == 1


@pytest.mark.parametrize("exclusive", ["true", "false"], ids=["exclusive", "shared"])
def test_a_post_in_flight_is_not_adopted_by_a_new_batch_of_its_size(bench: Bench, exclusive: str) -> None:
    """It commits after the flush, is alone, and has the count of a batch that is in doubt: only its token is asked."""
    control = bench.simulator.control
    app = bench.start(anthropic__exclusive_workspace=exclusive, submit__horizon="3s")
    control.inject({"kind": "late_commit", "on": "create", "seconds": 300})
    enqueue(bench, 3, stem="old")
    bench.drive(app, lambda: bool(posts(bench)))
    bench.redis.flushall()
    app.rescuer.step()
    control.inject([{"kind": "reset_before", "on": "create"}, {"kind": "stuck", "on": "create"}])
    names = enqueue(bench, 3, stem="new")
    bench.drive(app, lambda: states(app) == [State.SUBMITTING])
    control.advance(300)
    turns(app, 20)
    assert len(remote_ids(bench)) == 1
    assert states(app) == [State.SUBMITTING]
    bench.drive(app, lambda: len(remote_ids(bench)) == 2)
    control.end()
    bench.drive(app)
    assert sorted(row["id"] for row in bench.rows()) == names
    assert {row["batch_id"] for row in bench.rows()} == set(remote_ids(bench)[1:])


def test_by_count_is_adopted_again_when_no_forgotten_post_can_come(bench: Bench) -> None:
    """A horizon and a timeout after the flush an exclusive workspace is what it was."""
    app = bench.start(anthropic__exclusive_workspace="true", submit__timeout="200ms", submit__horizon="300ms")
    bench.redis.flushall()
    app.rescuer.step()
    wait_until(lambda: app.ledger.store.now() > (emptied_at(app) or 0.0) + 0.5, description="all posts are decided")
    bench.simulator.control.inject([{"kind": "drop_reply", "on": "create"}, {"kind": "stuck", "on": "create"}])
    names = enqueue(bench, 3)
    bench.drive(app, lambda: states(app) == [State.IN_PROGRESS])
    assert doubts(app, "adopted") == 1
    bench.simulator.control.end()
    ends_right(bench, app, names)


def test_nothing_waits_for_a_human_when_it_was_emptied_at_any_stage(bench: Bench) -> None:
    """Sealed, in doubt, in progress, ended: what was forgotten is gone, and what comes after is worked off."""
    app = bench.start()
    for stage in (State.SEALED, State.SUBMITTING, State.IN_PROGRESS, State.ENDED):
        if stage is State.SUBMITTING:
            bench.simulator.control.inject({"kind": "drop_reply", "on": "create"})
        if stage is State.IN_PROGRESS:
            bench.simulator.control.inject({"kind": "stuck", "on": "create"})
        enqueue(bench, 2, stem=f"gone-{stage}-")
        if stage is State.SEALED:
            assert app.batcher is not None
            app.batcher.step("default")
        else:
            bench.drive(app, lambda stage=stage: states(app) == [stage])  # type: ignore[misc]
        bench.redis.flushall()
        turns(app, 3)
        bench.simulator.control.end()
        names = enqueue(bench, 2, stem=f"kept-{stage}-")
        bench.drive(app)
        assert {row["id"] for row in bench.rows()} >= set(names)
        assert held(app) is None
    assert bench.verdict()["prompts_billed_twice"] == 0


def test_prompts_that_the_batcher_had_read_are_not_sealed_as_if_they_were_there(bench: Bench) -> None:
    """Its window is a memory: what it remembers and Redis does not is no prompt."""
    app = bench.start(lanes__default__max_age="1h")
    enqueue(bench, 3, stem="gone")
    turn(app)
    bench.redis.flushall()
    app.rescuer.step()
    names = enqueue(bench, 2, stem="kept")
    app.ledger.lanes.flush("default")
    bench.drive(app)
    assert sorted(row["id"] for row in bench.rows()) == names
    assert sizes(bench) == [2]


def test_results_that_nobody_waits_for_are_counted_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """They ran and were paid for; their prompts are gone. They are named, delivered to nobody, and not named again."""
    app = bench.start()
    bench.simulator.control.inject({"kind": "stuck", "on": "create", "times": 2})
    enqueue(bench, 2)
    bench.drive(app, lambda: states(app) == [State.IN_PROGRESS])
    bench.simulator.control.foreign(3)
    bench.redis.flushall()
    names = enqueue(bench, 4, stem="later")
    bench.drive(app, lambda: len(sizes(bench)) == 2)
    assert app.figures().orphans is None
    bench.simulator.control.end()
    bench.drive(app, lambda: app.figures().orphans is not None)
    bench.drive(app)
    wait_until(lambda: app.figures().orphans == 1, description="the one is counted")
    other = bench.start()
    turns(other, 3)
    lines = [str(record.msg) for record in caplog.records if "remote.orphaned" in str(record.msg)]
    assert len(lines) == 1
    assert remote_ids(bench)[0] in lines[0]
    assert sorted(row["id"] for row in bench.rows()) == names


def test_a_batch_in_doubt_is_no_orphan(bench: Bench) -> None:
    """Nobody owns its remote batch yet, but its record waits for it."""
    app = bench.start()
    bench.redis.flushall()
    app.rescuer.step()
    bench.simulator.control.inject({"kind": "drop_reply", "on": "create"})
    names = enqueue(bench, 3)
    bench.drive(app, lambda: states(app) == [State.SUBMITTING])
    wait_until(lambda: app.rescuer.step() and app.figures().orphans is not None, description="orphans are counted")
    assert app.figures().orphans == 0
    ends_right(bench, app, names)


def test_a_producer_that_plainly_adds_to_an_emptied_redis_is_served(bench: Bench) -> None:
    """It does not know that anything happened."""
    app = bench.start()
    bench.redis.flushall()
    bench.redis.xadd("batchmill:{default}:prompts", {"params": params(), "id": "x"})
    bench.drive(app, lambda: bool(bench.rows()))
    ends_right(bench, app, ["x"])
