"""The poller and the drainer: the end of a remote batch, the sink, and what becomes of each prompt."""

from __future__ import annotations

from collections.abc import Iterator

from .setting import Setting
from .submitting import decided_here, fence_says, unparked
from .words import (
    BY_REFUSAL,
    BY_ROWS,
    DELIVERED,
    ENDED,
    GONE,
    IDLE,
    IN_PROGRESS,
    LOST,
    OVER,
    READING,
    SETTLING,
    SUNK,
)
from .world import (
    GENERATION,
    NOBODY,
    Batch,
    Entries,
    Remote,
    Step,
    Worker,
    World,
    becomes,
    follow,
    get,
    idle,
    with_lane,
    write,
)


def polling(world: World, setting: Setting) -> Iterator[Step]:  # noqa: ARG001 - all steps are called alike
    """Yield what the poller finds; an end cannot be undone, so its look and its write are one step."""
    for batch in world.batches:
        if batch.state == IN_PROGRESS:
            status = world.remotes[batch.remote].status
            if status == OVER:
                ended = batch._replace(state=follow(batch, "end"), holder=NOBODY)
                yield Step(f"batch {batch.uid} has ended", write(world, ended))
            elif status == GONE:
                held = batch._replace(state=follow(batch, "hold"), holder=NOBODY)
                yield Step(f"batch {batch.uid} is held: its remote batch was deleted", write(world, held))


def safe_end(world: World, setting: Setting) -> Step | None:
    """Return the end of a batch whose remote one is surely its own, where only "at once" is asked about drains."""
    faults = setting.faults
    if setting.steps_of_drain or setting.deletes_settled or faults.deletions or faults.expiries or faults.troubles:
        return None
    for batch in world.batches:
        if batch.state == IN_PROGRESS and not world.lanes[batch.lane].parked:
            remote = world.remotes[batch.remote]
            if remote.status == OVER and remote.token == batch.token:
                ended = batch._replace(state=follow(batch, "end"))
                return _at_once(write(world, ended), setting, ended)
    return None


def draining(world: World, setting: Setting) -> Iterator[Step]:
    """Yield every step of every drainer."""
    for batch in world.batches:
        if batch.state in (ENDED, DELIVERED):
            yield from _open(world, setting, batch)
    if setting.steps_of_drain:
        for number, worker in enumerate(world.workers, 1):
            if worker.stage in (READING, SUNK, SETTLING):
                yield from _go_on(world, setting, number, worker)


def _open(world: World, setting: Setting, batch: Batch) -> Iterator[Step]:
    """Read the results: they are there, or gone, or somebody else's."""
    remote = world.remotes[batch.remote] if batch.remote >= 0 else None
    loose = batch._replace(holder=NOBODY)
    if remote is not None and remote.status == GONE:
        held = loose._replace(state=follow(batch, "hold"))
        yield Step(f"batch {batch.uid} is held: its results were deleted", write(world, held))
    elif remote is not None and remote.token != batch.token and setting.rules.tokens_at_delivery:
        yield from _disown(world, setting, loose)
    elif setting.steps_of_drain:
        for number, worker in enumerate(world.workers, 1):
            if worker.stage == IDLE:
                stage = READING if batch.state == ENDED else SETTLING
                reading = Worker(stage, batch.uid, body=batch.body + batch.out, unsent=worker.unsent)
                claimed = becomes(write(world, batch._replace(holder=number)), number, reading)
                yield Step(f"w{number} reads the results of batch {batch.uid}", claimed)
    else:
        yield _at_once(world, setting, batch)


def _at_once(world: World, setting: Setting, batch: Batch) -> Step:
    """Take a drain from its beginning to its end."""
    world = write(_sink(world, batch), batch._replace(state=follow(batch, "deliver")))
    for entry in batch.body + batch.out:
        world = _settle(world, setting, batch.uid, entry)
    return Step(f"batch {batch.uid} has ended, is delivered and settled", _finish(world, setting, batch.uid))


def _disown(world: World, setting: Setting, batch: Batch) -> Iterator[Step]:
    if not batch.guessed:
        held = batch._replace(state=follow(batch, "hold"))
        yield Step(f"batch {batch.uid} is held: its results do not add up", write(world, held))
    elif decided_here(world.lanes[batch.lane], setting):
        state, ruled_out = follow(batch, "disown"), batch.ruled_out | 1 << batch.remote
        given = batch._replace(state=state, remote=-1, guessed=False, ruled_out=ruled_out, doubt=LOST)
        yield Step(f"batch {batch.uid} gives remote {batch.remote} back", write(world, given))


