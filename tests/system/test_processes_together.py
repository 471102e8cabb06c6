import re

import pytest
from rig import Rig, Worker, wait_until


def settled(worker: Worker) -> float:
    """Return how many prompts this very process has settled."""
    return worker.metric("batchmill_prompts_settled_total")


def _await_settled(rig: Rig, workers: list[Worker], count: int) -> None:
    rig.await_rows(count)
    wait_until(lambda: sum(map(settled, workers)) >= count, description="the workers say what they have settled")


def test_two_workers_share_the_work(rig: Rig) -> None:
    """Each prompt is committed and settled once, and both have a part in it, at the latest after some turns."""
    workers = [rig.start(lanes__default__max_count="50"), rig.start(lanes__default__max_count="50")]
    names: list[str] = []
    for turn in range(10):
        names += rig.enqueue(1000, name=f"p{turn}")
        _await_settled(rig, workers, len(names))
        if min(map(settled, workers)) > 0:
            break
    assert sum(map(settled, workers)) == len(names)
    assert min(map(settled, workers)) > 0
    rig.assert_exact(names)
    assert rig.verdict()["prompts_committed_twice"] == 0
    assert [worker.stop() for worker in workers] == [0, 0]


@pytest.mark.slow
def test_gauges_are_the_same_wherever_they_are_read(rig: Rig) -> None:
    """What is true of the lane is read from Redis, so a replica that did nothing shows it too."""
    workers = [rig.start(lanes__default__max_age="1h") for _ in range(2)]
    rig.enqueue(7)
    for worker in workers:
        assert worker.metric("batchmill_lane_depth", lane="default") == 7


def test_roles_may_live_in_different_processes(rig: Rig) -> None:
    """One process seals and submits, the other follows and fetches; together they do the whole job."""
    front = rig.start("--roles", "batcher,submitter")
    names = rig.enqueue(500)
    wait_until(lambda: sum(batch["count"] for batch in rig.created()) == 500, description="all is submitted")
    assert rig.row_lines() == []
    back = rig.start("--roles", "poller,drainer")
    rig.await_rows(500)
    rig.assert_exact(names)
    wait_until(lambda: settled(back) == 500, description="the second says what it has settled")
    assert settled(front) == 0
    operations = set(re.findall(r'operation="(\w+)",outcome="ok"} [1-9]', front.get("/metrics")[1]))
    assert operations == {"list", "create"}
    assert front.stop() == back.stop() == 0


def test_a_process_that_only_seals_needs_no_key(rig: Rig) -> None:
    """`--roles batcher` never talks to the API."""
    sealer = rig.start("--roles", "batcher", env={"ANTHROPIC_API_KEY": None})
    names = rig.enqueue(100)
    wait_until(lambda: sealer.status()["lanes"]["default"]["batches"]["sealed"], description="a batch is sealed")
    rig.start("--roles", "submitter,poller,drainer")
    rig.await_rows(100)
    rig.assert_exact(names)
