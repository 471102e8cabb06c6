"""What must hold between settings that are each fine by themselves."""

from collections.abc import Iterator
from difflib import get_close_matches

from worker.config.model import DEFAULT_SINK, Config, Redis
from worker.core.access import passwords_in, user_in

_CERTIFICATES = ("tls_ca_file", "tls_cert_file", "tls_key_file")
PATH_TYPES = ("file", "object", "parquet")  # the sinks that make one object per batch


def violations(config: Config) -> Iterator[str]:
    """Tell every rule that `config` breaks, as sentences that name the settings."""
    for name, lane in config.lanes.items():
        if not lane.sinks:
            yield f"lanes.{name}.sinks must name at least one sink: results would go nowhere"
        if len(set(lane.sinks)) < len(lane.sinks):
            yield f"lanes.{name}.sinks names a sink twice: every row would be written twice"
        for sink in dict.fromkeys(lane.sinks):
            if sink not in config.sinks:
                yield f"lanes.{name}.sinks names {sink!r}, but there is no [sinks.{sink}]{_nearest_sink(config, sink)}"
        if lane.max_count > config.anthropic.max_in_flight_requests:
            yield (
                f"lanes.{name}.max_count must not exceed anthropic.max_in_flight_requests: "
                "a full batch could never be submitted"
            )
    if config.tick >= config.lease:
        yield "tick must be shorter than lease: claims would expire before anyone looks at them"
    yield from _colliding_paths(config)
    yield from _ways_in(config.redis)


def _ways_in(redis: Redis) -> Iterator[str]:
    """Of two users or passwords one would lie unused, and nobody would know which."""
    idle = ("username", "password_file") if not redis.url else ()
    for name in (*idle, *(_CERTIFICATES if not redis.url.startswith("rediss") else ())):
        if getattr(redis, name):
            yield f"redis.{name} is of no use: " + (
                "redis.url begins with rediss where TLS is spoken"
                if redis.url
                else "the embedded server, which an empty redis.url starts, is open to its owner alone"
            )
    if not redis.url:
        return
    if redis.username and user_in(redis.url):
        yield "redis.username is set and redis.url names a user too: say it once"
    if redis.password and passwords_in(redis.url):
        yield "Redis has two passwords, one in redis.url and one in a file or credential: say it once"
    if redis.username and not (redis.password or passwords_in(redis.url)):
        yield "redis.username needs a password: name its file in redis.password_file, or use a credential"
    if redis.tls_key_file and not redis.tls_cert_file:
        yield "redis.tls_key_file needs redis.tls_cert_file, the certificate that the key is of"


def _colliding_paths(config: Config) -> Iterator[str]:
    taken: dict[tuple[str, str], str] = {}
    for name, sink in config.sinks.items():
        if sink.type not in PATH_TYPES:
            continue
        if "{batch}" not in sink.path:
            yield f"sinks.{name}.path must contain {{batch}}: each batch would overwrite the one before"
        other = taken.setdefault((sink.type, sink.path), name)
        if other != name:
            yield f"sinks.{name}.path is also that of sinks.{other}: they would overwrite each other"


def _nearest_sink(config: Config, name: str) -> str:
    nearest = get_close_matches(name, [*config.sinks, DEFAULT_SINK], n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
