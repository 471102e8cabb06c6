from collections.abc import Callable, Iterator

import pytest
from api_fakes import KEY, FakeClock, Heard
from scripted_server import Server

from worker.batches_api import BatchesApi


@pytest.fixture
def server() -> Iterator[Server]:
    """Serve what the test scripts."""
    server = Server()
    yield server
    server.close()


@pytest.fixture
def clock() -> FakeClock:
    """Give time that nobody has to wait for."""
    return FakeClock()


@pytest.fixture
def heard() -> Heard:
    """Record what the api reports."""
    return Heard()


@pytest.fixture
def connect(clock: FakeClock, heard: Heard) -> Iterator[Callable[..., BatchesApi]]:
    """Build apis that are closed after the test."""
    opened: list[BatchesApi] = []

    def connect(
        base_url: str, *, requests_per_minute: int = 100_000, answer_timeout: float = 10.0, api_key: str = KEY
    ) -> BatchesApi:
        api = BatchesApi(
            api_key=api_key,
            base_url=base_url,
            api_version="2026-10-21",
            betas=("output-300k-2026-03-24", "another-beta"),
            requests_per_minute=requests_per_minute,
            answer_timeout=answer_timeout,
            clock=clock,
            observe=heard.observe,
            waited=heard.waits.append,
        )
        opened.append(api)
        return api

    yield connect
    for api in opened:
        api.close()


@pytest.fixture
def api(connect: Callable[..., BatchesApi], server: Server) -> BatchesApi:
    """Connect to the scripted server."""
    return connect(server.url)
