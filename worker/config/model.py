"""Every setting of batchmill, its range and its default: this file is the list, and mirrors the TOML.

Durations are seconds (`float`), sizes are bytes (`int`). An empty string means "not set".
`config/batchmill.toml` says what each setting is for; a test keeps the two alike.
"""

# ruff: noqa: RUF009  # `setting` and its kin run once, on purpose, and return dataclass fields

from collections.abc import Mapping
from dataclasses import dataclass, field

from worker.config.schema import named, section, setting
from worker.config.secret import Secret, secret
from worker.config.units import choice, count, duration, flag, size, template, text, words
from worker.core.access import RedisAccess

NAME = r"[a-z0-9][a-z0-9._-]{0,62}"  # of lanes and sinks: safe in a Redis key, a path and a metric label
DEFAULT_LANE = "default"
DEFAULT_SINK = "results"

_UNREAD = Secret("")
_REDIS_URL = text(
    r"|(rediss?(\+sentinel|\+cluster)?|unix)://\S+",
    "a URL that begins with redis://, redis+sentinel://, redis+cluster:// (rediss for TLS) or unix://, "
    "or empty for the embedded server",
)
_HTTP_URL = text(r"|https?://[^\s/]\S*", "a URL that begins with http:// or https://, or empty")
_FILE = text(r"[^\x00-\x1f]*", "the path of a file")


@dataclass(frozen=True, slots=True)
class Intake:
    """How much producers may leave in Redis."""

    dedupe_ttl: float = setting(duration("1s", "365d"), default="24h")
    max_bytes: int = setting(size("1kB", "16TB"), default="2GB")


@dataclass(frozen=True, slots=True)
class Redis:
    """Where prompts and batches live. The URL may hold a password: log `redact_url(url)`.

    `password` is read from its file or a credential and is no setting itself.
    """

    url: str = setting(_REDIS_URL, default="", shown=False)
    username: str = setting(text(r"\S*", "a name without blanks, or empty for the default user"), default="")
    password: Secret = field(default=_UNREAD)
    password_file: str = setting(_FILE, default="")
    tls_ca_file: str = setting(_FILE, default="")
    tls_cert_file: str = setting(_FILE, default="")
    tls_key_file: str = setting(_FILE, default="")
    prefix: str = setting(
        text(
            r"(\{[A-Za-z0-9._-]{1,32}\})?[A-Za-z0-9._:-]{1,64}",
            "1 to 64 letters, digits or any of . _ : -, behind a hash tag in braces if it is for a cluster",
        ),
        default="batchmill:",
    )
    barrier: str = setting(choice("auto", "waitaof", "appendfsync", "always", "none"), default="auto")
    directory: str = setting(text(r"[^\x00-\x1f]+", "the path of a directory"), default=".batchmill")
    max_memory: int = setting(size("16MB", "16TB"), default="3GB")

    @property
    def moves(self) -> bool:
        """Whether a replica, which may lag, takes the server's place one day."""
        return "+" in self.url.partition("://")[0]

    @property
    def access(self) -> RedisAccess:
        """How the server at `url` lets us in; the embedded one needs nothing of it."""
        if not self.url:
            return RedisAccess()
        return RedisAccess(
            username=self.username,
            password=self.password.reveal(),
            tls_ca_file=self.tls_ca_file,
            tls_cert_file=self.tls_cert_file,
            tls_key_file=self.tls_key_file,
        )


@dataclass(frozen=True, slots=True)
class Anthropic:
    """The account and its limits. `api_key` never stands in the file; it is empty if nobody gave one."""

    api_key: Secret = setting(secret, default="")
    api_key_file: str = setting(_FILE, default="")
    base_url: str = setting(_HTTP_URL, default="", shown=False)
    api_version: str = setting(text(r"\d{4}-\d{2}-\d{2}", "a date such as 2026-10-21"), default="2026-10-21")
    betas: tuple[str, ...] = setting(words(r"[A-Za-z0-9._-]+", "names of betas"), default=[])
    exclusive_workspace: bool = setting(flag, default=False)
    max_in_flight_requests: int = setting(count(1, 100_000_000), default=200_000)
    requests_per_minute: int = setting(count(1, 1_000_000), default=1000)


