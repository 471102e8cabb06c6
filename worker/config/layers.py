"""The places settings come from, each read into one flat mapping from key path to what was written there.

Only what somebody *set* is in a layer, never a default: laid over each other, no default can hide a setting.
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from worker.config.schema import API_KEY, KeyPath

PREFIX = "BATCHMILL_"
NAMED_TABLES = ("lanes", "sinks")
BELOW_OWN = {
    "REDIS_URL": ("redis", "url"),
    "ANTHROPIC_API_KEY": API_KEY,
    "ANTHROPIC_BASE_URL": ("anthropic", "base_url"),
}
ABOVE_OWN = {"PORT": ("http", "port")}  # platforms hand out the port: it wins over what an image was built with

# Kubernetes describes every Service of the namespace in variables of each pod; one called "batchmill" looks like us.
_KUBERNETES = re.compile(
    r"BATCHMILL_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a setting was found, and how its key is spelled there."""

    name: str
    spell: Callable[[KeyPath], str]


@dataclass(frozen=True, slots=True)
class Found:
    """A value as it was written. `key` is its name at the place where it was found."""

    value: object
    source: Source
    key: str


Layer = dict[KeyPath, Found]


def dotted(path: KeyPath) -> str:
    """Spell a key path as TOML does: `lanes."eu.bulk".max_count`."""
    return ".".join(part if re.fullmatch(r"[A-Za-z0-9_*-]+", part) else f'"{part}"' for part in path)


def variable(path: KeyPath) -> str:
    """Spell a key path as an environment variable: `BATCHMILL_POLL__INTERVAL`."""
    return PREFIX + "__".join(path).upper()


ENVIRONMENT = Source("environment", variable)
COMMAND_LINE = Source("command line", dotted)


def from_toml(text: str, name: str) -> Layer:
    """Read the text of a TOML file called `name`. Raises `tomllib.TOMLDecodeError`."""
    source = Source(name, dotted)
    return {path: Found(value, source, dotted(path)) for path, value in _leaves(tomllib.loads(text), ())}


def _leaves(table: Mapping[str, object], prefix: KeyPath) -> Iterator[tuple[KeyPath, object]]:
    for key, value in table.items():
        path = (*prefix, key)
        if isinstance(value, dict) and value:
            yield from _leaves(value, path)
        else:
            yield path, value


def from_environment(environ: Mapping[str, str]) -> Layer:
    """Read the environment: our own variables over the ones everybody sets, `PORT` over all."""
    layer: Layer = {}
    own = [name for name in environ if name.startswith(PREFIX) and not _is_foreign(name, environ[name])]
    # An empty general variable is what compose files make of one that is not set; ours may empty a setting on purpose.
    for names in (
        {name: path for name, path in BELOW_OWN.items() if environ.get(name)},
        {name: _split(name.removeprefix(PREFIX).lower(), "__") for name in own},
        {name: path for name, path in ABOVE_OWN.items() if environ.get(name)},
    ):
        layer |= {path: Found(environ[name], ENVIRONMENT, name) for name, path in names.items()}
    return layer


def _is_foreign(name: str, value: str) -> bool:
    if name == f"{PREFIX}CONFIG":
        return True
    if name == f"{PREFIX}PORT":
        return "://" in value
    return "__" not in name and _KUBERNETES.fullmatch(name) is not None


def from_overrides(overrides: Mapping[str, str]) -> Layer:
    """Read what the command line set: dotted keys such as `http.port`."""
    return {_split(key, "."): Found(value, COMMAND_LINE, key) for key, value in overrides.items()}


def _split(key: str, separator: str) -> KeyPath:
    parts = key.split(separator)
    if parts[0] in NAMED_TABLES and len(parts) > 3:  # noqa: PLR2004  # table, name, setting: a name may hold the rest
        return (parts[0], separator.join(parts[1:-1]), parts[-1])
    return tuple(parts)
