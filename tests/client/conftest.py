from collections.abc import Iterator

import pytest
from client_rig import Wire, redis_server
from redis import Redis

from worker.client import Producer


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One real Redis for the session."""
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def redis(server: str) -> Iterator[Redis]:
    """The server, emptied, with all the memory it wants."""
    with Redis.from_url(server) as redis:
        redis.flushall()
        redis.config_set("maxmemory", 0)
        yield redis
        redis.config_set("maxmemory", 0)


@pytest.fixture
def producer(server: str, redis: Redis) -> Iterator[Producer]:  # noqa: ARG001 - emptied first
    """A producer of lane `default`."""
    with Producer(server) as producer:
        yield producer


@pytest.fixture
def wire(server: str, redis: Redis) -> Iterator[Wire]:  # noqa: ARG001 - emptied first
    """A wire to the server that can lose replies."""
    wire = Wire(server.removeprefix("unix://"))
    yield wire
    wire.close()
