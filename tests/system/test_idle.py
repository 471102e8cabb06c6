import time
from pathlib import Path
from typing import Any

import pytest
from rig import deployment

SECONDS = 10
MOST = 20
"""Commands a second, those within scripts included: a Redis that many idle replicas share is not to notice them."""


@pytest.mark.slow
def test_a_worker_without_work_hardly_asks_redis(tmp_path: Path) -> None:
    """With the default tick; counted by Redis, not timed."""
    with deployment(tmp_path) as rig:
        worker = rig.start(tick="1s")
        time.sleep(3)  # what it does once when it starts
        client: Any = rig.server.client
        client.config_resetstat()
        time.sleep(SECONDS)
        asked = client.info("stats")["total_commands_processed"]
        assert 0 < asked <= MOST * SECONDS
        assert worker.stop() == 0
