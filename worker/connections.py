"""How `redis.url` becomes a client: of one server, of the master that Sentinels name, or of one node of a cluster.

Where master or node are is asked anew for every connection, so that after a failover the next one leads to where the
data is. A connection whose server says that it no longer is the one is closed, and counts as lost.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.crc import key_slot
from redis.retry import Retry

Address = tuple[str, int]
Answer = tuple[Address | None, Iterable[Address]]
"""Where the data is, if that is known, and who else may be asked."""

SENTINEL_PORT, CLUSTER_PORT = 26_379, 6379
ASK_SECONDS = 2.0


def open_client(url: str, *, prefix: str, **options: Any) -> "redis.Redis":
    """Make a client; nothing is sent yet. `options` are those of redis-py's `from_url`. Raises ValueError.

    Besides redis-py's own URLs (`redis://`, `rediss://`, `unix://`) there are `redis+sentinel://a:26379,b:26379/name/0`
    and `redis+cluster://a:6379,b:6379`, both with `rediss` too, where everybody is asked in TLS. User and password are
    the server's; those of Sentinels are `?sentinel_username=` and `?sentinel_password=`. In a cluster, all keys that
    begin with `prefix` must be in one slot.
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
    watchers = {key: told.pop(f"sentinel_{key}", None) for key in ("username", "password")}
    settings = options | told
    tls = {key: value for key, value in settings.items() if key.startswith("ssl_")} if speaks == "rediss" else {}
    tls |= {"ssl": speaks == "rediss"}
    if kind == "sentinel":
        if not name:
            raise ValueError("the master's name is missing behind the Sentinels")
        home = Home(_addresses(hosts, SENTINEL_PORT), _ask_sentinel(unquote(name)), **tls, **watchers)
    else:
        login = {key: settings.get(key) for key in ("username", "password")}
        home = Home(_addresses(hosts, CLUSTER_PORT), _ask_node(key_slot(prefix.encode())), **tls, **login)
    connection = HomingTlsConnection if speaks == "rediss" else HomingConnection
    return redis.Redis.from_pool(redis.ConnectionPool(connection_class=connection, home=home, **settings))


class Home:
    """Where the data is, by asking one address after the other; who answered is asked first the next time."""

    def __init__(self, addresses: Iterable[Address], ask: Callable[[Any, Address], Answer], **access: Any) -> None:
        self._seeds = self._addresses = tuple(addresses)
        self._ask = ask
        self._access = access

    def find(self) -> Address:
        """Return the address. Raises redis-py's errors: what a server refuses at once, else who did not answer last."""
        failure: Exception = redis.ConnectionError("nobody says where the data is")
        for address in self._addresses:
            host, port = address
            client: Any = redis.Redis(
                host=host,
                port=port,
                socket_timeout=ASK_SECONDS,
                socket_connect_timeout=ASK_SECONDS,
                retry=Retry(NoBackoff(), 0),
                **self._access,
            )
            try:
                with client:
                    found, others = self._ask(client, address)
            except (redis.ConnectionError, redis.TimeoutError) as error:
                failure = error
                continue
            if found is not None:
                self._addresses = tuple(dict.fromkeys((address, *others, *self._seeds)))
                return found
        raise failure


class HomingConnection(redis.Connection):
    """A connection that asks where it has to go each time it is opened."""

    def __init__(self, *, home: Home, **options: Any) -> None:
        self._home = home
        super().__init__(**options)  # type: ignore[no-untyped-call] # redis-py gives no type

    def _connect(self) -> Any:
        self.host, self.port = self._home.find()
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


def _ask_sentinel(name: str) -> Callable[[Any, Address], Answer]:
    def ask(sentinel: Any, _: Address) -> Answer:
        answer = sentinel.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", name)
        return (_read_address(answer[0], answer[1]) if answer else None), ()

    return ask


def _ask_node(slot: int) -> Callable[[Any, Address], Answer]:
    def ask(node: Any, asked: Address) -> Answer:
        node.set_response_callback("CLUSTER SLOTS", lambda answer, **_: answer)
        home, nodes = None, []
        for first, last, *servers in node.execute_command("CLUSTER SLOTS"):
            # a node that does not know its own name has the one it was asked by
            master, *replicas = (_read_address(one[0] or asked[0], one[1]) for one in servers)
            nodes += [master, *replicas]
            if first <= slot <= last:
                home = master
        return home, nodes

    return ask


def _read_address(host: bytes | str, port: bytes | int) -> Address:
    return host.decode() if isinstance(host, bytes) else host, int(port)
