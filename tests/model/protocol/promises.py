"""What must be true of every state, and what must stay within reach."""

from __future__ import annotations

from .setting import Setting
from .words import DELIVERED, HELD, NOW, SETTLED, SETTLING
from .world import GENERATION, World

NB = "NB: a prompt is in two remote batches that cost something"
OWN_TWICE = "OWN: two records own one remote batch"
OWN_FOREIGN = "OWN: results were delivered as those of another batch"
ROW_TWICE = "NB: a prompt has two rows"
NL = "NL: a prompt is neither waiting nor in a batch nor in the sink"
NL_STUCK = "NL: a state from which the prompts cannot all arrive without a further fault"


def broken(world: World, setting: Setting) -> str | None:
    """Return the promise that this state breaks."""
    return _paid_twice(world) or _owned_wrongly(world) or _lost(world, setting)


def _paid_twice(world: World) -> str | None:
    billed: dict[int, int] = {}
    for remote in world.remotes:
        if remote.token >= 0:
            for entry in remote.body:
                if entry not in remote.free:
                    prompt = entry % GENERATION
                    billed[prompt] = billed.get(prompt, 0) + 1
                    if billed[prompt] > 1 + world.broken:  # each broken assumption costs one batch at most
                        return NB
    rows: dict[int, int] = {}
    for _, entry in world.rows:
        prompt = entry % GENERATION
        if prompt in rows:
            return ROW_TWICE
        rows[prompt] = 1
    return None


def _owned_wrongly(world: World) -> str | None:
    owned = [batch.remote for batch in world.batches if batch.remote >= 0]
    if len(set(owned)) < len(owned):
        return OWN_TWICE
    for batch in world.batches:
        if (
            batch.state in (DELIVERED, SETTLED)
            and batch.remote >= 0
            and world.remotes[batch.remote].token != batch.token
        ):
            return OWN_FOREIGN
    return None


def _lost(world: World, setting: Setting) -> str | None:
    there = {entry % GENERATION for _, entry in world.rows}
    for lane in world.lanes:
        there.update(entry % GENERATION for entry in lane.waiting)
    for batch in world.batches:
        there.update(entry % GENERATION for entry in batch.body + batch.out)
    for worker in world.workers:
        if worker.stage == SETTLING and not setting.rules.delivered_before_settled:
            there.update(entry % GENERATION for entry in worker.body)  # its rows are still to be written
    return None if len(there) == sum(setting.prompts) else NL


def arrived(world: World) -> bool:
    """Whether every prompt is settled, or held for a human."""
    if any(lane.waiting or lane.past != NOW for lane in world.lanes):
        return False
    return all(batch.state in (SETTLED, HELD) for batch in world.batches)
