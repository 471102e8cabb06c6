import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from worker.broker import HEARTBEAT_MS, KnockBroker

QUEUE = "submit"
KNOCKS = "batchmill:{knocks}:"


@pytest.fixture
def broker(server: str) -> Iterator[KnockBroker]:
    """A broker on a Redis without any knocks yet."""
    with redis.Redis.from_url(server) as client:
        client.flushall()
    broker = KnockBroker(url=server, prefix="batchmill:")
    broker.declare_queue(QUEUE)
    yield broker
    broker.close()


def fetch(broker: KnockBroker, *names: str) -> None:
    """Let knocks be sent and fetched, and the reply be lost."""
    dispatch: Any = broker
    for name in names:
        dispatch.do_enqueue(QUEUE, name, b"{}")
    assert len(dispatch.do_fetch(QUEUE, len(names))) == len(names)


def left(broker: KnockBroker) -> set[str]:
    """Return the keys of knocks, without the one that tells who is alive."""
    client: Any = broker.client
    return {key.decode().removeprefix(KNOCKS) for key in client.keys("*")} - {"__heartbeats__"}


def test_a_knock_whose_reply_was_lost_is_forgotten_at_the_second_look(broker: KnockBroker) -> None:
    """Nobody will acknowledge it, and a process may live for months; a fresh one is left alone."""
    fetch(broker, "lost")
    broker.tidy()
    fetch(broker, "fresh")
    broker.tidy()
    acks = f"{KNOCKS}__acks__.{broker.broker_id}.{QUEUE}"
    assert broker.client.smembers(acks) == {b"fresh"}
    assert broker.client.hkeys(f"{KNOCKS}{QUEUE}.msgs") == [b"fresh"]
    broker.tidy()
    assert left(broker) == set()


def test_a_knock_that_nobody_has_fetched_is_kept(broker: KnockBroker) -> None:
    """However often somebody looks."""
    dispatch: Any = broker
    dispatch.do_enqueue(QUEUE, "waits", b"{}")
    for _ in range(3):
        broker.tidy()
    assert broker.backlog(QUEUE) == 1
    assert dispatch.do_fetch(QUEUE, 1) == [b"{}"]


def test_the_acknowledgement_of_a_forgotten_knock_does_nothing(broker: KnockBroker) -> None:
    """A step may take longer than two looks; its knock is not put back either when the process ends."""
    dispatch: Any = broker
    fetch(broker, "slow", "slower")
    broker.tidy()
    broker.tidy()
    dispatch.do_ack(QUEUE, "slow")
    dispatch.do_requeue(QUEUE, "slower")
    assert left(broker) == set()


def test_looking_where_nothing_waits_is_one_command_and_the_worker_stays_alive(
    broker: KnockBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four queues look for ever, in every replica; each write of a heartbeat goes into the append-only file, too."""
    client: Any = broker.client
    now = 1000.0
    monkeypatch.setattr("worker.broker.time.monotonic", lambda: now)
    broker.do_fetch(QUEUE, 1)
    client.config_resetstat()
    for _ in range(10):
        assert broker.do_fetch(QUEUE, 1) == []
    counted = {name: used["calls"] for name, used in client.info("commandstats").items()}
    assert counted == {"cmdstat_llen": 10, "cmdstat_config|resetstat": 1}
    beaten_at = client.zscore(f"{KNOCKS}__heartbeats__", broker.broker_id)
    time.sleep(0.01)
    now += HEARTBEAT_MS / 1000
    broker.do_fetch(QUEUE, 1)
    assert client.zscore(f"{KNOCKS}__heartbeats__", broker.broker_id) > beaten_at
