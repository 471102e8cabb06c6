from rig import Rig, wait_until


def test_two_workers_live_through_a_flushall(rig: Rig) -> None:
    """The same processes go on as the same deployment, a third one joins it; everybody can see what happened."""
    rig.inject("stuck", on="create")
    workers = [rig.start(), rig.start()]
    rig.enqueue(30, name="gone")
    wait_until(rig.created, description="a batch is with the API")
    deployment = rig.server.client.hget("batchmill:deployment", "id")
    assert workers[0].status()["redis_emptied_at"] is None
    rig.server.client.flushall()
    names = rig.enqueue(100)
    rig.await_rows(100)
    workers.append(rig.start())
    names += rig.enqueue(100, name="later")
    rig.await_rows(200)
    rig.assert_exact(names)
    assert rig.server.client.hget("batchmill:deployment", "id") == deployment
    assert [worker.alive for worker in workers] == [True] * 3
    assert sum(worker.err.count('"redis.emptied"') for worker in workers) == 1
    for worker in workers:
        assert worker.status()["redis_emptied_at"] > 0
        assert worker.metric("batchmill_redis_emptied_timestamp_seconds") > 0
    rig.simulator.control.end()
    wait_until(lambda: workers[0].status()["orphaned_batches"] == 1, description="the orphan is counted")
    assert sum(worker.err.count('"remote.orphaned"') for worker in workers) == 1
    assert len(rig.rows()) == 200
    assert [worker.stop() for worker in workers] == [0, 0, 0]
