"""The lane's head is sealed; Redis restarts; lanes are recovered, at once or by token."""

from __future__ import annotations

from collections.abc import Iterator

from .outside import aged
from .setting import Setting
from .submitting import decided_here
from .words import EARLIER, GONE, INTENT, NEVER, NOW, OVER, SEALED, SUBMITTING
from .world import (
    GENERATION,
    NOBODY,
    Batch,
    Entries,
    Lane,
    Remote,
    Step,
    World,
    find,
    follow,
    spend,
    synced,
    with_lane,
    write,
)


def sealing(world: World, setting: Setting) -> Iterator[Step]:
    """Yield every seal: the script compares the cursor, so it is one step."""
    for number, lane in enumerate(world.lanes):
        if lane.waiting and decided_here(lane, setting):
            for count in range(1, min(setting.largest, len(lane.waiting)) + 1):
                body = lane.waiting[:count]
                sealed = _seal(world, number, body, lane.waiting[count:])
                sealed = sealed if setting.disk_catches_up else synced(sealed)
                yield Step(f"batch {world.uids} is sealed: {body}", sealed)


def _seal(world: World, number: int, body: Entries, rest: Entries) -> World:
    lane = world.lanes[number]._replace(waiting=rest)
    batch = Batch(world.uids, number, body, SEALED, world.uids)
    return write(world, batch, lanes=with_lane(world, number, lane), uids=1)


def restarting(world: World, setting: Setting) -> Iterator[Step]:
    """Yield syncs of the disk, restarts of Redis from it, and every rescuer's steps."""
    if world.disk is not None and setting.disk_catches_up:
        yield Step("Redis' disk catches up", synced(world))
    if world.faults.restarts:
        yield Step("Redis restarts with what is on disk", _restart(world, setting), fault=True)
    for number, lane in enumerate(world.lanes):
        if lane.past == NEVER:
            forgotten = world.lives > 0 and setting.rules.lost_past_is_no_new_lane
            past = EARLIER if forgotten else NOW
            lanes = with_lane(world, number, lane._replace(past=past))
            yield Step(f"lane {number} has no past: {past}", write(world, lanes=lanes))
        elif lane.past == EARLIER:
            yield from _recover(world, setting, number, lane)


def _restart(world: World, setting: Setting) -> World:
    lanes, batches = world.disk or (world.lanes, world.batches)
    back = []
    for lane in lanes:
        past = NOW if setting.barrier else NEVER if lane.past == NEVER else EARLIER
        waited = lane.waited and not setting.rules.recovery_is_of_one_life
        back.append(lane._replace(past=past, waited=waited))
    posts, workers = world.posts, world.workers
    if not setting.barrier:
        posts = tuple(post._replace(old=True) for post in posts)
        workers = tuple(worker._replace(old=worker.stage == INTENT) for worker in workers)
    return spend(world, "restarts")._replace(
        lanes=tuple(back),
        batches=batches,
        disk=None,
        letters=(),
        posts=posts,
        workers=workers,
        lives=world.lives + 1,
    )


def _recover(world: World, setting: Setting, number: int, lane: Lane) -> Iterator[Step]:
    if not lane.waited:
        if not any(post.old for post in world.posts) or not setting.rules.recovery_waits:
            frozen = {worker.intent for worker in world.workers if worker.old}
            lanes = with_lane(world, number, lane._replace(waited=True))
            yield Step(f"the horizon of lane {number}'s recovery passes", aged(write(world, lanes=lanes), frozen))
        return
    known = {batch.remote for batch in world.batches}
    unknown = [
        (place, remote) for place, remote in enumerate(world.remotes) if remote.status != GONE and place not in known
    ]
    if setting.rules.recovery_needs_ends and any(remote.status != OVER for _, remote in unknown):
        return
    ours = [(place, remote) for place, remote in unknown if remote.token >= 0 and remote.status == OVER]
    for place, remote in sorted(ours, key=lambda pair: pair[1].body):
        world = _take_in(world, setting, number, place, remote)
    recovered = world.lanes[number]._replace(past=NOW, waited=False)
    yield Step(f"lane {number} is recovered", write(world, lanes=with_lane(world, number, recovered)))


def lane_of(setting: Setting, entry: int) -> int:
    """Return the lane that a prompt is in."""
    prompt = entry % GENERATION
    for number, count in enumerate(setting.prompts):
        if prompt < count:
            return number
        prompt -= count
    raise ValueError(entry)


def _take_in(world: World, setting: Setting, number: int, place: int, remote: Remote) -> World:
    """Give a remote batch of ours back to its record, which is sealed again where Redis has forgotten it."""
    at = find(world.batches, remote.token)
    if at < 0:
        if lane_of(setting, remote.body[0]) != number:
            return world
        world = _rebuild(world, setting, number, remote)
        at = find(world.batches, remote.token)
        if at < 0:
            return world
    batch = world.batches[at]
    if batch.lane != number or batch.state not in (SEALED, SUBMITTING) or len(batch.body) != len(remote.body):
        return world
    return write(world, batch._replace(state=follow(batch, "find"), remote=place, holder=NOBODY))


def _rebuild(world: World, setting: Setting, number: int, remote: Remote) -> World:
    waiting = world.lanes[number].waiting
    if remote.body[0] not in waiting:
        return world  # settled long ago, or behind the cursor in a batch that a split made
    first, last = waiting.index(remote.body[0]), waiting.index(remote.body[-1])
    before = waiting[:first]
    while before:
        piece = before[: setting.largest]
        world = _seal(world, number, piece, world.lanes[number].waiting[len(piece) :])
        before = before[len(piece) :]
    entries = waiting[first : last + 1]
    batch = Batch(
        remote.token,
        number,
        remote.body,
        SEALED,
        remote.token,
        out=tuple(entry for entry in entries if entry not in remote.body),
    )
    lane = world.lanes[number]._replace(waiting=waiting[last + 1 :])
    return write(world, batch, lanes=with_lane(world, number, lane))
