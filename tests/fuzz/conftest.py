"""How much is fuzzed: `FUZZ=50000` asks for runs of so many entries or lines, and for longer searches."""

from collections.abc import Callable, Iterator
from pathlib import Path

import fuzzing
import pytest
from hypothesis import HealthCheck, settings
from mill import Mill, redis_server

from worker import drainer, poller, refusals, submitter
from worker.simulator import Simulator

# Not derandomized: every run looks elsewhere, and what fails is printed as an example to keep.
settings.register_profile(
    "fuzz",
    deadline=None,
    max_examples=fuzzing.searches(),
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
settings.load_profile("fuzz")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give a run that was asked to be long the time for it."""
    for item in items:
        if "tests/fuzz" in item.path.as_posix() and fuzzing.asked():
            item.add_marker(pytest.mark.timeout(7200), append=False)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits a second or more in life waits some milliseconds here."""
    for module in (submitter, refusals, drainer):
        monkeypatch.setattr(module, "FIRST_DELAY", 0.002)
        monkeypatch.setattr(module, "MOST_DELAY", 0.004)
    monkeypatch.setattr(poller, "FIRST_DELAY", 0.002)
    monkeypatch.setattr(submitter, "GATE_DELAY", 0.01)
    monkeypatch.setattr(submitter, "ACCEPT_PAUSE", 0.01)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One real Redis for the session."""
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """An API whose batches end at once."""
    with Simulator(ends_after=0.0, poll_hint=0) as simulator:
        yield simulator


@pytest.fixture
def connect(redis_url: str, tmp_path: Path) -> Iterator[Callable[..., Mill]]:
    """Build mills, on an empty Redis, that are closed after the test."""
    built: list[Mill] = []

    def connect(api_url: str, **settings: str) -> Mill:
        built.append(Mill(redis_url=redis_url, api_url=api_url, directory=tmp_path, **settings))
        return built[-1]

    yield connect
    for mill in built:
        mill.close()
