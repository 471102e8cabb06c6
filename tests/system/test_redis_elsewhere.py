"""Redis where it moves: behind Sentinels, and as a cluster. Real servers, and a failover in the middle of the work."""

import contextlib
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.crc import key_slot
from rig import RedisServer, Rig, Worker, deployment, free_port, params, wait_until

from worker.client import Producer
from worker.connections import open_client
from worker.core.access import passwords_in
from worker.ledger.store import LedgerRefusedError, Store

COUNT = 400
PREFIX = "{mill}:"
SLOTS = 16_384
BUS = 10_000
"""Nodes meet on ports so far below their own: above, where they would by themselves, others take ports."""


@contextmanager
def server(directory: Path, *words: str) -> Iterator[RedisServer]:
    """A server that runs."""
    started = RedisServer(directory, *words)
    if "--cluster-enabled" in words:
        started._words += ["--cluster-port", str(started.port - BUS)]
    started.start()
    try:
        yield started
    finally:
        started.close()


@contextmanager
def sentinel(directory: Path, master: RedisServer, *lines: str) -> Iterator[int]:
    """A Sentinel that watches over a master called mymaster; yields its port."""
    directory.mkdir()
    port = free_port()
    file = directory / "sentinel.conf"
    file.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {directory}\n"
        f"sentinel monitor mymaster 127.0.0.1 {master.port} 1\n"
        "sentinel down-after-milliseconds mymaster 1000\nsentinel failover-timeout mymaster 5000\n"
        + "".join(f"{line}\n" for line in lines)
    )
    with subprocess.Popen([master._words[0], str(file), "--sentinel"], stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: reaches(port), description="the Sentinel answers")
            yield port
        finally:
            process.kill()


def reaches(port: int) -> bool:
    """Whether somebody listens on a port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def ask(server: RedisServer, *words: Any) -> Any:
    """Send a command that redis-py has no method for."""
    client: Any = server.client
    return client.execute_command(*words)


def role(of: RedisServer) -> str:
    """Return master or slave, or nothing for one that does not answer."""
    try:
        answer = ask(of, "ROLE")
    except redis.RedisError:
        return ""
    return str(answer[0].decode())


def work(rig: Rig, url: str, prefix: str) -> tuple[Worker, list[str]]:
    """Start a worker, send it prompts, and wait until the first rows are there."""
    worker = rig.start(env={"REDIS_URL": url}, redis__prefix=prefix, lanes__default__max_count="20")
    names = [f"p-{number}" for number in range(COUNT)]
    with Producer(url, prefix=prefix) as producer:
        producer.enqueue_many({"params": params(), "id": name} for name in names)
    rig.await_rows(1)
    return worker, names


def finish(rig: Rig, worker: Worker, names: list[str], client: Any, stream: str) -> None:
    """Wait for the rest: every prompt once."""
    rig.await_rows(len(names), timeout=90)
    wait_until(lambda: client.xlen(stream) == 0, description="all is settled", timeout=60)
    rig.assert_exact(names)
    assert worker.stop() == 0


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_master_that_sentinels_name_is_followed_through_a_failover(tmp_path: Path) -> None:
    """The worker is told of Sentinels only; the old master is killed while batches are under way."""
    with ExitStack() as stack:
        master = stack.enter_context(server(tmp_path / "a"))
        replica = stack.enter_context(server(tmp_path / "b", "--replicaof", f"127.0.0.1 {master.port}"))
        port = stack.enter_context(sentinel(tmp_path / "s", master))
        watcher: Any = redis.Redis(port=port, decode_responses=True)
        wait_until(lambda: int(watcher.sentinel_master("mymaster")["num-slaves"]) == 1, description="both are known")
        rig = stack.enter_context(deployment(tmp_path / "rig"))
        url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{port}/mymaster/0"
        worker, names = work(rig, url, "batchmill:")
        master.client.wait(1, 2000)
        master.close()
        wait_until(lambda: role(replica) == "master", description="the replica is the master", timeout=30)
        finish(rig, worker, names, replica.client, "batchmill:{default}:prompts")


@contextmanager
def cluster(directory: Path) -> Iterator[list[RedisServer]]:
    """Three nodes that share the slots, and a replica of the one that has ours, which comes first."""
    words = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1500", "--cluster-replica-validity-factor", "0")
    with ExitStack() as stack:
        nodes = [stack.enter_context(server(directory / f"node{number}", *words)) for number in range(4)]
        third = SLOTS // 3 + 1
        for at, node in enumerate(nodes[:3]):
            ask(node, "CLUSTER ADDSLOTSRANGE", at * third, min(SLOTS, (at + 1) * third) - 1)
        for node in nodes[1:]:
            ask(node, "CLUSTER MEET", "127.0.0.1", nodes[0].port, nodes[0].port - BUS)
        home = nodes[key_slot(PREFIX.encode()) // third]
        name = ask(home, "CLUSTER MYID")
        wait_until(lambda: all(knows(node) == 4 for node in nodes), description="they know each other")
        ask(nodes[3], "CLUSTER REPLICATE", name)
        wait_until(lambda: ok(home) and role(nodes[3]) == "slave", description="the cluster is whole")
        wait_until(lambda: home.client.info("replication")["connected_slaves"] == 1, description="it follows")
        yield [home, *(node for node in nodes if node is not home)]


def knows(node: RedisServer) -> int:
    """Return how many nodes a node knows."""
    return int(facts(node)["cluster_known_nodes"])


def ok(node: RedisServer) -> bool:
    """Whether a node takes commands."""
    return facts(node)["cluster_state"] == "ok"


def facts(node: RedisServer) -> dict[str, str]:
    """Return what a node says about its cluster."""
    told = ask(node, "CLUSTER INFO")
    if isinstance(told, bytes):
        return dict(line.split(":", 1) for line in told.decode().split())
    return {str(key): str(value) for key, value in told.items()}


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_deployment_lives_on_one_node_of_a_cluster_and_follows_it(tmp_path: Path) -> None:
    """Its prefix has a hash tag. The node that has the slot is killed, its replica takes over."""
    with cluster(tmp_path) as (home, *others), deployment(tmp_path / "rig") as rig:
        url = f"redis+cluster://127.0.0.1:1,127.0.0.1:{others[0].port}"
        worker, names = work(rig, url, PREFIX)
        home.client.wait(1, 2000)
        home.close()
        (heir,) = (node for node in others if role(node) == "slave")
        wait_until(lambda: role(heir) == "master" and ok(heir), description="the heir has the slots", timeout=60)
        finish(rig, worker, names, heir.client, f"{PREFIX}{{default}}:prompts")


@pytest.mark.slow
def test_a_prefix_without_a_hash_tag_is_refused_by_a_cluster(tmp_path: Path) -> None:
    """Its keys would lie on several nodes: the error says what the prefix has to look like."""
    with cluster(tmp_path) as (home, *_), deployment(tmp_path / "rig") as rig:
        worker = rig.spawn(env={"REDIS_URL": home.url})
        assert worker.process.wait(30) not in (0, None)
        assert re.search(r"all of its keys in one slot.*hash tag", worker.tail(), re.DOTALL)


@contextmanager
def deaf() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_who_does_not_answer_is_asked_once_and_then_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that is switched off costs one wait, not one for each connection and each of ten retries."""
    monkeypatch.setattr("worker.connections.ASK_SECONDS", 0.3)
    with cluster(tmp_path) as (home, *_), deaf() as silent:
        client = open_client(f"redis+cluster://127.0.0.1:{silent},127.0.0.1:{home.port}", prefix=PREFIX)
        began = time.monotonic()
        assert client.ping()
        assert time.monotonic() - began < 2
        found: Any = client.connection_pool.connection_kwargs["home"]
        assert found._addresses[0] == ("127.0.0.1", home.port)
        assert {port for _, port in found._addresses} > {silent, home.port}
        client.close()