@dataclass(frozen=True, slots=True)
class Lane:
    """The limits of a lane and where its results go."""

    max_count: int = setting(count(1, 100_000), default=10_000)
    max_bytes: int = setting(size("1kB", "250MB"), default="200MB")
    max_age: float = setting(duration("0s", "30d"), default="5m")
    max_attempts: int = setting(count(1, 100), default=3)
    sinks: tuple[str, ...] = setting(words(NAME, "names of sinks"), default=[DEFAULT_SINK])


@dataclass(frozen=True, slots=True)
class Poll:
    """How open batches are looked at."""

    interval: float = setting(duration("10ms", "1h"), default="30s")
    delete_when_settled: bool = setting(flag, default=False)


@dataclass(frozen=True, slots=True)
class Submit:
    """How batches are handed over, and how long a doubt lasts."""

    timeout: float = setting(duration("100ms", "1h"), default="5m")
    horizon: float = setting(duration("0s", "24h"), default="30m")
    overload_horizon: float = setting(duration("0s", "24h"), default="1m")
    reconcile_interval: float = setting(duration("10ms", "1h"), default="30s")
    max_unposted: int = setting(count(1, 1000), default=8)


@dataclass(frozen=True, slots=True)
class Park:
    """What happens to a lane while the account is in trouble."""

    probe: float = setting(duration("10ms", "24h"), default="5m")


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """One sink. `path` is a template of {lane}, {date} and {batch}."""

    type: str = setting(
        choice("file", "stdout", "object", "postgres", "redis", "webhook", "kafka", "parquet"), default="file"
    )
    path: str = setting(template("lane", "date", "batch"), default="results/{lane}/{batch}.jsonl")
    compression: str = setting(choice("none", "gzip", "zstd"), default="none")


@dataclass(frozen=True, slots=True)
class Http:
    """Where the ops endpoints listen; port 0 takes any free one. `token` is read from its file or a credential."""

    bind: str = setting(text(r"[0-9A-Za-z.:_-]+", "an address or a host name"), default="127.0.0.1")
    port: int = setting(count(0, 65_535), default=9464)
    token: Secret = field(default=_UNREAD)
    token_file: str = setting(_FILE, default="")


@dataclass(frozen=True, slots=True)
class Log:
    """How the log looks and how much it says."""

    format: str = setting(choice("auto", "console", "json"), default="auto")
    level: str = setting(choice("debug", "info", "warning", "error"), default="info")


@dataclass(frozen=True, slots=True)
class Config:
    """All settings. `Config()` is what batchmill runs with when nobody sets anything."""

    shutdown_timeout: float = setting(duration("0s", "1h"), default="30s")
    retention: float = setting(duration("1s", "3650d"), default="7d")
    dead_retention: float = setting(duration("1s", "3650d"), default="30d")
    lease: float = setting(duration("100ms", "1h"), default="60s")
    tick: float = setting(duration("10ms", "1m"), default="1s")
    threads: int = setting(count(1, 64), default=8)
    intake: Intake = section(Intake)
    redis: Redis = section(Redis)
    anthropic: Anthropic = section(Anthropic)
    lanes: Mapping[str, Lane] = named(Lane, default=DEFAULT_LANE)
    poll: Poll = section(Poll)
    submit: Submit = section(Submit)
    park: Park = section(Park)
    sinks: Mapping[str, SinkSettings] = named(SinkSettings, default=DEFAULT_SINK)
    http: Http = section(Http)
    log: Log = section(Log)

    def lane(self, name: str) -> Lane:
        """Return the limits of lane `name`; one that nobody configured has those of `default`."""
        return self.lanes.get(name) or self.lanes[DEFAULT_LANE]
