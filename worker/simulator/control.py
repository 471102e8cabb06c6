"""What a test or an operator of the simulator may do that no user of the real API can."""

import zlib
from dataclasses import dataclass

from worker.simulator.audit import Audit, verdict
from worker.simulator.faults import Fault, FaultBook, parse
from worker.simulator.instants import Timeline, rfc3339
from worker.simulator.keys import Keyring
from worker.simulator.refusal import Refusal
from worker.simulator.remote import Remote
from worker.simulator.rows import ROW, Rows

FOREIGN_MODEL = "claude-haiku-4-5"
FOREIGN_MOST = 100_000


@dataclass(frozen=True, slots=True)
class Control:
    """The hand on the simulated account. Answers are JSON-ready."""

    timeline: Timeline
    remote: Remote
    audit: Audit
    faults: FaultBook
    keyring: Keyring

    def inject(self, tree: object) -> list[int]:
        """Put one fault or a list of them (decoded JSON, see `faults.Fault`) in force; returns their numbers.

        Those that act at once have acted by then and get no number. Raises msgspec.ValidationError and
        Refusal 404 for an unknown `batch`.
        """
        return [self.faults.add(fault) for fault in parse(tree) if not self._act(fault)]

    def _act(self, fault: Fault) -> bool:
        if fault.at_once:
            match fault.kind:
                case "revoke_key":
                    self.keyring.revoke(fault.key)
                case "restore_key":
                    self.keyring.restore(fault.key)
                case "stuck":
                    self.remote.stick(fault.batch)
                case "end_now":
                    self.remote.end(fault.batch)
        return fault.at_once

    def clear_faults(self) -> int:
        """Forget all scripted faults; returns how many. Keys stay revoked, batches stay as they are."""
        return self.faults.clear()

    def advance(self, seconds: float) -> float:
        """Let time pass; returns the new time in Unix seconds. Raises ValueError for a negative number."""
        return self.timeline.advance(seconds)

    def foreign(self, count: int, *, workspace: str | None = None, prefix: str = "stranger") -> dict[str, object]:
        """Create a batch of `count` requests as another user of the workspace; raises Refusal 400."""
        if not 1 <= count <= FOREIGN_MOST:
            raise Refusal(400, f"count: must be 1 to {FOREIGN_MOST}")
        rows = Rows(ids=[f"{prefix}-{number}" for number in range(count)], models=[FOREIGN_MODEL])
        rows.table = bytearray(
            b"".join(ROW.pack(len(each), zlib.crc32(each.encode()), 1024, 0, 0, 0) for each in rows.ids)
        )
        batch = self.remote.create(workspace or self.keyring.default, rows, foreign=True)
        return self.remote.document(batch, "")

    def end(self, batch_id: str | None = None) -> int:
        """End one batch, or all open ones, now; returns how many were looked at. Raises Refusal 404."""
        return self.remote.end(batch_id)

    def cancel(self, batch_id: str) -> None:
        """Cancel as somebody else would; raises Refusal."""
        self.remote.cancel(None, batch_id)

    def delete(self, batch_id: str) -> None:
        """Delete as somebody else would; raises Refusal."""
        self.remote.delete(None, batch_id)

    def state(self) -> dict[str, object]:
        """Everything that was seen and is: batches, POST attempts, counts of requests, faults, revoked keys, time."""
        now = self.timeline.now()
        batches = []
        for batch in self.remote.batches():
            document = self.remote.document(batch, "")
            del document["results_url"]
            batches.append(
                document
                | {
                    "workspace": batch.workspace,
                    "count": batch.count,
                    "foreign": batch.foreign,
                    "body_bytes": batch.body_bytes,
                    "downloads": batch.downloads,
                    "deleted_at": rfc3339(batch.deleted_at),
                }
            )
        audit = self.audit.describe()
        return {
            "now": now,
            "batches": batches,
            **audit,
            "faults": self.faults.describe(),
            "keys": self.keyring.describe(),
        }

    def ledger(self, *, custom_ids: bool = False, batch: str | None = None) -> dict[str, object]:
        """The verdict: prompts committed and billed, and how many of them more than once. See `audit.verdict`."""
        return verdict(self.remote, self.timeline.now(), custom_ids=custom_ids, only=batch)
