"""The figures an operator watches, as one frozen snapshot: gauges, `status` and `/statusz` all read this."""

from collections.abc import Mapping
from dataclasses import dataclass

from worker.core.model import State


@dataclass(frozen=True, slots=True)
class LaneFigures:
    """One lane at one instant.

    `depth` counts prompts that wait for a batch, `bytes` is what Redis spends on the whole lane (waiting and in
    flight), `enqueued` grows for ever. Settled batches are those whose record is still kept. `oldest_batch_at` is the
    API's creation time of the oldest open remote batch; `paused` and `parked` hold the reason or None.
    """

    lane: str
    depth: int
    bytes: int
    enqueued: int
    batches: Mapping[State, int]
    in_doubt: int
    held: int
    dead_letters: int
    oldest_prompt_at: float | None = None
    oldest_batch_at: float | None = None
    paused: str | None = None
    parked: str | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """The whole deployment at `read_at` (Redis' clock, Unix seconds).

    `in_flight` is the number of prompts in remote batches that have not ended, `evicting` is True unless Redis'
    maxmemory-policy is noeviction, `sink_pending` counts ended batches that a sink has not committed yet.
    `emptied_at` is when Redis was found emptied (Unix seconds), `orphans` how many remote batches that has cost.
    """

    read_at: float
    lanes: tuple[LaneFigures, ...]
    in_flight: int
    evicting: bool
    sink_pending: Mapping[str, int]
    emptied_at: float | None = None
    orphans: int | None = None
