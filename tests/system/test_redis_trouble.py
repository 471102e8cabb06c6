import signal
from pathlib import Path

import pytest
import redis
from rig import Rig, Worker, deployment, elapsed, params, wait_until

OUTAGE_SECONDS = 10.0


def lose_redis(rig: Rig, worker: Worker, number: signal.Signals, *, seconds: float = OUTAGE_SECONDS) -> None:
    """Take Redis away for a while; the worker lives, and says that it is not ready."""
    rig.server.stop(number)
    wait_until(lambda: worker.get("/readyz")[0] == 503, description="the worker says that it is not ready")
    over = elapsed(seconds)
    while not over():
        assert worker.get("/livez")[0] == 200, worker.get("/livez")[1]
        assert worker.get("/readyz")[0] == 503
        assert worker.alive, worker.err[-2000:]
    rig.server.start()
    wait_until(lambda: worker.get("/readyz")[0] == 200, description="the worker is ready again")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_worker_outlives_a_restart_of_redis(tmp_path: Path, number: signal.Signals) -> None:
    """Ten seconds without Redis in the middle of the work: the same process goes on, nothing is lost or doubled."""
    with deployment(tmp_path, ends_after=1.0) as rig:
        worker = rig.start()
        names = rig.enqueue(2000)
        wait_until(lambda: len(rig.created()) >= 3, description="the work has begun")
        wait_until(rig.server.all_written, description="what Redis has accepted is in its file")
        lose_redis(rig, worker, number)
        names += rig.enqueue(100, name="later")
        rig.await_rows(2100, timeout=90)
        rig.assert_exact(names)
        assert worker.stop() == 0


def test_an_answer_that_comes_while_redis_is_away_is_kept(rig: Rig) -> None:
    """The batch is created and Redis is gone: the worker holds on to the answer until it can record it."""
    rig.inject("hold", on="create", seconds=3)
    worker = rig.start()
    names = rig.enqueue(20)
    wait_until(rig.created, description="the batch is created, its answer is not")
    lose_redis(rig, worker, signal.SIGTERM, seconds=5)
    rig.await_rows(20)
    rig.assert_exact(names)
    assert len(rig.created()) == 1


def test_results_that_come_while_redis_is_away_are_delivered_once(tmp_path: Path) -> None:
    """Redis goes while a large batch is being drained: the file appears once, complete."""
    with deployment(tmp_path, answer_bytes=4000) as rig:
        names = rig.enqueue(20_000)  # before anybody looks: they are to be one batch
        worker = rig.start(lanes__default__max_count="20000")
        wait_until(lambda: any(rig.directory.glob("results/default/.*")), description="a delivery is being written")
        lose_redis(rig, worker, signal.SIGTERM, seconds=2)
        rig.await_rows(20_000, timeout=90)
        rig.assert_exact(names)
        assert len(list(rig.directory.glob("results/default/*.jsonl"))) == 1


def test_a_worker_without_redis_still_ends_in_order(rig: Rig) -> None:
    """SIGTERM is obeyed within its time whether Redis is there or not."""
    worker = rig.start(shutdown_timeout="5s")
    rig.enqueue(20)
    rig.await_rows(20)
    rig.server.stop(signal.SIGKILL)
    wait_until(lambda: worker.get("/readyz")[0] == 503, description="the worker says that it is not ready")
    worker.signal(signal.SIGTERM)
    assert worker.wait(10) == 0
    assert "Traceback" not in worker.err


def test_a_full_redis_stops_producers_and_not_the_work(tmp_path: Path) -> None:
    """At maxmemory XADD is refused; what is in flight ends all the same and makes room."""
    with deployment(tmp_path, ends_after=2.0) as rig:
        client = rig.server.client
        worker = rig.start()
        names = [f"big-{number}" for number in range(400)]
        rig.add({"params": params("x" * 20_000), "id": name} for name in names)
        wait_until(rig.created, description="a batch is in flight")
        client.config_set("maxmemory", "1mb")
        with pytest.raises(redis.OutOfMemoryError):
            client.xadd("batchmill:{default}:prompts", {"params": params()})
        rig.await_rows(400, timeout=40)
        rig.assert_exact(names)
        assert worker.get("/livez")[0] == 200
        client.config_set("maxmemory", "0")
        names += rig.enqueue(50, name="later")
        rig.await_rows(450)
        rig.assert_exact(names)
        assert worker.stop() == 0


def test_a_redis_that_hangs_is_waited_for(rig: Rig) -> None:
    """A server that is frozen for longer than a command may take is trouble like any other."""
    worker = rig.start()
    names = rig.enqueue(100)
    rig.await_rows(100)
    rig.server.signal(signal.SIGSTOP)
    wait_until(lambda: worker.get("/readyz")[0] == 503, description="the worker says that it is not ready")
    assert worker.get("/livez")[0] == 200
    rig.server.signal(signal.SIGCONT)
    names += rig.enqueue(100, name="later")
    rig.await_rows(200)
    rig.assert_exact(names)
    assert worker.stop() == 0
