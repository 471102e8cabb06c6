"""What must be on Redis' disk although nothing is posted: found by simulated restarts that forget the last second."""

import time

from bench import Bench
from endings import ends_right


def synced_at(bench: Bench) -> float:
    """Return when Redis was last asked to bring everything onto its disk."""
    return float(bench.redis.hget("batchmill:deployment", "synced_at") or 0.0)


def test_a_new_deployments_id_is_on_disk_before_it_is_used(bench: Bench) -> None:
    """Were it forgotten, the next process would invent another one, and neither would know the other's results."""
    assert synced_at(bench) == 0.0
    bench.start()
    first = synced_at(bench)
    assert first > 0.0
    bench.start()
    assert synced_at(bench) == first


def test_a_seal_that_nothing_is_posted_of_is_on_disk_before_its_rows_are_written(bench: Bench) -> None:
    """No intent has brought it there: forgotten, its prompts would be sealed again and have two rows each."""
    app = bench.start()
    before = time.time()
    bench.redis.xadd("batchmill:{default}:prompts", {"params": "[]", "id": "bad"})
    ends_right(bench, app, ["bad"])
    assert synced_at(bench) >= before
