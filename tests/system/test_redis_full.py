from pathlib import Path

import pytest
import redis
from rig import deployment, params, wait_until


def test_a_redis_that_is_full_of_waiting_prompts_is_emptied(tmp_path: Path) -> None:
    """The prompts themselves fill it, and nothing was posted yet: a new worker works them off all the same."""
    with deployment(tmp_path) as rig:
        client = rig.server.client
        names = [f"big-{number}" for number in range(600)]
        rig.add({"params": params("x" * 20_000), "id": name} for name in names)
        client.config_set("maxmemory", "1mb")
        with pytest.raises(redis.OutOfMemoryError):
            client.xadd("batchmill:{default}:prompts", {"params": params()})
        worker = rig.start()
        rig.await_rows(600)
        wait_until(lambda: client.xlen("batchmill:{default}:prompts") == 0, description="the room is given back")
        client.config_set("maxmemory", "0")
        names += rig.enqueue(50, name="later")
        rig.await_rows(650)
        rig.assert_exact(names)
        assert "step.failed" not in worker.err
        assert worker.stop() == 0
