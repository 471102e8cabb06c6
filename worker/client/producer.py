"""The producer: one lane, the enqueue script, and what may be repeated."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from worker.client.outcomes import Fate, Outcome, QueueFull, Summary, Unreachable
from worker.client.spelling import Spelled, spell, spell_or_refuse
from worker.clock import Clock
from worker.core.access import FROM_URL, RedisAccess
from worker.core.names import is_lane_name
from worker.ledger.deployment import Deployment
from worker.ledger.store import LedgerFullError, LedgerRefusedError, LedgerUnavailableError, Store, Value

DEDUPE_SECONDS = 86_400
INTAKE_BYTES = 2_000_000_000
"""What holds until a daemon has written its settings into Redis."""

REFRESH_SECONDS = 30.0
CHUNK = 200
CHUNK_BYTES = 4_000_000
PAUSES = (0.1, 0.5)
"""Seconds before what has an id is sent again after a lost reply."""

ROOM_PAUSE = 0.5


class Producer:
    """Enqueues prompts into one lane; may be shared by threads. `access` holds what the URL should not say.

    Raises ValueError for an impossible lane name. Nothing is sent before the first prompt.
    """

    def __init__(
        self,
        redis_url: str,
        lane: str = "default",
        *,
        prefix: str = "batchmill:",
        access: RedisAccess = FROM_URL,
        clock: Clock | None = None,
    ) -> None:
        if not is_lane_name(lane):
            raise ValueError(f"not the name of a lane: {lane!r}")
        self.lane = lane
        self._clock = clock or Clock()
        self._store = Store.connect(redis_url, prefix, access=access)
        self._deployment = Deployment(self._store)
        self._registered = False
        self._known = (DEDUPE_SECONDS, INTAKE_BYTES)
        self._refresh_at = self._clock.monotonic()

    def enqueue(  # noqa: PLR0917 - the fields of an entry, in the order of the contract
        self,
        params: Mapping[str, Any] | str | bytes,
        id: str | None = None,  # noqa: A002 - the word of the contract
        metadata: object = None,
        deadline: float | None = None,
        reply_to: str | None = None,
        traceparent: str | None = None,
    ) -> str:
        """Put a prompt into the lane and return its entry id; with an `id` used before, that of the first.

        `params` are those of one Messages request, as a mapping or as JSON text; `metadata` is any JSON value, as
        bytes it is JSON text already; `deadline` is in Unix seconds. Raises ValueError for a prompt that could never
        be used, QueueFull, Unreachable, and LedgerRefusedError when Redis does not let us in.
        """
        fields = spell(
            {
                "params": params,
                "id": id,
                "metadata": metadata,
                "deadline": deadline,
                "reply_to": reply_to,
                "traceparent": traceparent,
            }
        )
        self._register()
        outcome = self._send([(0, fields)])[0]
        if outcome.fate is Fate.FULL:
            raise QueueFull(f"lane {self.lane}: no room for a prompt now")
        if outcome.fate is Fate.IN_DOUBT or outcome.entry_id is None:
            raise Unreachable("Redis did not answer: the prompt may or may not be in its lane", in_doubt=True)
        return outcome.entry_id

    def enqueue_many(
        self,
        prompts: Iterable[Mapping[str, Any] | Sequence[Any]],
        *,
        tell: Callable[[Outcome], object] = lambda _: None,
        patience: float = 0.0,
    ) -> Summary:
        """Put many prompts into the lane, in pipelines and constant memory, and count what became of them.

        A prompt is a mapping with the names of `enqueue`'s arguments, or a sequence in their order. One that could
        never be used is counted as refused and holds up nothing. `tell` hears of each fate, in the order of the
        prompts. While there is no room for `patience` seconds, it is tried again. What a repeated call finds done is
        counted as a duplicate.

        Raises QueueFull and Unreachable with the `summary` so far; the rest of `prompts` is then unread.
        """
        self._register()
        counts: Counter[Fate] = Counter()
        for chunk in _chunks(prompts):
            for outcome in self._settle(chunk, patience):
                tell(outcome)
                counts[outcome.fate] += 1
            if doubts := counts[Fate.IN_DOUBT]:
                text = f"Redis did not answer: {doubts} prompts may or may not be in their lane"
                raise Unreachable(text, in_doubt=True, summary=Summary.of(counts))
            if counts[Fate.FULL]:
                raise QueueFull(f"lane {self.lane}: no room for more prompts now", Summary.of(counts))
        return Summary.of(counts)

    def close(self) -> None:
        """Close the connections."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _register(self) -> None:
        """Add the lane to the registry, once; proves before the first prompt that Redis is there."""
        if self._registered:
            return
        try:
            self._deployment.register_lanes([self.lane])
        except LedgerFullError as error:
            raise QueueFull(str(error)) from None
        except LedgerUnavailableError as error:
            raise Unreachable(str(error), in_doubt=False) from None
        self._registered = True

    def _limits(self) -> tuple[int, int]:
        """Return the seconds that an id is remembered and the bytes that may wait, as the daemons have left them."""
        now = self._clock.monotonic()
        if now >= self._refresh_at:
            self._refresh_at = now + REFRESH_SECONDS
            with contextlib.suppress(LedgerUnavailableError):  # the prompts that follow will tell
                found = self._deployment.recall("dedupe_ttl"), self._deployment.recall("intake_max_bytes")
                self._known = (_number(found[0], DEDUPE_SECONDS), _number(found[1], INTAKE_BYTES))
        return self._known

    def _settle(self, chunk: Sequence[tuple[int, Spelled | str]], patience: float) -> list[Outcome]:
        fates = {at: Outcome(at, Fate.REFUSED, reason=given) for at, given in chunk if isinstance(given, str)}
        waiting = [(at, given) for at, given in chunk if not isinstance(given, str)]
        give_up_at = self._clock.monotonic() + patience
        while waiting:
            sent = self._send(waiting)
            fates |= {outcome.position: outcome for outcome in sent}
            full = {outcome.position for outcome in sent if outcome.fate is Fate.FULL}
            if any(outcome.fate is Fate.IN_DOUBT for outcome in sent) or self._clock.monotonic() >= give_up_at:
                break
            if len(full) < len(waiting):
                give_up_at = self._clock.monotonic() + patience
            waiting = [(at, fields) for at, fields in waiting if at in full]
            if waiting:
                self._clock.sleep(ROOM_PAUSE * (0.5 + self._clock.jitter()))
        return [fates[at] for at, _ in chunk]

    def _send(self, prompts: Sequence[tuple[int, Spelled]]) -> list[Outcome]:
        """Send prompts; what has an id is sent again after a lost reply, what has none is left in doubt."""
        fates: dict[int, Outcome] = {}
        waiting = prompts
        for pause in (*PAUSES, None):
            answers = self._ask([fields for _, fields in waiting])
            fates |= {at: _judge(at, answer) for (at, _), answer in zip(waiting, answers, strict=True)}
            waiting = [(at, fields) for at, fields in waiting if fates[at].fate is Fate.IN_DOUBT and b"id" in fields]
            if not waiting or pause is None:
                break
            self._clock.sleep(pause * (0.5 + self._clock.jitter()))
        return [fates[at] for at, _ in prompts]

    def _ask(self, prompts: Sequence[Spelled]) -> list[Any]:
        limits = self._limits()
        calls = [self._call(fields, *limits) for fields in prompts]
        try:
            return self._store.run_many("enqueue", calls)
        except LedgerUnavailableError as error:
            return [error] * len(calls)

    def _call(self, fields: Spelled, dedupe_seconds: int, limit_bytes: int) -> tuple[dict[str, Value], list[bytes]]:
        keys, name = self._store.keys, fields.get(b"id", b"").decode()
        named: dict[str, Value] = {
            "prompts": keys.prompts(self.lane),
            "dedupe": keys.dedupe(self.lane, name),
            "waiting": keys.waiting,
            "lane": self.lane,
            "name": name,
            "dedupe_seconds": dedupe_seconds,
            "limit_bytes": limit_bytes,
        }
        return named, [word for field in fields.items() for word in field]


