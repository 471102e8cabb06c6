"""A batch in words and in JSON."""

from dataclasses import asdict
from typing import Any

from worker.cli.showing import DASH, instant, number, pairs, size, span
from worker.core.model import Batch, State

HEAD = ("batch", "lane", "state", ">prompts", ">age", ">attempt", "remote batch", "notes")


def facts(batch: Batch) -> dict[str, Any]:
    """Return a batch as plain JSON values; instants are Unix seconds."""
    plain = asdict(batch)
    return {name: sorted(value) if isinstance(value, frozenset) else value for name, value in plain.items()}


def row(batch: Batch, now: float) -> tuple[str, ...]:
    """Put a batch into one line."""
    return (
        batch.uid,
        batch.lane,
        batch.state,
        number(batch.count),
        span(now - batch.sealed_at),
        str(batch.attempt),
        batch.remote_id or DASH,
        notes(batch),
    )


def notes(batch: Batch) -> str:
    """Say what is remarkable about a batch."""
    if batch.state is State.HELD:
        return batch.reason or ""
    if batch.state is State.SUBMITTING and batch.doubt_at is not None:
        return f"in doubt ({batch.doubt or 'lost'})"
    told = [f"{batch.failures} failures"] if batch.failures else []
    return ", ".join([*told, *(["probe"] if batch.probe else [])])


def in_full(batch: Batch, now: float) -> str:
    """Put all there is to know of a batch into lines."""
    counts = batch.counts
    return pairs(
        {
            "batch": batch.uid,
            "lane": batch.lane,
            "state": batch.state,
            "notes": notes(batch) if batch.state is not State.HELD else "",
            "reason": batch.reason or "",
            "prompts": f"{number(batch.count)} usable of {number(batch.entries)}",
            "body": size(batch.bytes),
            "entries": f"{batch.first} to {batch.last}",
            "trigger": batch.trigger,
            "sealed": _when(batch.sealed_at, now),
            "attempt": str(batch.attempt),
            "posted": _when(batch.posted_at, now),
            "in doubt since": _when(batch.doubt_at, now),
            "ruled out": ", ".join(sorted(batch.ruled_out)),
            "remote batch": batch.remote_id or "",
            "workspace": batch.workspace_id or "",
            "created": _when(batch.created_at, now),
            "expires": instant(batch.expires_at) if batch.expires_at else "",
            "ended": _when(batch.ended_at, now),
            "results": ", ".join(f"{number(n)} {word}" for word, n in asdict(counts).items() if n) if counts else "",
            "delivered to": ", ".join(f"{sink} ({instant(at)})" for sink, at in sorted(batch.commits.items())),
            "settled": _when(batch.settled_at, now),
            "deadline": instant(batch.deadline) if batch.deadline else "",
        }
    )


def _when(at: float | None, now: float) -> str:
    return "" if at is None else f"{instant(at)} ({span(now - at)} ago)"
