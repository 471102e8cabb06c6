"""What the owner of a server leaves in the directory for those who adopt it."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

_STATE = "server.json"


@dataclass(frozen=True, slots=True)
class Running:
    """What the owner leaves for adopters; `birth` tells this server from any other in the same directory."""

    url: str
    pid: int
    birth: str


def read_state(directory: Path) -> Running | None:
    """Return the server that was last started in `directory` and not stopped; it may be dead."""
    try:
        return Running(**json.loads((directory / _STATE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def write_state(directory: Path, running: Running) -> None:
    """Announce a server to adopters. Raises OSError."""
    write_private(directory / _STATE, json.dumps(asdict(running)))


def clear_state(directory: Path) -> None:
    """Withdraw the announcement, if there is one. Raises OSError."""
    (directory / _STATE).unlink(missing_ok=True)


def write_private(path: Path, text: str) -> None:
    """Replace a file that only its owner may read: a URL may hold a password."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)
