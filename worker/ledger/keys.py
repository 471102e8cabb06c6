"""Every key of batchmill in Redis: its name, its type, and when it dies.

What must change together in one script shares the hash tag `{lane}`. Keys without a lane belong to the deployment;
each is touched by commands of its own. A prefix with a hash tag puts all of them on one node of a cluster.
"""

import re
from dataclasses import dataclass

PERMANENT = ("deployment", "lanes", "in_flight", "waiting")
"""The deployment's keys without a time to live; all are bounded by lanes or by open batches."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Names under one prefix (setting `redis.prefix`)."""

    prefix: str

    def prompts(self, lane: str) -> str:
        """STREAM of the lane's prompts; an entry dies when its prompt is settled. Part of the contract."""
        return f"{self.prefix}{{{lane}}}:prompts"

    def lane(self, lane: str) -> str:
        """HASH: cursor, incarnation, sealed_entries, requeued, flush_to, paused, parked…; lives as long as the lane.

        A lane that nobody configured ends with its last settled batch and its last dead letter.
        """
        return f"{self.prefix}{{{lane}}}:lane"

    def batch(self, lane: str, uid: str) -> str:
        """HASH of one batch; expires `retention` after it is settled."""
        return f"{self.prefix}{{{lane}}}:batch:{uid}"

    def unusable(self, lane: str, uid: str) -> str:
        """HASH entry id → flaw of a batch's unusable entries; expires with its batch (1 h while not sealed)."""
        return f"{self.prefix}{{{lane}}}:unusable:{uid}"

    def due(self, lane: str) -> str:
        """ZSET uid → Unix ms of the next look; a member leaves when its batch is settled. Held batches score +inf."""
        return f"{self.prefix}{{{lane}}}:due"

    def fences(self, lane: str) -> str:
        """HASH uid → fence, a number that only grows; a field leaves when its batch is settled."""
        return f"{self.prefix}{{{lane}}}:fences"

    def settled(self, lane: str) -> str:
        """ZSET uid → Unix ms of settling; members older than `retention` are trimmed, every minute."""
        return f"{self.prefix}{{{lane}}}:settled"

    def dead(self, lane: str) -> str:
        """STREAM of dead letters, the prompt's fields and why; trimmed after `dead_retention`, redriven or dropped."""
        return f"{self.prefix}{{{lane}}}:dead"

    def dedupe(self, lane: str, name: str) -> str:
        """STRING: entry id of the first prompt with this producer's id; expires after `intake.dedupe_ttl`."""
        return f"{self.prefix}{{{lane}}}:id:{name}"

    def remote(self, lane: str, remote_id: str) -> str:
        """STRING: uid that owns a remote batch; expires after 30 days, when the API has deleted its results."""
        return f"{self.prefix}{{{lane}}}:remote:{remote_id}"

    def unposted(self, lane: str) -> str:
        """ZSET uid → count of every batch that may still create a remote batch; leaves when its fate is known."""
        return f"{self.prefix}{{{lane}}}:unposted"

    @property
    def deployment(self) -> str:
        """HASH: id, schema, workspace_id, accepted_at, emptied_at, orphans, synced_at, the intake's; lives for ever."""
        return f"{self.prefix}deployment"

    @property
    def lanes(self) -> str:
        """SET of lane names: the configured ones, and those that something is left of; lives for ever."""
        return f"{self.prefix}lanes"

    @property
    def in_flight(self) -> str:
        """HASH `<lane> <uid>` → prompts in the account's queue; a field leaves when its batch has ended."""
        return f"{self.prefix}in_flight"

    @property
    def waiting(self) -> str:
        """HASH lane → bytes of its stream, and `total`; rewritten by the rescuers, a field leaves with its lane."""
        return f"{self.prefix}waiting"

    @property
    def barrier(self) -> str:
        """STRING owner of the moment in which appendfsync is `always`; expires in seconds."""
        return f"{self.prefix}barrier"

    @property
    def barrier_mark(self) -> str:
        """STRING appendfsync as it was before such a moment; deleted at its end, by the next one after a crash."""
        return f"{self.prefix}barrier_mark"


def in_one_slot(prefix: str) -> bool:
    """Whether all keys under a prefix are in one slot of a cluster: of several hash tags in a name the first counts."""
    return re.match(r"[^{]*\{[^}]+\}", prefix) is not None
