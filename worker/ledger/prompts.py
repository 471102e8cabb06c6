"""The prompts of a batch: its range of the lane's stream, page by page, and what becomes of each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worker.core.entry_ids import order
from worker.core.intake import ATTEMPT, ENQUEUED_AT, FIELDS, MAX_METADATA_BYTES, Flaw
from worker.core.model import Batch
from worker.core.rulings import Ruling
from worker.ledger.pages import pages
from worker.ledger.store import Store, Value

PAGE = 500
"""Most entries per XRANGE of a batch's body; at 2.4 KB each a page is 1.2 MB."""

SETTLE_CHUNK = 500
DESCRIBE_CHUNK = 500

KNOWN = " ".join((*FIELDS, ENQUEUED_AT.decode()))
"""The fields of a prompt that goes on to another stream; its attempt is given anew."""

DESCRIPTION = " ".join((*FIELDS[1:], ENQUEUED_AT.decode(), ATTEMPT.decode()))
"""The fields of a row: all but `params`, and nothing that batchmill does not know, which may be of any size."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """Reads and settles the prompts of batches."""

    store: Store

    def entries(self, batch: Batch) -> Iterator[tuple[bytes, Mapping[bytes, bytes]]]:
        """Yield every entry of the batch's range, (entry id, fields), in order, holding one page at a time."""
        key = self.store.keys.prompts(batch.lane)
        for page in pages(self.store, key, start=batch.first, end=batch.last, most=PAGE):
            yield from page

    def unusable(self, batch: Batch) -> dict[str, Flaw]:
        """Return the unusable entries of the batch's range."""
        key = self.store.keys.unusable(batch.lane, batch.uid)
        noted: dict[bytes, bytes] = self.store.read("hgetall", key)
        first, last = order(batch.first), order(batch.last)
        flaws = {entry_id.decode(): Flaw(flaw.decode()) for entry_id, flaw in noted.items()}
        return {entry_id: flaw for entry_id, flaw in flaws.items() if first <= order(entry_id) <= last}

    def describe(self, lane: str, entry_ids: Sequence[str]) -> list[dict[bytes, bytes] | None]:
        """Return what a row needs of entries; None for one that is gone."""
        described: list[dict[bytes, bytes] | None] = []
        for at in range(0, len(entry_ids), DESCRIBE_CHUNK):
            answers: list[Any] = self.store.run(
                "describe",
                prompts=self.store.keys.prompts(lane),
                wanted=DESCRIPTION,
                longest=MAX_METADATA_BYTES,
                tail=entry_ids[at : at + DESCRIBE_CHUNK],
            )
            described += [None if words is None else _pair(iter(words)) for words in answers]
        return described

    def settle(self, batch: Batch, rulings: Sequence[tuple[str, Ruling]], *, fence: str, now: float) -> bool:
        """Settle prompts, (entry id, ruling), in chunks, best ascending: memory is free sooner. False: claim lost."""
        keys = self.store.keys
        for at in range(0, len(rulings), SETTLE_CHUNK):
            chunk = rulings[at : at + SETTLE_CHUNK]
            fated = [(entry_id, ruling) for entry_id, ruling in chunk if ruling.fate]
            tail: list[Value] = []
            for entry_id, ruling in fated:
                tail += (entry_id, ruling.fate, ruling.attempt, ruling.reason)
            tail += [entry_id for entry_id, ruling in chunk if not ruling.fate]
            answer = self.store.say(
                "settle",
                prompts=keys.prompts(batch.lane),
                dead=keys.dead(batch.lane),
                lane=keys.lane(batch.lane),
                batch=keys.batch(batch.lane, batch.uid),
                fences=keys.fences(batch.lane),
                uid=batch.uid,
                fence=fence,
                buried_at=f"{now:.3f}",
                known=KNOWN,
                fated=len(fated),
                tail=tail,
            )
            if answer == "STALE":
                return False
        return True


def _pair(words: Iterator[bytes]) -> dict[bytes, bytes]:
    return dict(zip(words, words, strict=True))
