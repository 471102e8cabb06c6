"""A lane: its window, and the marks that stop or hurry it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worker.core.entry_ids import entry_id_of, order
from worker.core.grouping import Limits, Seal, Window
from worker.core.intake import Flaw, Unusable, entry_instant, read_prompt
from worker.core.model import Prompt
from worker.ledger.pages import pages
from worker.ledger.scripts import MAX_TAIL
from worker.ledger.store import Store

PAGE = 200
"""Most entries per XRANGE: a longest pause of 2.8 ms for others at 1.5 KB each (measured on Redis 7.0)."""

UNSEALED_NOTE_SECONDS = 3600

LAST = entry_id_of((1 << 128) - 2)
"""Behind it there is one id, which nobody has: Redis takes the question what is behind the very last for an error."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What a lane's record says, at Redis' time `now`."""

    now: float
    cursor: str
    incarnation: str
    paused: str | None
    parked: str | None
    flush_to: str | None
    unposted: int


@dataclass(frozen=True, slots=True)
class Glance:
    """A lane's marks, and whether it has entries that were not read yet."""

    marks: Marks
    more: bool


@dataclass(frozen=True, slots=True)
class Past:
    """What a lane knows of the server's life it was last recovered in, and by what barrier its intents were kept."""

    incarnation: str | None
    barrier: str | None
    recovering_since: float | None
    recovering_in: str | None = None


