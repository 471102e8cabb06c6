"""Claiming what is due, in many lanes at once: one round trip, however many there are."""

from collections.abc import Collection, Sequence
from typing import Any

from worker.core.model import Claim, State
from worker.ledger.store import Store, Value


def claim_due(
    store: Store, lanes: Sequence[str], *, limit: int, lease: float, passing_over: Collection[State] = ()
) -> dict[str, list[Claim] | Exception]:
    """Claim up to `limit` due batches of each lane, for `lease` seconds; those in a state passed over wait as long.

    A lane that cannot be claimed from has one of the ledger's errors for an answer.
    """
    shared: dict[str, Value] = {
        "limit": limit,
        "lease_ms": int(lease * 1000),
        "passed_over": f" {' '.join(passing_over)} ",
    }
    keys = store.keys
    calls = [
        (shared | {"due": keys.due(lane), "fences": keys.fences(lane), "batch_prefix": keys.batch(lane, "")}, ())
        for lane in lanes
    ]
    answers = store.run_many("claim", calls)
    return {
        lane: answer if isinstance(answer, Exception) else _read(lane, answer)
        for lane, answer in zip(lanes, answers, strict=True)
    }


def _read(lane: str, answer: Any) -> list[Claim]:
    texts = [word.decode() for word in answer]
    triples = zip(texts[::3], texts[1::3], texts[2::3], strict=True)
    return [Claim(lane, uid, fence, State(state)) for uid, fence, state in triples]
