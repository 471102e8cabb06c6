"""Remote batches of ours that no record owns, found by their tokens."""

from worker.batches_api import BatchesApi
from worker.clock import Clock
from worker.config import Config
from worker.core.custom_id import Token
from worker.core.model import RemoteBatch
from worker.ledger.ledger import Ledger
from worker.readings import look_for_token

OPEN_SECONDS = 25 * 3600.0
"""How long before Redis forgot it a batch may have been created and still be open: 24 h and some."""

CLOCK_DOUBT = 600.0
READING_SECONDS = 20.0
"""For so long tokens are read in one look: whoever looks is watched, and a shared workspace may hold thousands."""


class Strays:
    """Looks for them. A remote batch's token is read once."""

    def __init__(self, *, config: Config, ledger: Ledger, api: BatchesApi, clock: Clock, deployment: str) -> None:
        self._config = config
        self._ledger = ledger
        self._api = api
        self._clock = clock
        self._deployment = deployment
        self._tokens: dict[str, Token | None] = {}

    def look(self, since: float) -> list[tuple[Token, RemoteBatch]] | None:
        """Return those of the time around `since` (Unix seconds); None while one that may be ours has not ended.

        Also None when there are too many for one look: the next one goes on where this one ended. Raises ApiError's
        kinds: what could not be read proves nothing.
        """
        listing = self._api.newer_than(None, not_before=since - OPEN_SECONDS)
        late = since + self._config.submit.horizon + CLOCK_DOUBT
        listed = [remote for remote in listing.batches if remote.created_at <= late and remote.archived_at is None]
        owned = self._ledger.batches.owners([remote.id for remote in listed], self._ledger.deployment.lanes())
        self._tokens = {remote.id: self._tokens[remote.id] for remote in listed if remote.id in self._tokens}
        found: list[tuple[Token, RemoteBatch]] = []
        until = self._clock.monotonic() + READING_SECONDS
        for remote in listed:
            if remote.id in owned:
                continue
            if remote.status != "ended":
                return None
            if remote.id not in self._tokens:
                if self._clock.monotonic() > until:
                    return None
                self._tokens[remote.id] = look_for_token(self._api, remote, self._deployment)
            token = self._tokens[remote.id]
            if token is not None:
                found.append((token, remote))
        return found
