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
from worker.core.model import Prompt, RemoteBatch, Trigger
from worker.ledger.ledger import Ledger
from worker.readings import GarbledError, parse_line
from worker.recovery.carving import UNPOSTED, Carving
from worker.recovery.strays import Strays
from worker.telemetry import Telemetry

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
        self._strays = Strays(config=config, ledger=ledger, api=api, clock=clock, deployment=deployment)
        self._carving = Carving(ledger)
        self._asked_at = float("-inf")

    def step(self, lane: str) -> bool:
        """Look once; True when the lane may go on."""
        since = self._ledger.lanes.past(lane).recovering_since
        if since is None or self._ledger.store.now() < since + self._config.submit.horizon:
            return False
        if self._clock.monotonic() < self._asked_at + self._config.submit.reconcile_interval:
            return False
        try:
            ours = self._strays.look(since)
            if ours is None:
                self._asked_at = self._clock.monotonic()
                return False
            self._take_all_in(lane, sorted(ours, key=lambda pair: order(pair[0].entry_id)))
        except (ApiError, GarbledError):
            self._asked_at = self._clock.monotonic()
            return False
        return True

    def _take_all_in(self, lane: str, ours: list[tuple[Token, RemoteBatch]]) -> None:
        """Seal what was forgotten, from the cursor on; then cut pieces, from the end: a head keeps its batch's uid."""
        pieces = []
        for token, remote in ours:
            holder = self._carving.holder(lane, token.entry_id) if is_of_lane(token.uid, lane) else None
            if holder is None or (holder.uid, holder.count) == (token.uid, remote.counts.total):
                self._take_in(lane, token, remote)
            else:
                pieces.append((token, remote))
        for token, remote in reversed(pieces):
            self._take_in(lane, token, remote)

    def _take_in(self, lane: str, token: Token, remote: RemoteBatch) -> None:
        batch = self._ledger.batches.get(lane, token.uid)
        whole = batch is not None and batch.count == remote.counts.total
        if not whole and is_of_lane(token.uid, lane) and (batch is None or batch.state in UNPOSTED):
            self._shape(lane, token, remote)
            batch = self._ledger.batches.get(lane, token.uid)
        if batch is None:
            if is_of_lane(token.uid, lane):
                self._telemetry.remote_orphaned(token.uid, remote)
            return
        if batch.state in UNPOSTED and batch.count == remote.counts.total:
            if self._ledger.batches.found(batch, remote, token.attempt, deployment=token.deployment) != "OK":
                raise Unavailable(Complaint("the batch moved while it was found"))
            self._telemetry.doubt_resolved(batch, "adopted")
        else:
            self._telemetry.warning("remote.duplicate", lane=lane, batch=batch.uid, batch_id=remote.id)

    def _shape(self, lane: str, token: Token, remote: RemoteBatch) -> None:
        """Make the batch that was posted: cut out of one that Redis knows as it was before, or sealed again."""
        if self._ledger.prompts.describe(lane, [token.entry_id])[0] is None:
            return
        ids = {token.entry_id for token in self._read_tokens(remote)}
        if len(ids) != remote.counts.total:
            # sealed by results that were cut short, the prompts that are missing from them would count as unusable
            self._telemetry.recovery_blocked(lane, remote.id, len(ids), remote.counts.total)
            raise Truncated(Complaint("results do not account for every request"))
        holder = self._carving.holder(lane, min(ids, key=order))
        if holder is None:
            self._rebuild(lane, token.uid, ids)
        else:
            self._carving.carve(holder, token.uid, ids, spell_uid(lane, self._clock.random_bytes(UID_BYTES)))

    def _rebuild(self, lane: str, uid: str, ids: set[str]) -> None:
        """Seal again what a forgotten seal had sealed: its range under its old uid, and what lies before it."""
        first, last = min(ids, key=order), max(ids, key=order)
        cursor = self._ledger.lanes.marks(lane).cursor
        if order(cursor) >= order(first):
            return
        settings = self._config.lane(lane)
        before = Limits(settings.max_count, settings.max_bytes, settings.max_age)
        while (window := self._window(lane, cursor, before, f"({first}", None)).cut is not None:
            cursor = self._seal(lane, spell_uid(lane, self._clock.random_bytes(UID_BYTES)), window)
        self._seal(lane, uid, self._window(lane, cursor, LARGEST, last, ids))

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
                token = decode(parse_line(line).custom_id)
                if token is not None:
                    yield token
