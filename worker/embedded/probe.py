"""Whether a server answers."""

from enum import Enum, auto

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError
from redis.retry import Retry


class Look(Enum):
    """How a server answers a PING."""

    READY = auto()
    LOADING = auto()
    SILENT = auto()


def look(url: str) -> Look:
    """Ask the server behind `url` once, for at most a second or two."""
    try:
        with connect(url) as client:
            client.ping()
    except BusyLoadingError:
        return Look.LOADING
    except RedisError:
        return Look.SILENT
    return Look.READY


def connect(url: str) -> Redis:
    """Return a client that tries everything once and waits a second."""
    return Redis.from_url(url, socket_timeout=1.0, socket_connect_timeout=1.0, retry=Retry(NoBackoff(), 0))