def _judge(position: int, answer: Any) -> Outcome:
    if isinstance(answer, LedgerFullError):
        return Outcome(position, Fate.FULL)
    if isinstance(answer, LedgerRefusedError):
        raise answer
    if isinstance(answer, Exception):
        return Outcome(position, Fate.IN_DOUBT)
    if answer[0] == b"QFULL":
        return Outcome(position, Fate.FULL)
    fate = Fate.DUPLICATE if answer[0] == b"DUPLICATE" else Fate.ENQUEUED
    return Outcome(position, fate, entry_id=answer[1].decode())


def _chunks(prompts: Iterable[Mapping[str, Any] | Sequence[Any]]) -> Iterator[list[tuple[int, Spelled | str]]]:
    """Yield spelled prompts, or why they cannot be, with their positions; few enough for one pipeline."""
    chunk: list[tuple[int, Spelled | str]] = []
    nbytes = 0
    for position, prompt in enumerate(prompts):
        spelled = spell_or_refuse(prompt)
        nbytes += 0 if isinstance(spelled, str) else sum(map(len, spelled.values()))
        chunk.append((position, spelled))
        if len(chunk) >= CHUNK or nbytes >= CHUNK_BYTES:
            yield chunk
            chunk, nbytes = [], 0
    if chunk:
        yield chunk


def _number(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isdigit() else default
