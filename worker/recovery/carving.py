"""Carving: a batch that was cut after Redis' memory ends is cut again, as the remote batches of its pieces say.

Refused, a batch is halved, or one prompt is taken out of it; the pieces are posted. A Redis that goes back behind that
knows the whole only. Nothing was ever created for the whole, or it would have been listed; so it may be cut.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from worker.batches_api import Complaint, Unavailable
from worker.core.entry_ids import order
from worker.core.grouping import cut_in_two, request_bytes
from worker.core.intake import Flaw
from worker.core.lifecycle import Event
from worker.core.model import Batch, State
from worker.ledger.ledger import Ledger

KEEP_SECONDS = 5.0
"""For so long nobody else claims a batch that is being cut."""

UNPOSTED = (State.SEALED, State.SUBMITTING)


@dataclass(frozen=True, slots=True)
class Carving:
    """Cuts sealed batches of a lane whose recovery is under way. Every cut compares what it has seen."""

    ledger: Ledger

    def holder(self, lane: str, entry_id: str) -> Batch | None:
        """Return the batch without a remote batch that has this entry in its range."""
        live = [(lane, uid) for uid in self.ledger.batches.live(lane)]
        at = order(entry_id)
        for batch in self.ledger.batches.get_many(live):
            if batch.state in UNPOSTED and order(batch.first) <= at <= order(batch.last):
                return batch
        return None

    def carve(self, batch: Batch, uid: str, ids: set[str], rest_uid: str) -> None:
        """Cut the batch `uid` with just the prompts `ids` out of one; what lies behind becomes `rest_uid`.

        What it does not hold between its ends was taken out of it: refused, as it was. Raises Unavailable when
        another replica does the same.
        """
        first, last = order(min(ids, key=order)), order(max(ids, key=order))
        if batch.state is State.SUBMITTING:
            self._expect(self.ledger.batches.advance(batch, Event.ABSENT, delay=KEEP_SECONDS, unposted=batch.count))
            batch = self._get(batch.lane, batch.uid)
        if batch.uid != uid:
            before = sum(1 for entry_id in self._usable(batch) if order(entry_id) < first)
            if not before:
                return  # only what was in front of it can have kept the name
            self._split(batch, before, uid)
            batch = self._get(batch.lane, uid)
        usable = [order(entry_id) for entry_id in self._usable(batch)]
        upto = sum(1 for at in usable if at <= last)
        if upto < len(usable):
            self._split(batch, upto, rest_uid)
            batch = self._get(batch.lane, uid)
        for entry_id in [each for each in self._usable(batch) if each not in ids]:
            self._eject(self._get(batch.lane, uid), entry_id)

    def _split(self, batch: Batch, head_count: int, tail_uid: str) -> None:
        parts = cut_in_two(self._requests(batch), head_count)
        fence = self._keep(batch)
        self._expect(self.ledger.batches.split(batch, parts, tail_uid, fence=fence, probe=False, delay=0.0))

    def _eject(self, batch: Batch, entry_id: str) -> None:
        size = next(size for each, size in self._requests(batch) if each == entry_id) or 0
        nbytes = batch.bytes - size - (1 if batch.count > 1 else 0)
        self._expect(self.ledger.batches.eject(batch, entry_id, Flaw.REFUSED, nbytes, fence=self._keep(batch)))

    def _keep(self, batch: Batch) -> str:
        """Keep others from claiming the batch for a while; returns the fence of now."""
        self._expect(self.ledger.batches.advance(batch, None, delay=KEEP_SECONDS))
        return self.ledger.batches.fence(batch)

    def _get(self, lane: str, uid: str) -> Batch:
        batch = self.ledger.batches.get(lane, uid)
        if batch is None:
            raise Unavailable(Complaint("a batch vanished while it was cut"))
        return batch

    def _usable(self, batch: Batch) -> Iterator[str]:
        return (entry_id for entry_id, size in self._requests(batch) if size is not None)

    def _requests(self, batch: Batch) -> Iterator[tuple[str, int | None]]:
        unusable = self.ledger.prompts.unusable(batch)
        for raw_id, fields in self.ledger.prompts.entries(batch):
            entry_id = raw_id.decode()
            yield entry_id, None if entry_id in unusable else request_bytes(entry_id, fields[b"params"])

    @staticmethod
    def _expect(answer: str) -> None:
        if answer != "OK":
            raise Unavailable(Complaint("another replica recovers the lane, too"))
