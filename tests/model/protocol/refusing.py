"""What follows a definite refusal: wait, park the lane, cut the batch in two, or take one prompt out."""

from __future__ import annotations

from collections.abc import Iterator

from .setting import Setting
from .submitting import fence_says, split
from .words import BY_REFUSAL, JUDGING, SEALED
from .world import NOBODY, Batch, Step, Worker, World, becomes, follow, get, idle, with_lane, write


def refusing(world: World, setting: Setting) -> Iterator[Step]:
    """Yield what every worker with a refusal may decide, and the end of batches that have nothing left to post."""
    for number, worker in enumerate(world.workers, 1):
        if worker.stage == JUDGING:
            yield from _judge(world, setting, number, worker)
    for batch in world.batches:
        if batch.state == SEALED and not batch.body:
            ended = batch._replace(state=follow(batch, "skip"), holder=NOBODY)
            yield Step(f"batch {batch.uid} has nothing to post", write(world, ended))


def _judge(world: World, setting: Setting, number: int, worker: Worker) -> Iterator[Step]:
    batch = get(world, worker.uid)
    free = becomes(world, number, idle(worker))
    if batch is None or batch.state != SEALED or batch.attempt != worker.attempt:
        yield Step(f"w{number} comes too late to judge", free)
        return
    for valid in fence_says(world, setting, number, batch):
        if not valid:
            yield Step(f"w{number} comes too late to judge", free)
            continue
        for verdict in setting.after_refusal:
            yield from _carry_out(free, setting, batch, verdict)


def _carry_out(world: World, setting: Setting, batch: Batch, verdict: str) -> Iterator[Step]:
    loose = batch._replace(holder=NOBODY)
    if verdict == "wait":
        yield Step(f"batch {batch.uid} waits", write(world, loose))
    elif verdict == "park":
        lane = world.lanes[batch.lane]
        lanes = with_lane(world, batch.lane, lane._replace(parked=lane.parked or BY_REFUSAL))
        yield Step(f"lane {batch.lane} is parked", write(world, loose, lanes=lanes))
    elif verdict == "split" and len(batch.body) > 1:
        half = len(batch.body) // 2
        yield Step(f"batch {batch.uid} is cut in two", split(world, setting, batch, half, probe=False))
    elif verdict == "eject":
        for entry in batch.body:
            rest = tuple(other for other in batch.body if other != entry)
            without = loose._replace(body=rest, out=(*batch.out, entry))
            yield Step(f"entry {entry} is taken out of batch {batch.uid}", write(world, without))
