"""The record of a batch as a Redis hash: strings in, a frozen `Batch` out. An empty string is None."""

from collections.abc import Mapping

from worker.core.grouping import Part
from worker.core.model import Batch, RemoteBatch, RequestCounts, State, Trigger

COMMIT = "commit:"
"""What the field of a sink's commit starts with; the sink's name follows."""

_COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")


def read_batch(lane: str, uid: str, fields: Mapping[bytes, bytes]) -> Batch:
    """Read a batch's hash. Raises ValueError when a field is not of its type (somebody else wrote it)."""
    text = {name.decode(): value.decode() for name, value in fields.items() if value}
    counts = text.get("counts")
    return Batch(
        uid=uid,
        lane=lane,
        state=State(text["state"]),
        first=text["first"],
        last=text["last"],
        entries=int(text["entries"]),
        count=int(text["count"]),
        bytes=int(text["bytes"]),
        trigger=Trigger(text["trigger"]),
        sealed_at=float(text["sealed_at"]),
        attempt=int(text["attempt"]),
        head=text.get("head"),
        head_at=_instant(text, "head_at"),
        posted_at=_instant(text, "posted_at"),
        intent=text.get("intent"),
        deployment=text.get("deployment"),
        doubt_at=_instant(text, "doubt_at"),
        doubt=text.get("doubt"),
        seen=frozenset(text.get("seen", "").split()),
        ruled_out=frozenset(text.get("ruled_out", "").split()),
        closed=text.get("closed") == "1",
        remote_id=text.get("remote_id"),
        created_at=_instant(text, "created_at"),
        expires_at=_instant(text, "expires_at"),
        ended_at=_instant(text, "ended_at"),
        settled_at=_instant(text, "settled_at"),
        counts=None if counts is None else RequestCounts(*map(int, counts.split())),
        deadline=_instant(text, "deadline"),
        reason=text.get("reason"),
        failures=int(text.get("failures", "0")),
        misses=int(text.get("misses", "0")),
        guessed=text.get("guessed") == "1",
        probe=text.get("probe") == "1",
        workspace_id=text.get("workspace_id"),
        judged_at=_instant(text, "judged_at"),
        max_attempts=int(text.get("max_attempts", "1")),
        commits={name.removeprefix(COMMIT): float(at) for name, at in text.items() if name.startswith(COMMIT)},
    )


def remote_fields(remote: RemoteBatch, *, workspace_id: str = "", guessed: bool = False) -> list[str]:
    """Return what a batch's hash keeps of its remote batch, as name, value pairs."""
    return [
        *("created_at", repr(remote.created_at), "expires_at", repr(remote.expires_at)),
        *("workspace_id", workspace_id, "failures", "0", "misses", "0", "reason", ""),
        *("guessed", "1" if guessed else ""),
    ]


def spell_counts(counts: RequestCounts) -> str:
    """Spell counts for the hash."""
    return " ".join(str(getattr(counts, name)) for name in _COUNTS)


def _instant(text: Mapping[str, str], name: str) -> float | None:
    return float(text[name]) if name in text else None


def part_fields(part: Part, *, probe: str) -> list[str | int]:
    """Return what a batch's hash keeps of a part of a range, as name, value pairs."""
    return [
        *("first", part.first, "last", part.last, "entries", part.entries),
        *("count", part.count, "bytes", part.bytes, "probe", probe),
    ]
