"""Dead letters: prompts that were given up on, kept with the reason until they are redriven, dropped or too old."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from worker.ledger.store import Store

PAGE = 100
CHUNK = 200
MARKER = "batchmill."
"""What the names of our own fields start with; redriving leaves them out."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One buried prompt. `letter_id` is its own stream id; `prompt_id` the producer's name for the prompt."""

    lane: str
    letter_id: str
    prompt_id: str
    reason: str
    buried_at: float
    batch: str | None
    attempt: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Lists, redrives and drops dead letters."""

    store: Store

    def list(
        self, lane: str, *, reason: str | None = None, before: float | None = None, limit: int | None = None
    ) -> Iterator[DeadLetter]:
        """Yield dead letters, oldest first; `before` is a Unix time of burying. Prompts are not read out."""
        key, after, found = self.store.keys.dead(lane), "-", 0
        while True:
            page: list[tuple[bytes, dict[bytes, bytes]]] = self.store.read("xrange", key, after, "+", PAGE)
            for letter_id, fields in page:
                letter = _read(lane, letter_id.decode(), fields)
                if before is not None and letter.buried_at > before:
                    return
                if reason is None or letter.reason == reason:
                    yield letter
                    found += 1
                    if found == limit:
                        return
            if len(page) < PAGE:
                return
            after = "(" + page[-1][0].decode()

    def show(self, lane: str, letter_id: str) -> dict[str, str] | None:
        """Return all fields of one dead letter, the prompt among them, for the operator's own eyes."""
        page: list[tuple[bytes, dict[bytes, bytes]]] = self.store.read(
            "xrange", self.store.keys.dead(lane), letter_id, letter_id
        )
        if not page:
            return None
        return {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, value in page[0][1].items()}

    def redrive(self, lane: str, letter_ids: Sequence[str]) -> int:
        """Put dead letters back into their lane with fresh attempts; returns how many there were."""
        keys, redriven = self.store.keys, 0
        for at in range(0, len(letter_ids), CHUNK):
            redriven += int(
                self.store.say(
                    "redrive",
                    prompts=keys.prompts(lane),
                    dead=keys.dead(lane),
                    lane=keys.lane(lane),
                    marker=MARKER,
                    tail=letter_ids[at : at + CHUNK],
                )
            )
        return redriven

    def drop(self, lane: str, letter_ids: Sequence[str]) -> int:
        """Delete dead letters for good; returns how many there were."""
        dropped = 0
        for at in range(0, len(letter_ids), CHUNK):
            dropped += int(self.store.read("xdel", self.store.keys.dead(lane), *letter_ids[at : at + CHUNK]))
        return dropped


def _read(lane: str, letter_id: str, fields: dict[bytes, bytes]) -> DeadLetter:
    text = {name: value.decode("utf-8", "replace") for name, value in fields.items() if name != b"params"}
    return DeadLetter(
        lane=lane,
        letter_id=letter_id,
        prompt_id=text.get(b"id", ""),
        reason=text.get(b"batchmill.reason", "unknown"),
        buried_at=float(text.get(b"batchmill.buried_at", "0")),
        batch=text.get(b"batchmill.batch"),
        attempt=int(text.get(b"batchmill.attempt", "1")),
        nbytes=len(fields.get(b"params", b"")),
    )
