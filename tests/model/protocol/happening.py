"""All that may happen next in a state."""

from __future__ import annotations

from collections.abc import Iterator

from .canonical import canonical
from .draining import draining, polling, safe_end
from .outside import network, remote_ends, time_passes
from .reconciling import reconciling
from .redis_life import restarting, sealing
from .refusing import refusing
from .setting import Setting
from .submitting import arrival, submitting
from .words import IDLE, NEVER, NOW
from .world import Step, Worker, World, becomes, spend, start

ACTIONS = (
    sealing,
    submitting,
    arrival,
    refusing,
    reconciling,
    polling,
    draining,
    network,
    remote_ends,
    time_passes,
    restarting,
)


def first(setting: Setting) -> World:
    """Return the state in which a row begins."""
    past = NOW if setting.barrier else NEVER
    return canonical(start(setting.prompts, setting.workers, setting.faults, past=past), setting)


def steps(world: World, setting: Setting) -> Iterator[Step]:
    """Yield every step, in an order that does not change.

    A good end that nothing can spoil any more is taken first and alone: it commutes with all else that may happen.
    """
    end = safe_end(world, setting)
    if end is not None:
        yield Step(end.words, canonical(end.world, setting))
        return
    for action in ACTIONS:
        for step in action(world, setting):
            yield Step(step.words, canonical(step.world, setting), step.fault)
    for number, worker in enumerate(world.workers, 1):
        if world.faults.kills and (worker.stage != IDLE or worker.unsent):
            killed = becomes(spend(world, "kills"), number, Worker())
            yield Step(f"w{number} is killed", canonical(killed, setting), fault=True)
