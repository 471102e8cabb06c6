"""Batches, prompts and remote batches with every field that a test does not care about filled in."""

from typing import Any

from worker.core.model import Batch, Prompt, RemoteBatch, RequestCounts, State, Trigger

DEPLOYMENT = "abc234"
UID = "k7m2q2x4t2w2z3b5"
NOON = 1_795_348_800.0  # 2026-11-22T12:00:00Z


def build_batch(**given: Any) -> Batch:
    """Build a batch of three prompts, sealed at noon."""
    fields: dict[str, Any] = {
        "uid": UID,
        "lane": "default",
        "state": State.SEALED,
        "first": "1795348800000-0",
        "last": "1795348800000-2",
        "entries": 3,
        "count": 3,
        "bytes": 1000,
        "trigger": Trigger.AGE,
        "sealed_at": NOON,
    }
    return Batch(**(fields | given))


def build_prompt(entry_id: str = "1795348800000-0", **given: Any) -> Prompt:
    """Build a prompt in its first attempt."""
    fields: dict[str, Any] = {"entry_id": entry_id, "id": entry_id, "params": b"{}", "attempt": 1, "enqueued_at": NOON}
    return Prompt(**(fields | given))


def build_remote(name: str = "msgbatch_1", *, count: int = 3, **given: Any) -> RemoteBatch:
    """Build a remote batch of `count` requests that are still being processed."""
    fields: dict[str, Any] = {
        "id": name,
        "status": "in_progress",
        "counts": RequestCounts(processing=count),
        "created_at": NOON,
        "expires_at": NOON + 86_400,
    }
    return RemoteBatch(**(fields | given))