def _go_on(world: World, setting: Setting, number: int, worker: Worker) -> Iterator[Step]:
    batch = get(world, worker.uid)
    free = becomes(world, number, idle(worker))
    if batch is None or batch.state not in (ENDED, DELIVERED):
        yield Step(f"w{number} comes too late", free)
    elif worker.stage == READING and setting.rules.delivered_before_settled:
        sunk = becomes(_sink(world, batch), number, worker._replace(stage=SUNK))
        yield Step(f"w{number} commits the rows of batch {batch.uid}", sunk)
    else:
        for valid in fence_says(world, setting, number, batch):
            if valid:
                yield from _commit(world, setting, number, worker, batch)
            else:
                yield Step(f"w{number} comes too late", free)


def _commit(world: World, setting: Setting, number: int, worker: Worker, batch: Batch) -> Iterator[Step]:
    entries = batch.body + batch.out
    if batch.state == ENDED:
        delivered = batch._replace(state=follow(batch, "deliver"))
        settling = becomes(write(world, delivered), number, worker._replace(stage=SETTLING))
        yield Step(f"batch {batch.uid} is delivered", settling)
    elif entries and not setting.rules.settled_at_once and not worker.flag:
        copied = becomes(_put_back(world, setting, batch, entries[0]), number, worker._replace(flag=True))
        yield Step(f"entry {entries[0]} is put back, if it is to be", copied)
    elif entries:
        settled = _settle(world, setting, batch.uid, entries[0], put_back=not worker.flag)
        settled = becomes(settled, number, worker._replace(flag=False))
        yield Step(f"entry {entries[0]} is settled", settled)
    else:
        finished = becomes(_finish(world, setting, batch.uid), number, idle(worker))
        if not setting.rules.delivered_before_settled:
            finished = _sink(finished, batch._replace(body=worker.body, out=()))
        yield Step(f"batch {batch.uid} is settled", finished)


def _remote(world: World, batch: Batch) -> Remote:
    return world.remotes[batch.remote] if batch.remote >= 0 else Remote(batch.token, ())


def _sink(world: World, batch: Batch) -> World:
    """Commit a file named after the batch: the first one stands."""
    if any(uid == batch.uid for uid, _ in world.rows):
        return world
    remote = _remote(world, batch)
    rows = [(batch.uid, entry) for entry in batch.body + batch.out if entry not in remote.free]
    return world._replace(rows=tuple(sorted((*world.rows, *rows))))


def _settle(world: World, setting: Setting, uid: int, entry: int, *, put_back: bool = True) -> World:
    """Settle one prompt as its result says; a second reading finds only the entries that are still there."""
    batch = get(world, uid)
    if batch is None:
        return world
    if put_back:
        world = _put_back(world, setting, batch, entry)
    return write(world, batch._replace(body=_without(batch.body, entry), out=_without(batch.out, entry)))


def _put_back(world: World, setting: Setting, batch: Batch, entry: int) -> World:
    remote = _remote(world, batch)
    lane = world.lanes[batch.lane]
    if remote.trouble:
        lane = lane._replace(parked=lane.parked or BY_ROWS)
    if entry in remote.free or not setting.rules.only_free_again:
        lane = lane._replace(waiting=(*lane.waiting, entry + GENERATION))
    return write(world, lanes=with_lane(world, batch.lane, lane))


def _without(entries: Entries, gone: int) -> Entries:
    return tuple(entry for entry in entries if entry != gone)


def _finish(world: World, setting: Setting, uid: int) -> World:
    batch = get(world, uid)
    if batch is None:
        return world
    remote = _remote(world, batch)
    lanes = world.lanes
    if batch.probe and not remote.trouble:
        lanes = unparked(world, batch.lane, BY_REFUSAL, BY_ROWS)
    settled = batch._replace(state=follow(batch, "settle"), holder=NOBODY)
    world = write(world, settled, lanes=lanes)
    if setting.deletes_settled and batch.remote >= 0:
        gone = remote._replace(status=GONE)
        world = world._replace(remotes=(*world.remotes[: batch.remote], gone, *world.remotes[batch.remote + 1 :]))
    return world
