"""From files, environment and command line to one frozen `Config`, or to the list of all that is wrong."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from worker.config.certificates import unusable_files
from worker.config.credentials import named, read_credentials, stands
from worker.config.layers import (
    ENVIRONMENT,
    NAMED_TABLES,
    Found,
    Layer,
    dotted,
    from_environment,
    from_overrides,
    from_toml,
)
from worker.config.model import DEFAULT_LANE, DEFAULT_SINK, NAME, Config
from worker.config.rules import violations
from worker.config.schema import ANY_NAME, API_KEY, KeyPath, Setting, assemble, known_settings

LOCAL_FILE = Path("config", "batchmill.toml")
SYSTEM_FILE = Path("/etc/batchmill/batchmill.toml")

_SETTINGS = dict(known_settings(Config))
_KEY_ELSEWHERE = "does not belong here: set ANTHROPIC_API_KEY, or name a file that holds it in anthropic.api_key_file"


class ConfigError(Exception):
    """The configuration cannot be used. `problems` is everything that is wrong with it, one sentence each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def load_config(
    *, path: str | None, environ: Mapping[str, str], cwd: Path, overrides: Mapping[str, str] | None = None
) -> Config:
    """Read the configuration; a setting's value is that of the command line, else environment, else file, else default.

    `path` is what `--config` said; relative paths start at `cwd`. `overrides` are dotted keys set by flags.
    Raises `ConfigError`, which names every problem at once and quotes no secret.
    """
    problems: list[str] = []
    file = _read_file(path, environ, cwd, problems)
    layer = file | from_environment(environ) | from_overrides(overrides or {})
    values = _parse(layer, problems)
    if API_KEY in file and layer[API_KEY] is not file[API_KEY]:
        # the environment's key wins, and the one in the file would lie there unnoticed
        problems += _parse_alone(API_KEY, file[API_KEY])
    values |= read_credentials(values, environ, cwd, problems)
    values |= {("lanes", DEFAULT_LANE): None, ("sinks", DEFAULT_SINK): None}
    config = _without_idle_default_sink(assemble(Config, values), layer)
    if not problems:  # rules between settings make no sense while some of them are unread
        problems += violations(config)
        problems += unusable_files(config.redis, cwd)
    if problems:
        raise ConfigError(problems)
    return config


def find_config(*, path: str | None, environ: Mapping[str, str], cwd: Path) -> Path | None:
    """Return the file `load_config` reads, or None if it runs on defaults. A file asked for by name may be missing."""
    if asked := path or environ.get("BATCHMILL_CONFIG"):
        return cwd / asked
    return next((file for file in (cwd / LOCAL_FILE, SYSTEM_FILE) if stands(file)), None)


def _read_file(path: str | None, environ: Mapping[str, str], cwd: Path, problems: list[str]) -> Layer:
    file = find_config(path=path, environ=environ, cwd=cwd)
    if file is None:
        return {}
    try:
        return from_toml(file.read_text(encoding="utf-8"), named(file, cwd))
    except tomllib.TOMLDecodeError as error:
        problems.append(f"{named(file, cwd)}: is not valid TOML: {error}")
    except UnicodeDecodeError:
        problems.append(f"{named(file, cwd)}: is not UTF-8")
    except RecursionError:
        problems.append(f"{named(file, cwd)}: is nested too deeply")
    except ValueError:
        problems.append(f"{named(file, cwd)}: holds a number of too many digits")
    except OSError as error:
        problems.append(f"{named(file, cwd)}: cannot be read: {error.strerror}")
    return {}


def _parse(layer: Layer, problems: list[str]) -> dict[KeyPath, Any]:
    values: dict[KeyPath, Any] = {}
    for path, found in layer.items():
        known = _SETTINGS.get(_pattern(path))
        complaint = _misplaced(path, known, found)
        if not complaint and known:
            try:
                values[path] = known.parse(found.value)
            except ValueError as error:
                complaint = str(error)
        elif not complaint:
            values[path] = None  # an empty [lanes.NAME]: the name alone counts
        if complaint:
            problems.append(f"{found.source.name}: {found.key} {complaint}")
    return values


def _parse_alone(path: KeyPath, found: Found) -> list[str]:
    problems: list[str] = []
    _parse({path: found}, problems)
    return problems


def _pattern(path: KeyPath) -> KeyPath:
    if path[0] in NAMED_TABLES and len(path) > 1:
        return (path[0], ANY_NAME, *path[2:])
    return path


def _misplaced(path: KeyPath, known: Setting | None, found: Found) -> str:
    """Say why this key may not stand here; empty if it may."""
    if path == API_KEY and found.source is not ENVIRONMENT:
        return _KEY_ELSEWHERE
    if path[0] in NAMED_TABLES and len(path) > 1 and not re.fullmatch(NAME, path[1]):
        return f"is misnamed: the names of {path[0]} match ^{NAME}$"
    if known:
        return ""
    pattern = _pattern(path)
    if any(setting[: len(pattern)] == pattern for setting in _SETTINGS):
        return "" if found.value == {} else "is a table of settings, not a value"
    return f"is not a setting; did you mean {_nearest(path, found)}?"


def _nearest(path: KeyPath, found: Found) -> str:
    name = path[1] if path[0] in NAMED_TABLES and len(path) > 1 else DEFAULT_LANE
    candidates = {}
    for setting in _SETTINGS:
        if setting != API_KEY or found.source is ENVIRONMENT:
            place = tuple(name if part == ANY_NAME else part for part in setting)
            candidates[dotted(place)] = place
    return found.source.spell(candidates[get_close_matches(dotted(path), candidates, n=1, cutoff=0.0)[0]])


def _without_idle_default_sink(config: Config, layer: Layer) -> Config:
    """Leave the default sink out if nobody asked for it: it would be tried and listed, and make a folder."""
    written = any(path[:2] == ("sinks", DEFAULT_SINK) for path in layer)
    used = any(DEFAULT_SINK in lane.sinks for lane in config.lanes.values())
    if written or used:
        return config
    return replace(config, sinks={name: sink for name, sink in config.sinks.items() if name != DEFAULT_SINK})
