import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_rig import Shell, open_ledger, redis_server
from redis import Redis

from worker.ledger.ledger import Ledger
from worker.simulator import Simulator


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One real Redis for the session."""
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty working directory, and no setting of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith(("BATCHMILL_", "ANTHROPIC_")) or name in ("REDIS_URL", "PORT"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def redis(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The server, emptied; commands find it by REDIS_URL."""
    monkeypatch.setenv("REDIS_URL", server)
    with Redis.from_url(server) as redis:
        redis.flushall()
        redis.config_set("maxmemory", 0)
        yield redis
        redis.config_set("maxmemory", 0)


@pytest.fixture
def ledger(server: str, redis: Any) -> Iterator[Ledger]:  # noqa: ARG001 - emptied first
    """The ledger on the emptied server."""
    ledger = open_ledger(server)
    yield ledger
    ledger.store.close()


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    """Runs commands."""
    return Shell(capsys)


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """An API that commands find by the environment; its batches end only when told to."""
    with Simulator(ends_after=3600.0) as simulator:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", simulator.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-canary")
        yield simulator
