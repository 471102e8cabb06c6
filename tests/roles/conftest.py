from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import Bench, redis_server
from leftovers import leftovers

from worker import drainer, poller, refusals, submitter
from worker.simulator import Simulator


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits a second or more in life waits some milliseconds here; how long is judged by tests of `schedule`."""
    for module in (submitter, refusals):
        monkeypatch.setattr(module, "FIRST_DELAY", 0.02)
        monkeypatch.setattr(module, "MOST_DELAY", 0.04)
    monkeypatch.setattr(drainer, "FIRST_DELAY", 0.02)
    monkeypatch.setattr(drainer, "MOST_DELAY", 0.04)
    monkeypatch.setattr(poller, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(submitter, "GATE_DELAY", 0.02)
    monkeypatch.setattr(submitter, "ACCEPT_PAUSE", 0.01)


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
    strays = leftovers(bench.redis)
    bench.close()
    assert strays == []
