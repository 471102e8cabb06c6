"""The ledger on a fake and on a real server, and a look for leaked keys after each test."""

from collections.abc import Iterator

import fakeredis
import pytest
from hypothesis import HealthCheck, settings
from ledger_rig import PREFIX, Rig, leaks, real_server

from worker.ledger.keys import Keys
from worker.ledger.ledger import Ledger
from worker.ledger.store import Store

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One real server for the session."""
    with real_server(tmp_path_factory.mktemp("r")) as url:
        yield url


@pytest.fixture
def real_store(server_url: str) -> Iterator[Store]:
    """A store on the real server, empty and with its settings as they were at the start."""
    store = Store.connect(server_url, PREFIX)
    usual = {"maxmemory": "0", "maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec"}
    for name, value in usual.items():
        store.write("config_set", name, value)
    store.write("flushall")
    yield store
    store.write("config_set", "maxmemory", "0")
    strays = leaks(store)
    store.close()
    assert strays == []


@pytest.fixture
def fake_store() -> Iterator[Store]:
    """A store on a fake of its own: one that a script has poisoned must not poison the next test."""
    client = fakeredis.FakeRedis(protocol=2, server=fakeredis.FakeServer())
    store = Store(once=client, again=client, keys=Keys(PREFIX), flags=False)
    yield store
    strays = leaks(store)
    store.close()
    assert strays == []


@pytest.fixture(params=["fake", "real"])
def store(request: pytest.FixtureRequest) -> Store:
    """The same test on both."""
    found: Store = request.getfixturevalue(f"{request.param}_store")
    return found


@pytest.fixture
def rig(store: Store) -> Rig:
    """A ledger with a recovered lane, on both."""
    rig = Rig(Ledger.over(store))
    rig.recover()
    return rig


@pytest.fixture
def real_rig(real_store: Store) -> Rig:
    """The same on the real server only."""
    rig = Rig(Ledger.over(real_store))
    rig.recover()
    return rig
