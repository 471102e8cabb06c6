"""Batches: their records, the claims on them, and the compare-and-set scripts that move them.

Every transition asks `core.lifecycle` first and names the state and attempt in which the batch was seen. A *fact*
(what the API has answered) needs no claim; a *decision* carries the claim's fence.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from worker.core.grouping import Part, Remainder
from worker.core.intake import Flaw
from worker.core.lifecycle import Event, follow
from worker.core.model import Batch, Claim, RemoteBatch, RequestCounts, State
from worker.ledger.records import COMMIT, part_fields, read_batch, remote_fields, spell_counts
from worker.ledger.store import Store

REMOTE_SECONDS = 30 * 86_400
"""How long a remote batch's owner is remembered; the API keeps results for 29 days."""

NEVER = float("inf")
"""A delay that only a human ends."""

Durably = Callable[[Callable[[Any], str]], str]
"""Runs a write on a connection and returns its answer once it is on disk; see `ledger.barrier`."""


@dataclass(frozen=True, slots=True)
class Batches:
    """Reads and moves batches."""

    store: Store

    def get(self, lane: str, uid: str) -> Batch | None:
        """Return a batch's record, None when there is none (any more)."""
        fields = self.store.read("hgetall", self.store.keys.batch(lane, uid))
        return read_batch(lane, uid, fields) if fields else None

    def get_many(self, batches: Sequence[tuple[str, str]]) -> list[Batch]:
        """Return the records of (lane, uid) pairs that exist, in one round trip."""
        answers = self.store.read_all(("hgetall", self.store.keys.batch(lane, uid)) for lane, uid in batches)
        found = zip(batches, answers, strict=True)
        return [read_batch(lane, uid, fields) for (lane, uid), fields in found if isinstance(fields, dict) and fields]

    def live(self, lane: str) -> list[str]:
        """Return the uids of all batches of a lane that are not settled."""
        members: list[bytes] = self.store.read("zrange", self.store.keys.due(lane), 0, -1)
        return [member.decode() for member in members]

    def hasten(self, lane: str) -> None:
        """Let the sealed batches of a lane come due at once: what they waited for is over."""
        for batch in self.get_many([(lane, uid) for uid in self.live(lane)]):
            if batch.state is State.SEALED:
                self.advance(batch, None)

    def claim(self, lane: str, *, limit: int, lease: float, passing_over: Collection[State] = ()) -> list[Claim]:
        """Claim what is due in a lane, for `lease` seconds. Batches in a state that is passed over wait for as long."""
        keys = self.store.keys
        words: list[bytes] = self.store.run(
            "claim",
            due=keys.due(lane),
            fences=keys.fences(lane),
            batch_prefix=keys.batch(lane, ""),
            limit=limit,
            lease_ms=int(lease * 1000),
            passed_over=f" {' '.join(passing_over)} ",
        )
        texts = [word.decode() for word in words]
        triples = zip(texts[::3], texts[1::3], texts[2::3], strict=True)
        return [Claim(lane, uid, fence, State(state)) for uid, fence, state in triples]

    def fence(self, batch: Batch) -> str:
        """Return the fence of a batch's last claim, empty when it never was claimed."""
        fence = self.store.read("hget", self.store.keys.fences(batch.lane), batch.uid)
        return str(fence.decode()) if fence else ""

    def renew(self, claim: Claim, lease: float) -> bool:
        """Extend a claim; False when it is lost."""
        keys = self.store.keys
        answer = self.store.say(
            "renew",
            due=keys.due(claim.lane),
            fences=keys.fences(claim.lane),
            uid=claim.uid,
            fence=claim.fence,
            lease_ms=int(lease * 1000),
        )
        return answer == "OK"

    def advance(
        self,
        batch: Batch,
        event: Event | None,
        *,
        fence: str = "",
        delay: float | None = 0.0,
        recovered: bool = False,
        unposted: int | None = None,
        owning: str = "",
        **fields: str,
    ) -> str:
        """Move a batch by `event`, or only note `fields`: OK, STALE or RECOVER.

        `delay` is seconds until the next look, NEVER, or None to keep the claim; `unposted` 0 ends the reservation
        of the batch's count, a number makes it; `owning` is a remote batch that becomes this one's. Without a fence
        the move is a fact.
        """
        keys = self.store.keys
        wait = "" if delay is None else "never" if delay == NEVER else str(int(delay * 1000))
        return self.store.say(
            "advance",
            lane=keys.lane(batch.lane),
            batch=keys.batch(batch.lane, batch.uid),
            due=keys.due(batch.lane),
            fences=keys.fences(batch.lane),
            unposted=keys.unposted(batch.lane),
            remote=keys.remote(batch.lane, owning),
            uid=batch.uid,
            fence=fence,
            seen_state=batch.state,
            seen_attempt=batch.attempt,
            recovered="yes" if recovered else "no",
            state=follow(batch.state, event) if event else batch.state,
            delay_ms=wait,
            unposted_as="" if unposted is None else "no" if unposted == 0 else unposted,
            remote_seconds=REMOTE_SECONDS if owning else "",
            tail=[word for pair in fields.items() for word in pair],
        )

    def end(
        self,
        batch: Batch,
        event: Event,
        *,
        fence: str,
        ended_at: float | None,
        max_attempts: int,
        counts: RequestCounts | None = None,
        reason: str = "",
    ) -> str:
        """End a batch (its remote batch ended, or there is none) and fix by what its results will be judged."""
        now = repr(self.store.now())
        return self.advance(
            batch,
            event,
            fence=fence,
            unposted=0,
            ended_at=now if ended_at is None else repr(ended_at),
            judged_at=now,
            max_attempts=str(max_attempts),
            counts=spell_counts(counts) if counts else "",
            failures="0",
            misses="0",
            reason=reason,
        )

    def submit(
        self,
        batch: Batch,
        *,
        fence: str,
        head: str,
        head_at: float,
        durably: Durably,
        intent: str = "",
        deployment: str = "",
        ruled_out: Collection[str] = (),
    ) -> str:
        """Record, on disk, the intent to post: OK, STALE, PAUSED or RECOVER.

        `head` is the newest remote batch (empty: there is none), `head_at` when it was created, by the API's clock.
        `intent` is a random name by which whoever asked recognises a record whose answer was lost, `deployment` what
        the custom_ids begin with. `ruled_out` are remote batches that existed before: whatever the API will show of
        this POST, it is none of them.
        """
        keys = self.store.keys
        follow(batch.state, Event.SUBMIT)
        return durably(
            lambda client: self.store.say(
                "submit",
                on=client,
                lane=keys.lane(batch.lane),
                batch=keys.batch(batch.lane, batch.uid),
                fences=keys.fences(batch.lane),
                uid=batch.uid,
                fence=fence,
                seen_attempt=batch.attempt,
                head=head,
                head_at=repr(head_at),
                intent=intent,
                deployment=deployment,
                ruled_out=" ".join(sorted(ruled_out)),
            )
        )

    def accept(self, batch: Batch, attempt: int, remote: RemoteBatch, *, delay: float, workspace_id: str) -> str:
        """Record the API's answer to a create: OK, MINE or STALE."""
        keys = self.store.keys
        return self.store.say(
            "accept",
            batch=keys.batch(batch.lane, batch.uid),
            due=keys.due(batch.lane),
            fences=keys.fences(batch.lane),
            unposted=keys.unposted(batch.lane),
            remote=keys.remote(batch.lane, remote.id),
            uid=batch.uid,
            attempt=attempt,
            remote_id=remote.id,
            delay_ms=int(delay * 1000),
            remote_seconds=REMOTE_SECONDS,
            tail=[*remote_fields(remote, workspace_id=workspace_id), "seen", "", "ruled_out", "", "closed", ""],
        )

    def found(self, batch: Batch, remote: RemoteBatch, attempt: int, *, deployment: str = "") -> str:
        """Record a remote batch that recovery has proved to be this batch's: OK or STALE."""
        names = remote_fields(remote)
        fields: dict[str, Any] = dict(zip(names[::2], names[1::2], strict=True))
        posted_at = repr(batch.posted_at or self.store.now())
        return self.advance(
            batch,
            Event.FIND,
            unposted=0,
            owning=remote.id,
            remote_id=remote.id,
            attempt=str(max(attempt, batch.attempt)),
            deployment=deployment,
            posted_at=posted_at,
            **fields,
        )

    def adopt(self, batch: Batch, remote: RemoteBatch, *, fence: str, lanes: Sequence[str], alone: bool) -> str:
        """Take a remote batch for this attempt's: OK, STALE, SHARED, OWNED or RECOVER.

        `alone` adopts by count, and only while no other batch of `lanes` could be the one and all of them are
        recovered; else a token has proved it.
        """
        keys = self.store.keys
        order = [batch.lane, *(lane for lane in lanes if lane != batch.lane)]
        return self.store.say(
            "adopt",
            lane=keys.lane(batch.lane),
            batch=keys.batch(batch.lane, batch.uid),
            due=keys.due(batch.lane),
            fences=keys.fences(batch.lane),
            unposted=keys.unposted(batch.lane),
            lanes=len(order),
            uid=batch.uid,
            fence=fence,
            seen_attempt=batch.attempt,
            remote_id=remote.id,
            count=batch.count if alone else "",
            remote_seconds=REMOTE_SECONDS,
            tail=remote_fields(remote, guessed=alone),
            tail_keys=[
                *(keys.remote(lane, remote.id) for lane in order),
                *(keys.unposted(lane) for lane in order),
                *(keys.lane(lane) for lane in order),
            ],
        )

    def commit(self, batch: Batch, sink: str, *, fence: str) -> str:
        """Note that a sink has made the batch's rows durable, keeping the claim: OK or STALE."""
        fields: dict[str, Any] = {COMMIT + sink: repr(self.store.now())}
        return self.advance(batch, None, fence=fence, delay=None, **fields)

    def disown(self, batch: Batch, *, fence: str) -> str:
        """Give back a remote batch that is not ours after all; the doubt goes on: OK, STALE or RECOVER."""
        remote_id = batch.remote_id or ""
        answer = self.advance(
            batch,
            Event.DISOWN,
            fence=fence,
            recovered=True,
            unposted=batch.count,
            remote_id="",
            ruled_out=" ".join(sorted(batch.ruled_out | {remote_id})),
            doubt="lost",
            doubt_at=repr(self.store.now()),
        )
        if answer == "OK":
            self.store.read("delete", self.store.keys.remote(batch.lane, remote_id))
        return answer

    def owners(self, remote_ids: Sequence[str], lanes: Sequence[str]) -> set[str]:
        """Return which of these remote batches are already recorded as some batch's own."""
        pairs = [(lane, remote_id) for remote_id in remote_ids for lane in lanes]
        answers = self.store.read_all(("exists", self.store.keys.remote(lane, remote_id)) for lane, remote_id in pairs)
        return {remote_id for (_, remote_id), found in zip(pairs, answers, strict=True) if found == 1}

    def find(self, name: str, lanes: Sequence[str]) -> Batch | None:
        """Return a batch by our uid or by the API's id."""
        for lane in lanes:
            owner = self.store.read("get", self.store.keys.remote(lane, name))
            found = self.get(lane, owner.decode() if owner else name)
            if found is not None:
                return found
        return None

    def split(
        self, batch: Batch, parts: tuple[Part, Part], tail_uid: str, *, fence: str, probe: bool, delay: float
    ) -> str:
        """Cut a sealed batch in two: OK or STALE. With `probe`, the head is the parked lane's probe."""
        keys = self.store.keys
        pairs = [
            *(part_fields(parts[0], probe="1" if probe else "")),
            *(part_fields(parts[1], probe="")),
        ]
        return self.store.say(
            "split",
            batch=keys.batch(batch.lane, batch.uid),
            tail_batch=keys.batch(batch.lane, tail_uid),
            due=keys.due(batch.lane),
            fences=keys.fences(batch.lane),
            unposted=keys.unposted(batch.lane),
            unusable=keys.unusable(batch.lane, batch.uid),
            tail_unusable=keys.unusable(batch.lane, tail_uid),
            uid=batch.uid,
            fence=fence,
            seen_attempt=batch.attempt,
            tail_uid=tail_uid,
            head_count=parts[0].count,
            tail_count=parts[1].count,
            delay_ms=int(delay * 1000),
            pairs_each=len(pairs) // 4,
            tail=pairs,
        )

    def eject(self, batch: Batch, entry_id: str, flaw: Flaw, nbytes: int, *, fence: str) -> str:
        """Take one prompt of a sealed batch out of its body, whose size is then `nbytes`: OK or STALE."""
        keys = self.store.keys
        return self.store.say(
            "eject",
            batch=keys.batch(batch.lane, batch.uid),
            due=keys.due(batch.lane),
            fences=keys.fences(batch.lane),
            unposted=keys.unposted(batch.lane),
            unusable=keys.unusable(batch.lane, batch.uid),
            uid=batch.uid,
            fence=fence,
            seen_attempt=batch.attempt,
            entry_id=entry_id,
            flaw=flaw,
            count=batch.count - 1,
            bytes=nbytes,
        )

    def mend(self, batch: Batch, left: Remainder, *, fence: str) -> str:
        """Make a sealed batch what is left of it after somebody else's deletions: OK or STALE."""
        keys = self.store.keys
        return self.store.say(
            "mend",
            lane=keys.lane(batch.lane),
            batch=keys.batch(batch.lane, batch.uid),
            due=keys.due(batch.lane),
            fences=keys.fences(batch.lane),
            unposted=keys.unposted(batch.lane),
            uid=batch.uid,
            fence=fence,
            seen_attempt=batch.attempt,
            gone=batch.entries - left.entries,
            entries=left.entries,
            count=left.count,
            bytes=left.bytes,
        )

    def finish(
        self,
        batch: Batch,
        *,
        fence: str,
        retention: float,
        dead_before: float,
        leaving: bool = False,
        on: Any = None,
    ) -> str:
        """Close a delivered batch: OK, MINE, STALE, or LEFT while it has entries, unless it is `leaving` them.

        Dead letters older than `dead_before` (Unix s) are trimmed.
        `on` is a connection of `store.write_connection`, to make it durable.
        """
        keys = self.store.keys
        return self.store.say(
            "finish",
            on=on,
            batch=keys.batch(batch.lane, batch.uid),
            due=keys.due(batch.lane),
            fences=keys.fences(batch.lane),
            unposted=keys.unposted(batch.lane),
            unusable=keys.unusable(batch.lane, batch.uid),
            settled=keys.settled(batch.lane),
            dead=keys.dead(batch.lane),
            prompts=keys.prompts(batch.lane),
            uid=batch.uid,
            fence=fence,
            retention_seconds=max(1, int(retention)),
            dead_before=max(0, int(dead_before * 1000)),
            leaving="yes" if leaving else "no",
        )
