"""What is remembered of each request of a batch: seventeen bytes, its custom_id, and no prompt."""

import math
import os
import random
import struct
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from worker.simulator.refusal import error_object

ROW = struct.Struct("<IIIHH?")  # size, crc32, max_tokens, model, verdict, cached
VERDICT_LIMIT = 65_535


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a processed request ends: `succeeded` with a stop_reason, or one of the other three results."""

    result: str = "succeeded"
    error_type: str = ""
    message: str = ""
    stop_reason: str = ""

    def tail(self) -> bytes:
        """Everything of a result line after the custom_id (not for `succeeded`)."""
        result: dict[str, object] = {"type": self.result}
        if self.result == "errored":
            error = error_object(self.error_type, self.message)
            result["error"] = {"type": "error", "error": error, "request_id": None}
        return b'","result":' + msgspec.json.encode(result) + b"}\n"


SUCCEEDED = Verdict()


@dataclass(slots=True)
class Rows:
    """The requests of one batch, in the order they were sent."""

    ids: list[str] = field(default_factory=list)
    table: bytearray = field(default_factory=bytearray)
    models: list[str] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=lambda: [SUCCEEDED])

    def model(self, name: str) -> int:
        """Return the number of a model in this batch."""
        if name not in self.models:
            self.models.append(name)
        return self.models.index(name)

    def verdict(self, verdict: Verdict) -> int:
        """Return the number of a verdict in this batch."""
        if verdict in self.verdicts:
            return self.verdicts.index(verdict)
        if len(self.verdicts) < VERDICT_LIMIT:
            self.verdicts.append(verdict)
        return len(self.verdicts) - 1

    def record(self, index: int) -> tuple[int, int, int, int, int, bool]:
        """One row as (size, crc32, max_tokens, model, verdict, cached)."""
        return ROW.unpack_from(self.table, index * ROW.size)

    def condemn(self, verdict: Verdict, fraction: float, chance: random.Random) -> None:
        """Give a share (at least one, if any) of the rows that would succeed another end."""
        healthy = [i for i in range(len(self.ids)) if self.verdicts[self.record(i)[4]] == SUCCEEDED]
        share = min(len(healthy), max(1, round(len(self.ids) * fraction))) if fraction > 0 else 0
        number = self.verdict(verdict)
        for index in chance.sample(healthy, share):
            size, crc, cap, model, _, cached = self.record(index)
            ROW.pack_into(self.table, index * ROW.size, size, crc, cap, model, number, cached)


@dataclass(frozen=True, slots=True)
class Order:
    """The order in which a batch is processed and its results come: a seeded stride through all of it, O(1) memory."""

    count: int
    stride: int
    start: int

    @classmethod
    def shuffled(cls, count: int, chance: random.Random) -> "Order":
        """Draw an order that is not the one of the requests (if there are two or more)."""
        if count < 2:  # noqa: PLR2004  # one has no order
            return cls(count, 1, 0)
        stride = chance.randrange(count // 2, count) or 1
        while math.gcd(stride, count) != 1:
            stride += 1
        return cls(count, stride % count, chance.randrange(1, count))

    def first(self, many: int) -> Iterator[int]:
        """Yield the indexes of the first `many`."""
        index = self.start
        for _ in range(many):
            yield index
            index = (index + self.stride) % self.count


def tally(rows: Rows, order: Order, done: int, rest: str) -> Counter[str]:
    """Count results when the first `done` end as they should and the others as `rest`."""
    if rows.verdicts == [SUCCEEDED]:
        counts = Counter(succeeded=done)
    else:
        counts = Counter(rows.verdicts[rows.record(index)[4]].result for index in order.first(done))
    counts[rest] += order.count - done
    return counts


class Spool:
    """Keeps rows in one anonymous temporary file, so that a thousand batches cost no memory."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # closed by close(), with the simulator
        self._end = 0
        self._lock = threading.Lock()

    def keep(self, rows: Rows) -> tuple[int, int]:
        """Write rows; returns where they are: offset and length in bytes."""
        blob = bytes(rows.table) + "\n".join(rows.ids).encode()
        with self._lock:
            offset, self._end = self._end, self._end + len(blob)
        view, at = memoryview(blob), offset
        while view:
            written = os.pwrite(self._file.fileno(), view, at)
            view, at = view[written:], at + written
        return offset, len(blob)

    def recall(self, place: tuple[int, int], count: int, models: list[str], verdicts: list[Verdict]) -> Rows:
        """Read rows back."""
        offset, length = place
        pieces = []
        while length:
            pieces.append(os.pread(self._file.fileno(), length, offset))
            offset, length = offset + len(pieces[-1]), length - len(pieces[-1])
        blob = b"".join(pieces)
        ids = blob[count * ROW.size :].decode().split("\n")
        return Rows(ids, bytearray(blob[: count * ROW.size]), models, verdicts)

    def close(self) -> None:
        """Let the file go."""
        self._file.close()
