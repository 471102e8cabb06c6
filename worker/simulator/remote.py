"""The simulated account: its batches, by workspace, and what may be done with them. Thread-safe."""

import random
import string
import threading
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator

from worker.simulator.batch import NEVER, Batch
from worker.simulator.faults import Fault
from worker.simulator.instants import Timeline
from worker.simulator.notes import Note, forget
from worker.simulator.options import Options
from worker.simulator.records import Changed, Late, Made
from worker.simulator.refusal import Refusal, unknown_batch
from worker.simulator.rows import Order, Rows, Spool, Verdict, tally

LETTERS = string.digits + string.ascii_letters


class Remote:
    """All batches ever committed. Methods raise Refusal in the API's words.

    Whatever changes is told to `note` under the lock, before anybody can see it. `life` counts the starts of a kept
    account: no life makes up the ids of another.
    """

    def __init__(self, options: Options, timeline: Timeline, *, note: Note = forget, life: int = 0) -> None:
        self._options = options
        self._time = timeline
        self._note = note
        seed = f"remote {options.seed}" + (f" life {life}" if life else "")
        self._chance = random.Random(seed)  # noqa: S311  # repeatable on purpose
        self._spool = Spool()
        self._lock = threading.RLock()
        self._all: list[Batch] = []
        self._by_id: dict[str, Batch] = {}
        self._listed: dict[str, list[Batch]] = {}  # by workspace, oldest first
        self._late: list[Late] = []

    def identity(self, prefix: str) -> str:
        """Make up an id, `msgbatch_01…` for the prefix `msgbatch_01`."""
        with self._lock:
            return prefix + "".join(self._chance.choices(LETTERS, k=22))

    def create(
        self,
        workspace: str,
        rows: Rows,
        *,
        body_bytes: int = 0,
        shapes: list[Fault] | None = None,
        foreign: bool = False,
    ) -> Batch:
        """Commit a batch now, shaped by `rows`, `hide_from_list`, `stuck` and `end_now` faults."""
        with self._lock:
            self._settle()
            return self._commit(workspace, rows, self._time.now(), body_bytes, shapes or [], foreign=foreign)

    def create_late(self, workspace: str, rows: Rows, *, body_bytes: int, shapes: list[Fault], delay: float) -> None:
        """Commit a batch `delay` seconds from now."""
        with self._lock:
            late = Late(
                id=self.identity("late_01"),
                due=self._time.now() + delay,
                workspace=workspace,
                rows=rows,
                body_bytes=body_bytes,
                shapes=shapes,
            )
            self._note(late)
            self.promise(late)

    def promise(self, late: Late) -> None:
        """Remember what will be committed."""
        with self._lock:
            self._late.append(late)
            self._late.sort(key=lambda each: each.due)

    def _commit(
        self,
        workspace: str,
        rows: Rows,
        at: float,
        body_bytes: int,
        shapes: list[Fault],
        *,
        foreign: bool = False,
        late: str | None = None,
    ) -> Batch:
        options, last = self._options, self._all[-1].created_at if self._all else 0.0
        created_at = round(max(at, last + 1e-6), 6)
        for fault in shapes:
            if fault.kind == "rows":
                verdict = Verdict(fault.result, fault.error_type or "api_error", fault.message, fault.stop_reason)
                rows.condemn(verdict, fault.fraction, self._chance)
        batch = Batch(
            id=self.identity("msgbatch_01"),
            workspace=workspace,
            number=len(self._all) + 1,
            created_at=created_at,
            born_at=at,
            takes=options.ends_after,
            lifetime=options.lifetime,
            retention=options.retention,
            order=Order.shuffled(len(rows.ids), self._chance),
            place=self._spool.keep(rows),
            models=rows.models,
            verdicts=rows.verdicts,
            body_bytes=body_bytes,
            foreign=foreign,
            cancel_takes=options.cancel_takes,
        )
        for fault in shapes:
            match fault.kind:
                case "stuck":
                    batch.takes = NEVER
                case "end_now":
                    batch.forced_at = at
                case "hide_from_list":
                    batch.listed_at = at + fault.seconds
        self._note(Made.of(batch, rows, late=late))
        self._enter(batch)
        return batch

    def _enter(self, batch: Batch) -> None:
        self._all.append(batch)
        self._by_id[batch.id] = batch
        self._listed.setdefault(batch.workspace, []).append(batch)

    def recall(self, record: Made | Changed | Late) -> None:
        """Take over what an earlier life has noted, in the order in which it was noted."""
        with self._lock:
            match record:
                case Made():
                    self._late = [late for late in self._late if late.id != record.late]
                    self._enter(record.batch(number=len(self._all) + 1, place=self._spool.keep(record.rows)))
                case Changed():
                    batch = self._by_id[record.id]
                    if record.deleted_at is not None and batch.deleted_at is None:
                        self._listed[batch.workspace].remove(batch)
                    record.apply(batch)
                case Late():
                    self.promise(record)

    def _settle(self) -> None:
        now = self._time.now()
        while self._late and self._late[0].due <= now:
            late = self._late.pop(0)
            self._commit(late.workspace, late.rows, late.due, late.body_bytes, late.shapes, late=late.id)

    def find(self, workspace: str | None, batch_id: str) -> Batch:
        """Look a batch up; None stands for any workspace. Raises Refusal 404."""
        with self._lock:
            self._settle()
            batch = self._by_id.get(batch_id)
        if batch is None or batch.deleted_at is not None or workspace not in (None, batch.workspace):
            raise unknown_batch(batch_id)
        return batch

    def page(
        self, workspace: str, limit: int, *, after: str | None = None, before: str | None = None
    ) -> tuple[list[Batch], bool]:
        """One page, newest first, next to the cursor on its older (`after`) or newer (`before`) side.

        Also returns whether there is more on that side. Raises Refusal 400 for an unknown cursor.
        """
        with self._lock:
            self._settle()
            now, listed = self._time.now(), self._listed.get(workspace, [])
            cursor = self._by_id.get(after or before or "")
            if (after or before) and (cursor is None or cursor.deleted_at is not None or cursor.workspace != workspace):
                if self._options.unknown_cursor == "empty":
                    return [], False
                raise Refusal(400, f"{'after_id' if after else 'before_id'}: no such batch in this workspace")
            found: list[Batch] = []
            for batch in _from(listed, cursor, newer=before is not None):
                if batch.listed_at <= now:
                    found.append(batch)
                if len(found) > limit:
                    break
        page, more = found[:limit], len(found) > limit
        return (page[::-1] if before is not None else page), more

    def cancel(self, workspace: str | None, batch_id: str) -> Batch:
        """Start canceling; twice is once. Raises Refusal 404, or 400 for one that has ended."""
        with self._lock:
            batch, now = self.find(workspace, batch_id), self._time.now()
            if batch.ended_at(now) is not None:
                raise Refusal(400, f"Batch {batch_id} has ended and cannot be canceled.")
            if batch.cancel_at is None:
                batch.cancel_at = now
                self._note(Changed.of(batch))
            return batch

    def delete(self, workspace: str | None, batch_id: str) -> None:
        """Delete an ended batch. Raises Refusal 404, or 400 while it is in progress."""
        with self._lock:
            batch, now = self.find(workspace, batch_id), self._time.now()
            if batch.ended_at(now) is None:
                raise Refusal(400, f"Batch {batch_id} cannot be deleted while it is in progress. Cancel it first.")
            batch.deleted_at = now
            self._note(Changed.of(batch))
            self._listed[batch.workspace].remove(batch)

    def end(self, batch_id: str | None) -> int:
        """End one batch, or all, now; returns how many. Raises Refusal 404."""
        with self._lock:
            batches, now = [self.find(None, batch_id)] if batch_id else self.batches(), self._time.now()
            for batch in batches:
                if batch.ended_at(now) is None:
                    batch.end(now)
                    self._note(Changed.of(batch))
            return len(batches)

    def stick(self, batch_id: str | None) -> int:
        """Let one open batch, or all, never end; returns how many. Raises Refusal 404."""
        with self._lock:
            now = self._time.now()
            batches = [self.find(None, batch_id)] if batch_id else self.batches()
            opened = [batch for batch in batches if batch.ended_at(now) is None]
            for batch in opened:
                batch.takes = NEVER
                self._note(Changed.of(batch))
            return len(opened)

    def waiting(self) -> int:
        """Prompts of open batches not processed yet, over all workspaces: what the queue limit counts."""
        with self._lock:
            self._settle()
            now = self._time.now()
            return sum(batch.count - batch.done(now) for batch in self._all if batch.ended_at(now) is None)

    def batches(self) -> list[Batch]:
        """Every batch ever committed, deleted ones too, oldest first."""
        with self._lock:
            self._settle()
            return list(self._all)

    def rows(self, batch: Batch) -> Rows:
        """Its requests, read back from disk."""
        return self._spool.recall(batch.place, batch.count, batch.models, batch.verdicts)

    def document(self, batch: Batch, base_url: str) -> dict[str, object]:
        """The batch as the API shows it."""
        with self._lock:
            now = self._time.now()
            return batch.document(now, base_url=base_url, counts=self._counts(batch, now))

    def _counts(self, batch: Batch, now: float) -> Counter[str] | None:
        if batch.counts is not None:
            return batch.counts
        if batch.ended_at(now) is not None:
            return batch.tally(now, self.rows(batch))
        if not self._options.moving_counts:
            return None
        done = batch.done(now)
        counts = tally(self.rows(batch), batch.order, done, batch.rest)
        counts[batch.rest] -= batch.count - done
        return counts

    def close(self) -> None:
        """Let the spool go."""
        self._spool.close()


def _from(listed: list[Batch], cursor: Batch | None, *, newer: bool) -> Iterator[Batch]:
    """Walk away from the cursor: towards newer batches, or towards older ones."""
    if cursor is None:
        return reversed(listed)
    if newer:
        return iter(listed[bisect_right(listed, cursor.number, key=lambda each: each.number) :])
    return reversed(listed[: bisect_left(listed, cursor.number, key=lambda each: each.number)])