def test_what_the_lookup_is_refused_is_told_as_such(tmp_path: Path) -> None:
    """A wrong password, a server that is in no cluster: neither is a trouble of the network."""
    with server(tmp_path / "a") as alone:
        alone.client.config_set("requirepass", "right")
        for password in ("wrong", "right"):
            store = Store.connect(f"redis+cluster://:{password}@127.0.0.1:{alone.port}", PREFIX)
            with pytest.raises(LedgerRefusedError):
                store.now()
            store.close()


def test_sentinels_have_a_password_of_their_own(tmp_path: Path) -> None:
    """It is not the server's."""
    with server(tmp_path / "a") as master, sentinel(tmp_path / "s", master, "requirepass watcher") as port:
        url = f"redis+sentinel://127.0.0.1:{port}/mymaster"
        store = Store.connect(f"{url}?sentinel_password=watcher", "batchmill:")
        assert store.read("ping")
        store.close()
        closed = Store.connect(url, "batchmill:")
        with pytest.raises(LedgerRefusedError):
            closed.read("ping")
        closed.close()
        assert passwords_in(f"{url}?sentinel_password=watcher") == ["watcher"]


def test_a_producer_hears_what_its_prefix_lacks() -> None:
    """Before anything is sent."""
    with pytest.raises(LedgerRefusedError, match="many slots"):
        Producer("redis+cluster://127.0.0.1:1")


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("redis+cluster://", "a host is missing"),
        ("redis+sentinel://a,,b/mymaster", "a host is missing"),
        ("redis+sentinel://a:26379,b:26379", "the master's name is missing"),
        ("redis+sentry://a", "redis\\+sentry is no scheme"),
        ("unix+cluster://a", "unix\\+cluster is no scheme"),
    ],
)
def test_an_address_that_leads_nowhere_says_why(url: str, complaint: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ValueError, match=complaint):
        open_client(url, prefix="batchmill:")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis+sentinel://u:p%40w@s1:26379,s2/mymaster/3", {"username": "u", "password": "p@w", "db": 3}),
        ("redis+cluster://n1:6379?password=x", {"password": "x"}),
        ("redis+cluster://:x@[::1]:7000,n2/0?socket_timeout=3", {"password": "x", "socket_timeout": 3.0}),
    ],
)
def test_an_address_says_the_same_as_that_of_a_single_server(url: str, told: dict[str, object]) -> None:
    """User, password, database and options; hosts are only where to ask."""
    settings = open_client(url, prefix=PREFIX).connection_pool.connection_kwargs
    assert {name: settings.get(name) for name in told} == told
    assert "host" not in settings