@dataclass(frozen=True, slots=True)
class Lanes:
    """Looks at lanes, seals their heads, and marks them."""

    store: Store

    def marks(self, lane: str) -> Marks:
        """Look at a lane's record, in one round trip. Raises the ledger's errors."""
        glance = self.glance({lane: None})[lane]
        if isinstance(glance, Exception):
            raise glance
        return glance.marks

    def glance(self, ends: Mapping[str, str | None]) -> dict[str, Glance | Exception]:
        """Look at many lanes in one round trip; `ends` says for each behind which entry more would be news.

        A lane that cannot be looked at has one of the ledger's errors for an answer.
        """
        keys = self.store.keys
        calls = [
            (
                {
                    "lane": keys.lane(lane),
                    "unposted": keys.unposted(lane),
                    "prompts": keys.prompts(lane),
                    "last": end or LAST,
                },
                (),
            )
            for lane, end in ends.items()
        ]
        answers = self.store.run_many("glance", calls)
        return {
            lane: answer if isinstance(answer, Exception) else _read_glance(answer)
            for lane, answer in zip(ends, answers, strict=True)
        }

    def extend(self, lane: str, window: Window) -> int:
        """Read on from where the window ends until it is full or the lane is; returns how many entries it took."""
        taken = 0
        source = pages(self.store, self.store.keys.prompts(lane), start=f"({window.end}", end="+", most=PAGE)
        while window.full is None and (page := next(source, None)) is not None:
            for entry in _parse(page, window.limits):
                if not window.add(entry):
                    return taken
                taken += 1
        return taken

    def length(self, lane: str) -> int:
        """Return how many prompts of the lane are not settled."""
        return int(self.store.read("xlen", self.store.keys.prompts(lane)))

    def has_older(self, lane: str, instant: float) -> bool:
        """Whether a prompt of the lane was enqueued at or before an instant."""
        oldest = self.store.read("xrange", self.store.keys.prompts(lane), "-", "+", 1)
        return bool(oldest) and entry_instant(oldest[0][0].decode()) <= instant

    def between(self, lane: str, after: str, last: str) -> Iterator[tuple[str, Mapping[bytes, bytes]]]:
        """Yield a lane's entries behind `after` up to `last`, page by page; `last` may be exclusive, as in `(1-0`."""
        for page in pages(self.store, self.store.keys.prompts(lane), start=f"({after}", end=last, most=PAGE):
            for entry_id, fields in page:
                yield entry_id.decode(), fields

    def taken_counts(self, lanes: list[str]) -> set[int]:
        """Return the counts of all batches that may still create a remote batch."""
        answers = self.store.read_all(("zrange", self.store.keys.unposted(lane), 0, -1, False, True) for lane in lanes)
        sets = (answer for answer in answers if not isinstance(answer, Exception))  # a broken lane seals nothing either
        return {int(score) for counts in sets for _, score in counts}

    def seal(
        self, lane: str, uid: str, window: Window, decision: Seal, *, max_unposted: int, recovered: bool = True
    ) -> str:
        """Commit a seal: SEALED, MINE, STALE, FULL or RECOVER.

        Only recovery seals in a lane not yet `recovered`, and a window of whatever life.
        """
        keys, cut = self.store.keys, decision.cut
        unusable = window.unusable_within(cut)
        self._note_unusable(lane, uid, unusable)
        answer = self.store.say(
            "seal",
            lane=keys.lane(lane),
            batch=keys.batch(lane, uid),
            due=keys.due(lane),
            unposted=keys.unposted(lane),
            unusable=keys.unusable(lane, uid),
            prompts=keys.prompts(lane),
            seen=window.after,
            first=window.first or cut.last,
            last=cut.last,
            uid=uid,
            entries=cut.entries,
            count=cut.count,
            unusable_count=len(unusable),
            max_unposted=max_unposted,
            recovered_in=window.incarnation if recovered else "any",
            tail=[
                *("bytes", cut.bytes, "trigger", decision.trigger),
                *("attempt", 0, "deadline", "" if window.deadline is None else str(window.deadline)),
            ],
        )
        if unusable and answer not in ("SEALED", "MINE"):
            # a lane in recovery is looked at every second for up to a day: its notes would fill Redis
            self.store.read("delete", keys.unusable(lane, uid))
        return answer

    def pause(self, lane: str, reason: str) -> None:
        """Stop submitting this lane's batches until `resume`."""
        self.store.run("mark", hash=self.store.keys.lane(lane), unless="", tail=["paused", reason])

    def resume(self, lane: str) -> None:
        """Start submitting again, whether a human or account trouble had stopped it."""
        tail = ["paused", "", "parked", "", "probe_at", ""]
        self.store.run("mark", hash=self.store.keys.lane(lane), unless="", tail=tail)

    def park(self, lane: str, reason: str, probe_at: float) -> bool:
        """Stop submitting because the account is in trouble, with a first probe at `probe_at`. False: it was parked."""
        tail = ["parked", reason, "probe_at", str(int(probe_at * 1000))]
        answer = self.store.say("mark", hash=self.store.keys.lane(lane), unless="parked", tail=tail)
        return answer == "OK"

    def unpark(self, lane: str) -> None:
        """End account trouble."""
        self.store.run("mark", hash=self.store.keys.lane(lane), unless="", tail=["parked", "", "probe_at", ""])

    def may_probe(self, lane: str, period: float) -> str:
        """Ask for the parked lane's one probe per `period` seconds: OK, WAIT, or OPEN when it is not parked."""
        return self.store.say("probe", lane=self.store.keys.lane(lane), period_ms=int(period * 1000))

    def flush(self, lane: str) -> str | None:
        """Ask for everything that waits now to be sealed; returns the last entry id, None when nothing waits."""
        newest = self.store.read("xrevrange", self.store.keys.prompts(lane), "+", "-", 1)
        if not newest:
            return None
        last = str(newest[0][0].decode())
        self.store.run("mark", hash=self.store.keys.lane(lane), unless="", tail=["flush_to", last])
        return last

    def end_flush(self, lane: str, flush_to: str) -> None:
        """Note that all of a flush is sealed, unless there is another by now."""
        self.store.run("end_flush", lane=self.store.keys.lane(lane), flush_to=flush_to)

    def past(self, lane: str) -> Past:
        """Return what the lane knows of the server's lives."""
        names = ("incarnation", "barrier", "recovering_since", "recovering_in")
        fields = self.store.read("hmget", self.store.keys.lane(lane), *names)
        incarnation, barrier, since, life = (value.decode() if value else None for value in fields)
        return Past(incarnation, barrier, float(since) if since else None, life)

    def begin_recovery(self, lane: str, incarnation: str) -> None:
        """Date the recovery of a lane in the server's present life; what an earlier life's was worth, nobody knows."""
        tail = ["recovering_since", repr(self.store.now()), "recovering_in", incarnation]
        self.store.run("mark", hash=self.store.keys.lane(lane), unless="", tail=tail)

    def recovered(self, lane: str, incarnation: str, barrier: str) -> bool:
        """Let decisions through again; False when the server was restarted in between."""
        tail = ["barrier", barrier, "recovering_since", "", "recovering_in", ""]
        answer = self.store.say("recover", lane=self.store.keys.lane(lane), incarnation=incarnation, tail=tail)
        return answer == "OK"

    def tidy(self, lane: str, *, retention: float, dead_before: float, may_go: bool) -> bool:
        """Let go of what is too old, and if it `may_go` of the lane, once nothing is left in it; True: it is gone."""
        keys = self.store.keys
        answer = self.store.say(
            "tidy",
            lane=keys.lane(lane),
            prompts=keys.prompts(lane),
            dead=keys.dead(lane),
            settled=keys.settled(lane),
            due=keys.due(lane),
            fences=keys.fences(lane),
            unposted=keys.unposted(lane),
            retention_ms=int(retention * 1000),
            dead_before=max(0, int(dead_before * 1000)),
            may_go="yes" if may_go else "no",
        )
        return answer == "GONE"

    def remember(self, lane: str, cursor: str, sealed_entries: int) -> bool:
        """Put the marks of a lane whose record is gone back, unless it has a cursor."""
        tail = ["cursor", cursor, "sealed_entries", str(sealed_entries)]
        return self.store.say("mark", hash=self.store.keys.lane(lane), unless="cursor", tail=tail) == "OK"

    def head(self, lane: str) -> str | None:
        """Return the oldest entry that waits for a batch."""
        page = self.store.read("xrange", self.store.keys.prompts(lane), f"({self.marks(lane).cursor}", "+", 1)
        return str(page[0][0].decode()) if page else None

    def deleted(self, lane: str, head: str | None) -> str | None:
        """Return an entry that was deleted although no batch had it yet; None when there is none.

        XDEL leaves its mark on the stream; XTRIM does not, but takes `head` away, which waited a while ago.
        """
        # first the stream and then the cursor: what is sealed and settled in between must not look deleted
        key = self.store.keys.prompts(lane)
        stream, found, cursor = self.store.read_all(
            [
                ("xinfo_stream", key),
                ("xrange", key, head or "-", head or "+", 1),
                ("hget", self.store.keys.lane(lane), "cursor"),
            ]
        )
        marked = stream.get("max-deleted-entry-id", b"0-0").decode() if isinstance(stream, dict) else "0-0"
        suspects = [marked, *([head] if head and not found else [])]
        sealed = order(cursor.decode() if cursor else "0-0")
        return next((entry for entry in suspects if order(entry) > sealed), None)

    def rewind(self, lane: str) -> bool:
        """Begin a lane's stream anew when all of it lies behind the cursor, where no seal would ever find it.

        The ids of `*` only grow, so that takes a stream which somebody deleted, and a clock that went back or ids made
        by hand. While a batch is under way its prompts lie there, too, and nothing is done.
        """
        key = self.store.keys.prompts(lane)
        newest = self.store.read("xrevrange", key, "+", "-", 1)
        cursor = self.marks(lane).cursor
        if not newest or order(newest[0][0].decode()) > order(cursor):
            return False
        keys = self.store.keys
        answer = self.store.say("rewind", lane=keys.lane(lane), prompts=key, due=keys.due(lane), seen=cursor)
        return answer == "OK"

    def stream_bytes(self, lanes: list[str]) -> dict[str, int]:
        """Return what Redis spends on each lane's stream, estimated from samples (MEMORY USAGE)."""
        answers = self.store.read_all(("memory_usage", self.store.keys.prompts(lane)) for lane in lanes)
        return {lane: size if isinstance(size, int) else 0 for lane, size in zip(lanes, answers, strict=True)}

    def _note_unusable(self, lane: str, uid: str, unusable: dict[str, Flaw]) -> None:
        words = [word for entry_id, flaw in unusable.items() for word in (entry_id, flaw.value)]
        for at in range(0, len(words), MAX_TAIL):
            self.store.run(
                "note_unusable",
                unusable=self.store.keys.unusable(lane, uid),
                seconds=UNSEALED_NOTE_SECONDS,
                tail=words[at : at + MAX_TAIL],
            )


def _parse(page: Any, limits: Limits) -> Iterator[Prompt | Unusable]:
    for entry_id, fields in page:
        yield read_prompt(entry_id.decode(), fields or {}, limits.max_bytes)


def _read_glance(answer: Sequence[Any]) -> Glance:
    now, unposted, more, *fields = answer
    cursor, incarnation, paused, parked, flush_to = (value.decode() if value else None for value in fields)
    marks = Marks(
        now=float(now),
        cursor=cursor or "0-0",
        incarnation=incarnation or "",
        paused=paused,
        parked=parked,
        flush_to=flush_to,
        unposted=int(unposted),
    )
    return Glance(marks, bool(more))
