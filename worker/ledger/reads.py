"""What humans and gauges want to know, read apart from what roles decide on."""

from collections import Counter
from dataclasses import dataclass

from worker.core.figures import Figures, LaneFigures
from worker.core.intake import entry_instant
from worker.core.model import Batch, State
from worker.ledger.batches import Batches
from worker.ledger.deployment import Deployment
from worker.ledger.store import Store

_OPEN = (State.IN_PROGRESS, State.CANCELING)


@dataclass(frozen=True, slots=True)
class Reads:
    """Reads figures and lists; changes nothing."""

    store: Store
    batches: Batches
    deployment: Deployment

    def figures(self, lanes: list[str], sinks_of: "dict[str, tuple[str, ...]]") -> Figures:
        """Read everything that `status` and the gauges show; `sinks_of` names each lane's sinks."""
        pending: Counter[str] = Counter({sink: 0 for sinks in sinks_of.values() for sink in sinks})
        figures = []
        for lane in lanes:
            live = self.batches.get_many([(lane, uid) for uid in self.batches.live(lane)])
            figures.append(self._lane(lane, live))
            for batch in live:
                if batch.state is State.ENDED:
                    pending.update(sink for sink in sinks_of.get(lane, ()) if sink not in batch.commits)
        in_flight: list[bytes] = self.store.read("hvals", self.store.keys.in_flight)
        info: dict[str, object] = self.store.read("info", "memory")
        origin = self.deployment.origin()
        return Figures(
            read_at=self.store.now(),
            lanes=tuple(figures),
            in_flight=sum(map(int, in_flight)),
            evicting=str(info.get("maxmemory_policy", "noeviction")) != "noeviction",
            sink_pending=dict(pending),
            emptied_at=origin.emptied_at,
            orphans=origin.orphans,
        )

    def settled(self, lane: str, limit: int) -> list[Batch]:
        """Return the batches settled last, newest first, as far as `retention` keeps them."""
        uids: list[bytes] = self.store.read("zrevrange", self.store.keys.settled(lane), 0, limit - 1)
        return self.batches.get_many([(lane, uid.decode()) for uid in uids])

    def _lane(self, lane: str, live: list[Batch]) -> LaneFigures:
        keys = self.store.keys
        length, size, marks, dead, stream, cursor, settled = self.store.read_all(
            [
                ("xlen", keys.prompts(lane)),
                ("memory_usage", keys.prompts(lane)),
                ("hmget", keys.lane(lane), "sealed_entries", "requeued", "paused", "parked"),
                ("xlen", keys.dead(lane)),
                ("xinfo_stream", keys.prompts(lane)),
                ("hget", keys.lane(lane), "cursor"),
                ("zcard", keys.settled(lane)),
            ]
        )
        sealed, requeued, paused, parked = (value.decode() if value else None for value in marks)
        depth = max(0, int(length) - int(sealed or 0))
        oldest = None
        if depth:
            after = cursor.decode() if cursor else "0-0"
            first = self.store.read("xrange", keys.prompts(lane), f"({after}", "+", 1)
            oldest = entry_instant(first[0][0].decode()) if first else None
        added = int(stream.get("entries-added", 0)) if isinstance(stream, dict) else 0
        return LaneFigures(
            lane=lane,
            depth=depth,
            bytes=size if isinstance(size, int) else 0,
            enqueued=max(0, added - int(requeued or 0)),
            batches={state: sum(batch.state is state for batch in live) for state in State}
            | {State.SETTLED: int(settled)},
            in_doubt=sum(batch.state is State.SUBMITTING and batch.doubt_at is not None for batch in live),
            held=sum(batch.state is State.HELD for batch in live),
            dead_letters=int(dead),
            oldest_prompt_at=oldest,
            oldest_batch_at=min((b.created_at for b in live if b.created_at and b.state in _OPEN), default=None),
            paused=paused,
            parked=parked,
        )
