"""Reaching the ledger from a command: where Redis is, which lanes there are, and how to say that it is gone."""

import argparse
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from worker.cli.settings import EX_CONFIG, EX_FAILED, EX_UNAVAILABLE, complain, read_config

if TYPE_CHECKING:
    from worker.config import Config
    from worker.core.figures import Figures
    from worker.ledger.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Reached:
    """The settings and the ledger that a command works with."""

    config: "Config"
    ledger: "Ledger"

    def lanes(self, wanted: str | None = None) -> list[str]:
        """Return all lanes, or the one that is wanted; ends the command when there is no such lane."""
        deployment = self.ledger.deployment
        known = sorted({*deployment.lanes(), *self.config.lanes})
        if wanted is None:
            return known
        if wanted not in known:
            if not self.ledger.store.read("exists", self.ledger.store.keys.prompts(wanted)):
                stop(f"there is no lane {wanted}; there are {', '.join(known)}")
            deployment.register_lanes([wanted])  # made by a plain XADD, and not discovered yet
        return [wanted]

    def figures(self, lanes: list[str] | None = None) -> "Figures":
        """Read what `status` and `top` show."""
        lanes = self.lanes() if lanes is None else lanes
        return self.ledger.reads.figures(lanes, {lane: self.config.lane(lane).sinks for lane in lanes})


def need_config(args: argparse.Namespace) -> "Config":
    """Read the configuration, or end the command."""
    config = read_config(args)
    if config is None:
        raise SystemExit(EX_CONFIG)
    return config


@contextlib.contextmanager
def reach(args: argparse.Namespace) -> Iterator[Reached]:
    """Open the ledger that the configuration names; trouble with Redis in the block ends the command."""
    from worker.ledger.ledger import Ledger
    from worker.ledger.store import Store

    config = need_config(args)
    url = find_url(config)
    with trouble_told(url):
        store = Store.connect(url, config.redis.prefix, access=config.redis.access)
        try:
            yield Reached(config, Ledger.over(store))
        finally:
            store.close()


@contextlib.contextmanager
def trouble_told(url: str) -> Iterator[None]:
    """End the command when Redis is away, unfit or full."""
    from worker.config import redact_url
    from worker.ledger.store import LedgerFullError, LedgerRefusedError, LedgerUnavailableError

    try:
        yield
    except LedgerRefusedError as error:
        stop(f"{error}: {redact_url(url)}{'; ' if error.hint else ''}{error.hint}", EX_UNAVAILABLE)
    except LedgerUnavailableError as error:
        stop(f"{error}: {redact_url(url)}", EX_UNAVAILABLE)
    except LedgerFullError as error:
        stop(str(error))


def find_url(config: "Config") -> str:
    """Return the URL that is configured, else that of the running embedded server; without either, end the command."""
    if config.redis.url:
        return config.redis.url
    running = running_embedded(config)
    if running is None:
        stop(
            f"no Redis: redis.url is empty, and no embedded server runs in {config.redis.directory}; "
            "start `batchmill run` in this folder, or set REDIS_URL",
            EX_UNAVAILABLE,
        )
    return running


def running_embedded(config: "Config") -> str | None:
    """Return the URL of the embedded server that runs in the configured directory."""
    from worker.embedded.locks import is_locked
    from worker.embedded.server import SERVER_LOCK
    from worker.embedded.state import read_state

    directory = Path(config.redis.directory).absolute()
    running = read_state(directory)
    try:
        alive = running is not None and is_locked(directory / SERVER_LOCK)
    except OSError:
        alive = False
    return running.url if running is not None and alive else None


def stop(text: str, status: int = EX_FAILED) -> NoReturn:
    """End the command with a sentence on stderr."""
    raise SystemExit(complain(text, status))
