"""The reconciler: a listing, and what `core.reconcile.conclude` and the script `adopt` make of it."""

from __future__ import annotations

from collections.abc import Iterator

from .setting import Setting
from .submitting import decided_here, fence_says, unparked
from .words import BY_REFUSAL, CERTAIN, DUE, GONE, IDLE, LISTED, LOST, OVER, SUBMITTING
from .world import NOBODY, Batch, Step, Worker, World, becomes, follow, get, holds_count, idle, write


def reconciling(world: World, setting: Setting) -> Iterator[Step]:
    """Yield every step of every reconciler."""
    for number, worker in enumerate(world.workers, 1):
        if worker.stage == IDLE:
            for batch in world.batches:
                if batch.state == SUBMITTING:
                    yield from _look(world, setting, number, worker, batch)
        elif worker.stage == LISTED:
            yield from _decide(world, setting, number, worker)


def _look(world: World, setting: Setting, number: int, worker: Worker, batch: Batch) -> Iterator[Step]:
    if batch.intent in worker.unsent:
        back = batch._replace(state=follow(batch, "refuse"), holder=NOBODY)
        unsent = tuple(name for name in worker.unsent if name != batch.intent)
        words = f"w{number} knows that intent {batch.intent} was never sent"
        yield Step(words, becomes(write(world, back), number, Worker(unsent=unsent)))
        return
    if batch.doubt == CERTAIN:
        batch = batch._replace(doubt=LOST)
    due = batch.doubt in DUE or not setting.rules.absent_after_horizon
    listed = _listing(world, setting, batch)
    if not due and not _newer(world, batch, listed) and not batch.seen:
        if batch.holder != NOBODY or batch.doubt != _doubt_on_record(world, batch):
            dated = write(world, batch._replace(holder=NOBODY))
            yield Step(f"w{number} finds batch {batch.uid} in doubt, and nothing new", dated)
        return
    seen = Worker(LISTED, batch.uid, batch.attempt, number=listed, flag=due, unsent=worker.unsent)
    words = f"w{number} lists for batch {batch.uid}" + (" behind the horizon" if due else "")
    yield Step(words, becomes(write(world, batch._replace(holder=number)), number, seen))


def _doubt_on_record(world: World, batch: Batch) -> str:
    held = get(world, batch.uid)
    return CERTAIN if held is None else held.doubt


def _listing(world: World, setting: Setting, batch: Batch) -> int:
    listed = 0
    for number, remote in enumerate(world.remotes):
        if remote.status != GONE:
            listed |= 1 << number
    if not setting.rules.head_is_an_id:
        listed &= ~(1 << batch.head)  # our clock is ahead: the first one after the head looks too old
    return listed


def _newer(world: World, batch: Batch, listed: int) -> list[int]:
    """Return the listed remote batches that could be the batch's, whoever owns them."""
    count = len(batch.body)
    return [
        number
        for number in range(batch.head, batch.closed or len(world.remotes))
        if listed >> number & 1 and not batch.ruled_out >> number & 1 and len(world.remotes[number].body) == count
    ]


def owned(world: World, setting: Setting) -> int:
    """Return a bit for each remote batch that some record owns."""
    bits = 0
    if setting.rules.owned_is_owned:
        for batch in world.batches:
            if batch.remote >= 0:
                bits |= 1 << batch.remote
    return bits


def _decide(world: World, setting: Setting, number: int, worker: Worker) -> Iterator[Step]:
    batch = get(world, worker.uid)
    free = becomes(world, number, idle(worker))
    if batch is None or batch.state != SUBMITTING or batch.attempt != worker.attempt:
        yield Step(f"w{number} comes too late to conclude", free)
        return
    for valid in fence_says(world, setting, number, batch):
        if valid:
            yield from _conclude(free, setting, worker, batch)
        else:
            yield Step(f"w{number} comes too late to conclude", free)


def _conclude(world: World, setting: Setting, worker: Worker, batch: Batch) -> Iterator[Step]:
    taken = owned(world, setting)
    loose = batch._replace(holder=NOBODY)
    missed = batch.seen & ~worker.number & ~batch.ruled_out & ~taken
    candidates = [number for number in _newer(world, batch, worker.number) if not taken >> number & 1]
    if not candidates:
        if worker.flag and missed and setting.rules.missed_is_held:
            held = loose._replace(state=follow(batch, "hold"))
            yield Step(f"batch {batch.uid} is held: a candidate was deleted", write(world, held))
        elif worker.flag and decided_here(world.lanes[batch.lane], setting):
            again = loose._replace(state=follow(batch, "absent"))
            yield Step(f"batch {batch.uid} is absent", write(world, again))
        else:
            yield Step(f"batch {batch.uid}: nothing is proved", write(world, loose))
        return
    if worker.flag and not batch.closed:
        batch = batch._replace(closed=worker.number.bit_length())
    by_count = setting.exclusive and len(candidates) == 1 and not missed
    if by_count and not decided_here(world.lanes[batch.lane], setting):
        yield Step(f"batch {batch.uid}: its lane is not recovered", write(world, loose))
    elif by_count and not _all_recovered(world, setting):
        yield Step(f"batch {batch.uid}: another lane is not recovered", write(world, loose))
    elif (by_count and _is_alone(world, setting, batch)) or not setting.rules.token_when_shared:
        yield _adopt(world, batch, candidates[0], guessed=True)
    else:
        yield _peek(world, setting, batch, candidates)


def _all_recovered(world: World, setting: Setting) -> bool:
    return not setting.rules.all_lanes_recovered or all(decided_here(lane, setting) for lane in world.lanes)


def _is_alone(world: World, setting: Setting, batch: Batch) -> bool:
    """Whether no other batch has its count among those that may still create a remote one."""
    if not setting.rules.sole_holder:
        return True
    return not any(
        other.uid != batch.uid
        and len(other.body) == len(batch.body)
        and holds_count(other)
        and (other.lane == batch.lane or setting.rules.counts_of_all_lanes)
        for other in world.batches
    )


def _adopt(world: World, batch: Batch, number: int, *, guessed: bool) -> Step:
    adopted = batch._replace(state=follow(batch, "adopt"), remote=number, guessed=guessed, holder=NOBODY)
    lanes = unparked(world, batch.lane, BY_REFUSAL)
    how = "by its count" if guessed else "by its token"
    return Step(f"batch {batch.uid} adopts remote {number} {how}", write(world, adopted, lanes=lanes))


def _peek(world: World, setting: Setting, batch: Batch, candidates: list[int]) -> Step:
    ended = [number for number in candidates if world.remotes[number].status == OVER]
    ruled_out = batch.ruled_out
    for number in ended:
        if world.remotes[number].token == batch.token:
            if decided_here(world.lanes[batch.lane], setting):
                return _adopt(world, batch, number, guessed=False)
            return Step(f"batch {batch.uid}: its lane is not recovered", write(world, batch._replace(holder=NOBODY)))
        ruled_out |= 1 << number
    seen = batch.seen
    if setting.faults.deletions:
        for number in candidates:
            seen |= 1 << number
    noted = batch._replace(seen=seen, ruled_out=ruled_out, holder=NOBODY)
    words = "rules out " + str(ended) if ended else "waits for the end of " + str(candidates)
    return Step(f"batch {batch.uid} {words}", write(world, noted))
