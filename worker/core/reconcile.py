"""Ending the doubt: what a complete listing proves about a POST whose answer nobody saw.

A remote batch made by the POST is newer than `head`, has our count, and its results carry our token. Until an ended
candidate's token has been read, only an exclusive workspace may take the lone candidate for ours; absence is proved
by a listing that began after the horizon and shows no candidate at all.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from worker.core.model import Batch, RemoteBatch


@dataclass(frozen=True, slots=True)
class Adopt:
    """The lone candidate of an exclusive workspace is ours, unless another batch of ours could have made it."""

    remote: RemoteBatch


@dataclass(frozen=True, slots=True)
class Peek:
    """Read the first result lines of each of these ended candidates; `seen` and `closed` as in `LookAgain`."""

    remotes: tuple[RemoteBatch, ...]
    seen: frozenset[str]
    closed: bool = False


@dataclass(frozen=True, slots=True)
class LookAgain:
    """Nothing is proved yet; these candidates have been seen. `closed`: what is not among them by now is not ours."""

    seen: frozenset[str]
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Absent:
    """The POST made nothing and never will: the batch may be sent again."""


@dataclass(frozen=True, slots=True)
class Hold:
    """No rule can decide: what could have been ours is gone."""

    reason: str


Conclusion = Adopt | Peek | LookAgain | Absent | Hold


def made_before(listed: Iterable[RemoteBatch], count: int, *, since: float) -> set[str]:
    """Return the ids of what is listed before a POST of `count` prompts and might be taken for it later.

    A listing of what is newer than the head needs the head; once that is deleted, one goes back in time instead, to
    `since`, and shows what was there before. Of somebody else's batches among them some are deleted meanwhile.
    """
    return {remote.id for remote in listed if remote.counts.total == count and remote.created_at >= since}


def conclude(
    batch: Batch,
    listed: Sequence[RemoteBatch],
    *,
    owned: AbstractSet[str],
    began_at: float,
    horizon: float,
    exclusive: bool,
) -> Conclusion:
    """Say what follows from a complete listing of everything newer than `batch.head`.

    `owned` are listed remote batches that some batch of ours is known to own. `began_at` is when the listing began,
    by the ledger's clock; `horizon` is in seconds after the doubt began. The first listing behind the horizon shows
    what the POST made, if anything: what appears later is somebody else's, and who creates batches of our size all the
    time must not keep us waiting.
    """
    decided = batch.doubt_at is not None and began_at >= batch.doubt_at + horizon
    missed = batch.seen - {remote.id for remote in listed} - batch.ruled_out - owned
    candidates = [
        remote
        for remote in listed
        if remote.counts.total == batch.count
        and remote.id not in owned
        and remote.id not in batch.ruled_out
        and (not batch.closed or remote.id in batch.seen)
    ]
    if not candidates:
        if decided and missed:
            return Hold("a remote batch that may have been ours was deleted")
        return Absent() if decided else LookAgain(batch.seen)
    if exclusive and len(candidates) == 1 and not missed:
        return Adopt(candidates[0])
    seen = batch.seen | {remote.id for remote in candidates}
    ended = tuple(remote for remote in candidates if remote.status == "ended" and remote.archived_at is None)
    if ended:
        return Peek(ended, seen, decided)
    if all(remote.archived_at is not None for remote in candidates):
        return Hold("the results of a remote batch that may be ours are archived")
    return LookAgain(seen, decided)
