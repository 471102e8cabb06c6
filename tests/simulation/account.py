"""The account at the API: what was committed, what it cost, and what of that a caller gets to see.

Whatever is committed is compared with what was committed before: a prompt may be in a second batch only once the first
has ended and its row there cost nothing. That is checked here, at the moment it happens, and not by the program.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
from storm import REMOTE, ROWS, Weather
from world import World

LIFETIME = 86_400.0
LONGEST_BATCH = 400.0
ENDINGS = ("succeeded", "expired", "api_error", "invalid_request_error", "overloaded_error", "what_is_this_error")
FREE = frozenset({"expired", "canceled", "errored"})
TROUBLE = "Your credit balance is too low to access the API."


@dataclass(eq=False)
class Remote:
    """One batch at the API; `rows` holds custom_id → (result type, line) once it has ended."""

    id: str
    created_at: float
    visible_at: float
    requests: Sequence[tuple[str, str]]
    foreign: bool
    status: str = "in_progress"
    ended_at: float | None = None
    deleted: bool = False
    rows: dict[str, tuple[str, bytes]] = field(default_factory=dict)


@dataclass
class Account:
    """All batches of a workspace. `skew` is how far the API's clock is ahead of ours."""

    world: World
    weather: Weather
    horizon: float
    skew: float
    page_size: int
    batches: list[Remote] = field(default_factory=list)
    in_trouble: bool = False
    strangers: bool = True
    retries: bool = True
    """Without a barrier a retry that Redis forgets is paid for twice, as docs/reliability.md says."""
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def commit(self, requests: Sequence[tuple[str, str]], *, lag: float = 0.0, foreign: bool = False) -> Remote:
        """Make a batch of (custom_id, prompt) pairs; lists show it `lag` seconds later."""
        now = self.world.now
        remote = Remote(f"msgbatch_{next(self._numbers):04d}", now, now + lag, requests, foreign)
        if not foreign:
            self._judge(remote)
        self.batches.append(remote)
        self.world.tell(f"API commits {remote.id}: {'foreign' if foreign else ' '.join(name for _, name in requests)}")
        self.world.after(self.world.chance.between(1.0, LONGEST_BATCH), lambda: self.end(remote))
        if not foreign and (also := self.weather.strikes("remote", REMOTE)):
            self._disturb(remote, also)
        return remote

    def end(self, remote: Remote) -> None:
        """Let a batch end; each of its requests has a row from now on."""
        if remote.ended_at is not None:
            return
        mood = None if remote.foreign or not self.retries else self.weather.strikes("rows", ROWS)
        for custom_id, name in remote.requests:
            remote.rows[custom_id] = self._row(
                custom_id, name, self._ending(mood), canceled=remote.status != "in_progress"
            )
        remote.ended_at, remote.status = self.world.now, "ended"
        if mood == "billing":
            self.trouble()
        self.world.tell(f"API ends {remote.id}" + (f" ({mood})" if mood else ""))

    def trouble(self) -> None:
        """Run out of credit for a while."""
        if not self.in_trouble:
            self.in_trouble = True
            self.world.after(self.world.chance.between(5.0, 300.0), self.relieve)

    def relieve(self) -> None:
        """Have credit again."""
        self.in_trouble = False

    def find(self, remote_id: str) -> Remote | None:
        """Return what a caller finds under an id now."""
        return next((one for one in self._seen() if one.id == remote_id), None)

    def delete(self, remote_id: str) -> bool:
        """Delete an ended batch."""
        remote = self.find(remote_id)
        if remote is None or remote.ended_at is None:
            return False
        remote.deleted = True
        return True

    def page(self, *, before_id: str | None, after_id: str | None) -> tuple[list[Remote], bool] | None:
        """Return a page, newest first, and whether there is more; None for a cursor that is not there."""
        newest_first = self._seen()[::-1]
        cursor = before_id or after_id
        if cursor is None:
            return newest_first[: self.page_size], len(newest_first) > self.page_size
        at = next((number for number, one in enumerate(newest_first) if one.id == cursor), None)
        if at is None:
            return None
        if after_id is not None:
            older = newest_first[at + 1 :]
            return older[: self.page_size], len(older) > self.page_size
        newer = newest_first[:at]
        return newer[-self.page_size :], len(newer) > self.page_size

    def document(self, remote: Remote) -> dict[str, object]:
        """Describe a batch as the API does."""
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        if remote.ended_at is None:
            counts["processing"] = len(remote.requests)
        for kind, _ in remote.rows.values():
            counts[kind] += 1
        return {
            "id": remote.id,
            "processing_status": remote.status,
            "request_counts": counts,
            "created_at": self._spell(remote.created_at),
            "expires_at": self._spell(remote.created_at + LIFETIME),
            "ended_at": None if remote.ended_at is None else self._spell(remote.ended_at),
        }

    def times_paid(self) -> dict[str, int]:
        """Return how often each prompt of ours was paid for."""
        paid: dict[str, int] = {}
        for remote in self.batches:
            for custom_id, name in () if remote.foreign else remote.requests:
                if remote.rows.get(custom_id, ("",))[0] == "succeeded":
                    paid[name] = paid.get(name, 0) + 1
        return paid

    def _seen(self) -> list[Remote]:
        return [one for one in self.batches if one.visible_at <= self.world.now and not one.deleted]

    def _judge(self, remote: Remote) -> None:
        names = {name for _, name in remote.requests}
        for earlier in self.batches:
            for custom_id, name in () if earlier.foreign else earlier.requests:
                if name in names and earlier.rows.get(custom_id, ("still open",))[0] not in FREE:
                    self.world.violated(f"{name} is in {remote.id} and in {earlier.id}: paid twice")
                    return

    def _disturb(self, remote: Remote, how: str) -> None:
        if how == "twin" and self.strangers:
            stranger = [(f"stranger-{number}", "") for number in range(len(remote.requests))]
            self.world.after(self.world.chance.between(0.0, 60.0), lambda: self.commit(stranger, foreign=True))
        elif how == "canceled":
            remote.status = "canceling"
            self.world.tell(f"somebody cancels {remote.id}")

    def _ending(self, mood: str | None) -> str:
        if mood == "mixed":
            return ENDINGS[self.world.chance.pick(len(ENDINGS))]
        return mood or "succeeded"

    def _row(self, custom_id: str, name: str, ending: str, *, canceled: bool) -> tuple[str, bytes]:
        if canceled and self.world.chance.strikes(0.5):
            ending = "canceled"
        result: dict[str, object]
        if ending == "succeeded":
            usage = {"input_tokens": 1, "output_tokens": 1}
            result = {"type": ending, "message": {"model": "claude-haiku-4-5", "usage": usage, "content": name}}
        elif ending in ("expired", "canceled"):
            result = {"type": ending}
        else:
            kind, text = ("invalid_request_error", TROUBLE) if ending == "billing" else (ending, "so it is")
            result = {"type": "errored", "error": {"type": "error", "error": {"type": kind, "message": text}}}
        return str(result["type"]), msgspec.json.encode({"custom_id": custom_id, "result": result})

    def _spell(self, instant: float) -> str:
        return datetime.fromtimestamp(instant + self.skew, UTC).isoformat()
