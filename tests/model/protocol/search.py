"""Breadth first over all states of a row, then backwards from the good ends: exact, without hash compaction.

A state is kept as the numbers of its parts, and every part once; so a million states fit, and no two are confused.
"""

from __future__ import annotations

import struct
import time
from array import array
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from .happening import first, steps
from .promises import NL_STUCK, arrived, broken
from .setting import Setting
from .world import World

MOST_STATES = 40_000_000


@dataclass
class Verdict:
    """What a row came to. `broken` is empty when it holds; then `complete` says whether every state was seen."""

    states: int = 0
    edges: int = 0
    depth: int = 0
    seconds: float = 0.0  # of this processor
    complete: bool = True
    broken: str = ""
    trace: list[str] = field(default_factory=list)
    end: str = ""


class Parts:
    """Numbers the parts of states."""

    def __init__(self) -> None:
        fields = len(World._fields)
        self._numbers: list[dict[Any, int]] = [{} for _ in range(fields)]
        self._parts: list[list[Any]] = [[] for _ in range(fields)]
        self._packed = struct.Struct(f"={fields}I")

    def pack(self, world: World) -> bytes:
        """Return a state's key."""
        places = []
        for numbers, parts, part in zip(self._numbers, self._parts, world):  # noqa: B905 - for Python 3.9
            number = numbers.get(part)
            if number is None:
                number = numbers[part] = len(parts)
                parts.append(part)
            places.append(number)
        return self._packed.pack(*places)

    def unpack(self, key: bytes) -> World:
        """Return the state of a key."""
        places = self._packed.unpack(key)
        return World(*[parts[place] for parts, place in zip(self._parts, places)])  # noqa: B905 - for Python 3.9


def explore(setting: Setting, *, most: int = MOST_STATES) -> Verdict:
    """Look at every state that the row can reach, and say which promise breaks first."""
    began = time.process_time()
    verdict, parts = Verdict(), Parts()
    origin = parts.pack(first(setting))
    numbers, parents = {origin: 0}, array("i", [-1])
    good = bytearray([0])
    sources, targets = array("i"), array("i")
    queue = deque([origin])
    at, level_ends = -1, 0
    while queue:
        at += 1
        world = parts.unpack(queue.popleft())
        broke = broken(world, setting)
        if broke:
            verdict.broken = broke
            break
        good[at] = arrived(world)
        for step in steps(world, setting):
            verdict.edges += 1
            key = parts.pack(step.world)
            number = numbers.get(key)
            if number is None:
                number = numbers[key] = len(parents)
                parents.append(at)
                good.append(0)
                queue.append(key)
            if not step.fault:
                sources.append(at)
                targets.append(number)
        if at == level_ends:
            verdict.depth, level_ends = verdict.depth + 1, len(parents) - 1
        if len(parents) > most:
            verdict.complete = False
            break
    verdict.states = len(parents)
    if verdict.complete and not verdict.broken:
        at = _stuck(good, sources, targets)
        verdict.broken = NL_STUCK if at >= 0 else ""
    if verdict.broken:
        _tell(verdict, setting, parts, list(numbers), _way(parents, at))
    verdict.seconds = time.process_time() - began
    return verdict


def _stuck(good: bytearray, sources: array[int], targets: array[int]) -> int:
    """Return a state from which no fault-free way leads to a good one, -1 if there is none."""
    count = len(good)
    begins = array("i", bytes(4 * (count + 1)))
    for target in targets:
        begins[target + 1] += 1
    for number in range(count):
        begins[number + 1] += begins[number]
    filled, before = array("i", begins), array("i", bytes(4 * max(1, len(sources))))
    for edge in range(len(sources)):
        target = targets[edge]
        before[filled[target]] = sources[edge]
        filled[target] += 1
    reached = bytearray(good)
    stack = [number for number in range(count) if good[number]]
    while stack:
        number = stack.pop()
        for place in range(begins[number], begins[number + 1]):
            source = before[place]
            if not reached[source]:
                reached[source] = 1
                stack.append(source)
    return reached.find(0)


def _way(parents: array[int], at: int) -> list[int]:
    """Return the shortest way to a state, the first one left out."""
    way = []
    while at > 0:
        way.append(at)
        at = parents[at]
    return way[::-1]


def _tell(verdict: Verdict, setting: Setting, parts: Parts, keys: list[bytes], way: list[int]) -> None:
    """Walk the way to a state once more, and note its words."""
    world = first(setting)
    for number in way:
        wanted = parts.unpack(keys[number])
        step = next(step for step in steps(world, setting) if step.world == wanted)
        verdict.trace.append(step.words)
        world = wanted
    verdict.end = repr(world)
