"""Recovery: what Redis has forgotten is read back from the API, where nothing made it durable before it was posted.

A Redis without a durability barrier may come back without the intent, even without the seal, of a batch that was
posted. So nothing is sealed or posted in a lane until every remote batch that could be one of those has ended and
shown its token: at least the horizon, at worst a day. With a barrier none of this is needed.
"""

from collections.abc import Iterator

from worker.batches_api import ApiError, BatchesApi, Complaint, Truncated, Unavailable
from worker.clock import Clock
from worker.config import Config
from worker.core.custom_id import Token, decode, is_of_lane, spell_uid
from worker.core.entry_ids import order
from worker.core.grouping import Limits, Seal, Window
from worker.core.intake import Flaw, Unusable, read_prompt
from worker.core.model import Prompt, RemoteBatch, State, Trigger
from worker.core.rulings import read_line
from worker.ledger.ledger import Ledger
from worker.readings import first_token
from worker.telemetry import Telemetry

OPEN_SECONDS = 25 * 3600.0
"""How long before the restart a forgotten batch may have been created and still be open: 24 h and some."""

CLOCK_DOUBT = 600.0
LARGEST = Limits(max_count=100_000, max_bytes=1 << 40, max_age=0.0)
UNBOUNDED = 1_000_000
UID_BYTES = 10


class Recovery:
    """Finds remote batches of ours that the ledger does not know."""

    def __init__(
        self,
        *,
        config: Config,
        ledger: Ledger,
        api: BatchesApi,
        telemetry: Telemetry,
        clock: Clock,
        deployment: str,
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._api = api
        self._telemetry = telemetry
        self._clock = clock
        self._deployment = deployment
        self._tokens: dict[str, Token | None] = {}
        self._asked_at = float("-inf")

    def step(self, lane: str) -> bool:
        """Look once; True when the lane may go on."""
        since = self._ledger.lanes.past(lane).recovering_since
        if since is None or self._ledger.store.now() < since + self._config.submit.horizon:
            return False
        if self._clock.monotonic() < self._asked_at + self._config.submit.reconcile_interval:
            return False
        try:
            ours = self._unknown(since)
            if ours is None:
                self._asked_at = self._clock.monotonic()
                return False
            for token, remote in sorted(ours, key=lambda pair: order(pair[0].entry_id)):
                self._take_in(lane, token, remote)
        except ApiError:
            self._asked_at = self._clock.monotonic()
            return False
        return True

    def _unknown(self, since: float) -> list[tuple[Token, RemoteBatch]] | None:
        """Return remote batches of ours that no record owns; None while one that may be ours has not ended."""
        listing = self._api.newer_than(None, not_before=since - OPEN_SECONDS)
        late = since + self._config.submit.horizon + CLOCK_DOUBT
        listed = [remote for remote in listing.batches if remote.created_at <= late and remote.archived_at is None]
        owned = self._ledger.batches.owners([remote.id for remote in listed], self._ledger.deployment.lanes())
        found: list[tuple[Token, RemoteBatch]] = []
        for remote in listed:
            if remote.id in owned:
                continue
            if remote.status != "ended":
                return None
            if remote.id not in self._tokens:
                self._tokens[remote.id] = first_token(self._api, remote, self._deployment)
            token = self._tokens[remote.id]
            if token is not None and token.deployment == self._deployment:
                found.append((token, remote))
        return found

    def _take_in(self, lane: str, token: Token, remote: RemoteBatch) -> None:
        batch = self._ledger.batches.get(lane, token.uid)
        forgotten = batch is None and is_of_lane(token.uid, lane)
        if forgotten and self._ledger.prompts.describe(lane, [token.entry_id])[0] is not None:
            self._rebuild(lane, token, remote)
            batch = self._ledger.batches.get(lane, token.uid)
        if batch is None:
            return  # another lane's, or long settled
        if batch.state in (State.SEALED, State.SUBMITTING) and batch.count == remote.counts.total:
            self._ledger.batches.found(batch, remote, token.attempt)
            self._telemetry.doubt_resolved(batch, "adopted")
        else:
            self._telemetry.warning("remote.duplicate", lane=lane, batch=batch.uid, batch_id=remote.id)

    def _rebuild(self, lane: str, token: Token, remote: RemoteBatch) -> None:
        """Seal again what a forgotten seal had sealed: its range under its old uid, and what lies before it."""
        ids = {token.entry_id for token in self._read_tokens(remote)}
        if len(ids) != remote.counts.total:
            # sealed by results that were cut short, the prompts that are missing from them would count as unusable
            raise Truncated(Complaint("results do not account for every request"))
        first, last = min(ids, key=order), max(ids, key=order)
        cursor = self._ledger.lanes.marks(lane).cursor
        if order(cursor) >= order(first):
            return
        settings = self._config.lane(lane)
        before = Limits(settings.max_count, settings.max_bytes, settings.max_age)
        while (window := self._window(lane, cursor, before, f"({first}", None)).cut is not None:
            cursor = self._seal(lane, spell_uid(lane, self._clock.random_bytes(UID_BYTES)), window)
        self._seal(lane, token.uid, self._window(lane, cursor, LARGEST, last, ids))

    def _window(self, lane: str, after: str, limits: Limits, last: str, only: set[str] | None) -> Window:
        window = Window(after=after, limits=limits)
        for entry_id, fields in self._ledger.lanes.between(lane, after, last):
            entry: Prompt | Unusable = read_prompt(entry_id, fields, limits.max_bytes)
            if only is not None and entry_id not in only and isinstance(entry, Prompt):
                entry = Unusable(entry_id, Flaw.REFUSED, entry_id)
            if not window.add(entry):
                break
        return window

    def _seal(self, lane: str, uid: str, window: Window) -> str:
        cut = window.cut
        if cut is None:
            return window.after
        decision = Seal(cut, Trigger.FLUSH)
        answer = self._ledger.lanes.seal(lane, uid, window, decision, max_unposted=UNBOUNDED, recovered=False)
        if answer not in ("SEALED", "MINE"):
            # another replica recovers the lane, too: to say that it is done would open the lane in the middle of it
            raise Unavailable(Complaint("the lane's cursor moved"))
        return cut.last

    def _read_tokens(self, remote: RemoteBatch) -> Iterator[Token]:
        with self._api.results(remote.id) as lines:
            for line in lines:
                token = decode(read_line(line).custom_id)
                if token is not None:
                    yield token
