"""How `redis.url` becomes a client: of one server, of the master that Sentinels name, or of one node of a cluster.

Where master or node are is asked anew for every connection, so that after a failover the next one leads to where the
data is. A connection whose server says that it no longer is the one is closed, and counts as lost.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.connection import parse_url
from redis.crc import key_slot
from redis.sentinel import Sentinel

Address = tuple[str, int]
Find = Callable[[], Address]

SENTINEL_PORT, CLUSTER_PORT = 26_379, 6379
ASK_SECONDS = 2.0


def open_client(url: str, *, prefix: str, **options: Any) -> "redis.Redis":
    """Make a client; nothing is sent yet. `options` are those of redis-py's `from_url`. Raises ValueError.

    Besides redis-py's own URLs (`redis://`, `rediss://`, `unix://`) there are `redis+sentinel://a:26379,b:26379/name/0`
    and `redis+cluster://a:6379,b:6379`, both with `rediss` too; in a cluster, all keys that begin with `prefix` must be
    in one slot.
    """
    scheme, _, rest = url.partition("://")
    speaks, plus, kind = scheme.partition("+")
    if not plus:
        return redis.Redis.from_url(url, **options)
    if speaks not in ("redis", "rediss") or kind not in ("sentinel", "cluster"):
        raise ValueError(f"{scheme} is no scheme of Redis")
    rest, mark, query = rest.partition("?")
    where, _, path = rest.partition("/")
    credentials, at, hosts = where.rpartition("@")
    name, _, path = path.partition("/") if kind == "sentinel" else ("", "", path)
    told = parse_url(f"{speaks}://{credentials}{at}server/{path}{mark}{query}")  # type: ignore[no-untyped-call] # redis-py gives no type
    told.pop("connection_class", None)
    told.pop("host", None)
    settings = options | told
    if kind == "sentinel":
        find = _ask_sentinels(list(_addresses(hosts, SENTINEL_PORT)), name)
    else:
        find = _ask_nodes(list(_addresses(hosts, CLUSTER_PORT)), key_slot(prefix.encode()), settings, speaks)
    connection = HomingTlsConnection if speaks == "rediss" else HomingConnection
    pool = redis.ConnectionPool(connection_class=connection, find=find, **settings)
    return redis.Redis.from_pool(pool)


class HomingConnection(redis.Connection):
    """A connection that asks where it has to go each time it is opened."""

    def __init__(self, *, find: Find, **options: Any) -> None:
        self._find = find
        super().__init__(**options)  # type: ignore[no-untyped-call] # redis-py gives no type

    def _connect(self) -> Any:
        self.host, self.port = self._find()
        return super()._connect()  # type: ignore[no-untyped-call] # redis-py gives no type

    def read_response(self, *args: Any, **options: Any) -> Any:
        """Raise ConnectionError where the server has handed its part over to another."""
        try:
            return super().read_response(*args, **options)
        except (redis.ReadOnlyError, redis.exceptions.MovedError) as error:
            self.disconnect()  # type: ignore[no-untyped-call] # redis-py gives no type
            raise redis.ConnectionError("the data has moved to another server") from error


class HomingTlsConnection(HomingConnection, redis.SSLConnection):
    """The same, in TLS."""


def _addresses(hosts: str, port: int) -> Iterator[Address]:
    for host in hosts.split(","):
        parts = urlsplit(f"//{host}")
        if not parts.hostname:
            raise ValueError("a host is missing")
        yield parts.hostname, parts.port or port


def _ask_sentinels(sentinels: list[Address], name: str) -> Find:
    if not name:
        raise ValueError("the master's name is missing behind the Sentinels")
    watchers: Any = Sentinel(sentinels, socket_timeout=ASK_SECONDS, socket_connect_timeout=ASK_SECONDS)  # type: ignore[no-untyped-call] # redis-py gives no type

    def find() -> Address:
        host, port = watchers.discover_master(name)
        return str(host), int(port)

    return find


def _ask_nodes(seeds: list[Address], slot: int, settings: dict[str, Any], speaks: str) -> Find:
    """Ask the nodes of a cluster, those that were named first and all that were heard of since."""
    nodes = dict.fromkeys(seeds)
    kept = {name: value for name, value in settings.items() if name in ("username", "password") or name[:4] == "ssl_"}

    def find() -> Address:
        for address in list(nodes):
            with contextlib.suppress(redis.RedisError):
                for first, last, master, *replicas in _slots(address):
                    nodes.update(dict.fromkeys(_node(one, address) for one in (master, *replicas)))
                    if first <= slot <= last:
                        return _node(master, address)
        raise redis.ConnectionError("no node of the cluster says where our slot is")

    def _slots(address: Address) -> list[Any]:
        host, port = address
        asked: Any = redis.Redis(
            host=host,
            port=port,
            ssl=speaks == "rediss",
            socket_timeout=ASK_SECONDS,
            socket_connect_timeout=ASK_SECONDS,
            **kept,
        )
        with asked:
            asked.set_response_callback("CLUSTER SLOTS", lambda answer, **_: answer)
            return list(asked.execute_command("CLUSTER SLOTS"))

    return find


def _node(told: Any, asked: Address) -> Address:
    """Read one node of CLUSTER SLOTS; one that does not know its own name has the one it was asked by."""
    host, port = told[0], told[1]
    return (host.decode() if isinstance(host, bytes) else host) or asked[0], int(port)
