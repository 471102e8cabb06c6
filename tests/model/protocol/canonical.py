"""One state for all that differ in nothing that matters: what is dead is cleared, equal workers are sorted.

Every rule here claims that two states have the same future. A worker whose commit must be refused is idle, a record
keeps only what its state is asked for, an attempt's number counts from the oldest that can still be named.
"""

from __future__ import annotations

from .setting import Setting
from .words import (
    CERTAIN,
    DELIVERED,
    ENDED,
    HELD,
    IDLE,
    INTENT,
    JUDGING,
    LISTED,
    OVERLOAD,
    READING,
    READY,
    REFUSED,
    SEALED,
    SETTLED,
    SETTLING,
    SUBMITTING,
    SUNK,
    UNSENT,
    WAITING,
)
from .world import A_LETTER, NOBODY, Batch, Disk, Worker, World, find

_NEEDS = {
    READY: (SEALED,),
    JUDGING: (SEALED,),
    LISTED: (SUBMITTING,),
    READING: (ENDED, DELIVERED),
    SUNK: (ENDED, DELIVERED),
    SETTLING: (ENDED, DELIVERED),
}
"""The states in which a stage's commit can be accepted."""

_OF_AN_ATTEMPT = (READY, JUDGING, LISTED)
_FENCED = (*_NEEDS, REFUSED)


def canonical(world: World, setting: Setting) -> World:
    """Return the one that stands for all states with this one's future."""
    workers = tuple(_without_futile(world, setting, number, worker) for number, worker in enumerate(world.workers, 1))
    world = world._replace(workers=workers, lives=min(world.lives, 1), posts=tuple(sorted(world.posts)))
    if world.letters:
        letters = tuple(letter for letter in world.letters if _may_arrive(world, setting, letter.uid, letter.attempt))
        world = world._replace(letters=letters)
    world = _recounted(_forgetful(world))
    fenced = {n for n, worker in enumerate(world.workers, 1) if _needs_fence(world, worker)}
    lettered = {letter.uid for letter in world.letters}
    order = sorted(range(len(world.workers)), key=lambda at: world.workers[at])
    renamed = {at + 1: place + 1 for place, at in enumerate(order)}
    workers = tuple(world.workers[at] for at in order)

    def tidy(batches: tuple[Batch, ...]) -> tuple[Batch, ...]:
        return tuple(_tidy(batch, fenced, lettered, renamed) for batch in batches)

    disk = world.disk
    if disk is not None:
        disk = Disk(disk.lanes, tidy(disk.batches))
    batches = tidy(world.batches)
    if disk is not None and disk.batches == batches and disk.lanes == world.lanes:
        disk = None
    return world._replace(workers=workers, batches=batches, disk=disk)


def _records(world: World, uid: int) -> list[Batch]:
    """Return the records that the uid has, in memory and on disk."""
    found = []
    for batches in (world.batches, () if world.disk is None else world.disk.batches):
        place = find(batches, uid)
        if place >= 0:
            found.append(batches[place])
    return found


def _without_futile(world: World, setting: Setting, number: int, worker: Worker) -> Worker:
    stage = worker.stage
    needs: tuple[str, ...] | None = _NEEDS.get(stage)
    if needs is None or (setting.faults.restarts and not setting.rules.fences_outlive_restarts):
        return worker
    if stage == READY and not setting.rules.write_ahead:
        return worker
    if stage == SETTLING and not setting.rules.delivered_before_settled:
        return worker
    for batch in _records(world, worker.uid):
        same = stage not in _OF_AN_ATTEMPT or batch.attempt == worker.attempt
        if same and batch.state in needs and (batch.holder == number or not setting.rules.fences):
            return worker
    return Worker(unsent=worker.unsent)


def _may_arrive(world: World, setting: Setting, uid: int, attempt: int) -> bool:
    place = find(world.batches, uid)
    batch = world.batches[place]
    fresh = batch.holder == A_LETTER or not setting.rules.fences
    return place >= 0 and batch.state == SEALED and batch.attempt == attempt and fresh


def _forgetful(world: World) -> World:
    """Forget unsent intents that no record or letter has."""
    if not any(worker.unsent for worker in world.workers):
        return world
    named = {letter.intent for letter in world.letters} | {batch.intent for batch in world.batches}
    if world.disk is not None:
        named |= {batch.intent for batch in world.disk.batches}
    workers = tuple(
        worker._replace(unsent=tuple(sorted(set(worker.unsent) & named))) if worker.unsent else worker
        for worker in world.workers
    )
    return world._replace(workers=workers)


def _recounted(world: World) -> World:
    """Count each batch's attempts from the oldest on record; a worker's older one can never be named again."""
    oldest: dict[int, int] = {}
    for batches in (world.batches, () if world.disk is None else world.disk.batches):
        for batch in batches:
            oldest[batch.uid] = min(oldest.get(batch.uid, batch.attempt), batch.attempt)
    if not any(oldest.values()) and all(worker.stage == IDLE for worker in world.workers):
        return world

    def recount(batches: tuple[Batch, ...]) -> tuple[Batch, ...]:
        return tuple(batch._replace(attempt=batch.attempt - oldest[batch.uid]) for batch in batches)

    workers = []
    for held in world.workers:
        worker = held
        if worker.uid in oldest and worker.stage in (*_OF_AN_ATTEMPT, INTENT, UNSENT, WAITING, OVERLOAD, REFUSED):
            counted = max(-1, worker.attempt - oldest[worker.uid])
            over = counted < 0 and worker.stage in (UNSENT, OVERLOAD, REFUSED)
            worker = Worker(unsent=worker.unsent) if over else worker._replace(attempt=counted)
        workers.append(worker)
    letters = tuple(letter._replace(attempt=letter.attempt - oldest.get(letter.uid, 0)) for letter in world.letters)
    disk = world.disk
    if disk is not None:
        disk = Disk(disk.lanes, recount(disk.batches))
    return world._replace(batches=recount(world.batches), disk=disk, workers=tuple(workers), letters=letters)


def _needs_fence(world: World, worker: Worker) -> bool:
    if worker.stage in _FENCED:
        return True
    return worker.stage in (INTENT, WAITING) and world.faults.refusals > 0


def _tidy(batch: Batch, fenced: set[int], lettered: set[int], renamed: dict[int, int]) -> Batch:
    holder = batch.holder
    if holder == A_LETTER:
        holder = A_LETTER if batch.uid in lettered else NOBODY
    elif holder:
        holder = renamed[holder] if holder in fenced else NOBODY
    state = batch.state
    if state == SUBMITTING:
        return batch if holder == batch.holder else batch._replace(holder=holder)
    if state == SETTLED:
        return Batch(batch.uid, batch.lane, (), SETTLED, batch.token, remote=batch.remote)
    doubted = batch.guessed and state != HELD
    return Batch(
        batch.uid,
        batch.lane,
        batch.body,
        state,
        batch.token,
        out=batch.out,
        attempt=batch.attempt if state == SEALED or doubted else 0,
        holder=NOBODY if state == HELD else holder,
        head=batch.head if doubted else 0,
        intent=batch.intent if doubted else 0,
        doubt=CERTAIN,
        seen=batch.seen if doubted else 0,
        ruled_out=batch.ruled_out if doubted else 0,
        closed=batch.closed if doubted else 0,
        remote=batch.remote,
        guessed=doubted,
        probe=batch.probe,
    )
