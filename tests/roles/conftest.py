from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import Bench, redis_server

from worker.simulator import Simulator


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One real Redis for the session; every bench starts with an empty one."""
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """An API whose batches end at once."""
    with Simulator(ends_after=0.0, poll_hint=0) as simulator:
        yield simulator


@pytest.fixture
def bench(server: str, simulator: Simulator, tmp_path: Path) -> Iterator[Bench]:
    """A deployment without any prompt yet."""
    bench = Bench(url=server, simulator=simulator, directory=tmp_path)
    bench.redis.flushall()
    yield bench
    bench.close()
