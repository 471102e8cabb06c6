"""What batchmill talks about: prompts, batches, remote batches, results. Plain frozen data.

Instants (`…_at`) are Unix seconds as floats, sizes are bytes, and a batch is always *ours*:
Anthropic's is the remote batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec


class State(StrEnum):
    """The state of a batch; `lifecycle.py` says which may follow which."""

    SEALED = "sealed"
    SUBMITTING = "submitting"
    IN_PROGRESS = "in_progress"
    CANCELING = "canceling"
    ENDED = "ended"
    DELIVERED = "delivered"
    SETTLED = "settled"
    HELD = "held"


class Trigger(StrEnum):
    """Why a batch was sealed."""

    COUNT = "count"
    BYTES = "bytes"
    AGE = "age"
    DEADLINE = "deadline"
    FLUSH = "flush"


class ResultType(StrEnum):
    """The one outcome of a prompt, in the API's words."""

    SUCCEEDED = "succeeded"
    ERRORED = "errored"
    CANCELED = "canceled"
    EXPIRED = "expired"


class Prompt(msgspec.Struct, frozen=True, gc=False):
    """A usable entry of a lane. `params` is the producer's JSON object, byte for byte."""

    entry_id: str
    id: str
    params: bytes
    attempt: int
    enqueued_at: float
    metadata: bytes | None = None
    deadline: float | None = None
    reply_to: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class RequestCounts:
    """The remote batch's own tally; all but `processing` may stay 0 until it has ended."""

    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0

    @property
    def total(self) -> int:
        """How many requests the remote batch was created with (fixed from the start)."""
        return self.processing + self.finished

    @property
    def finished(self) -> int:
        """How many result lines an ended batch must have."""
        return self.succeeded + self.errored + self.canceled + self.expired


@dataclass(frozen=True, slots=True)
class RemoteBatch:
    """A batch as the API describes it. `status` is `in_progress`, `canceling` or `ended`."""

    id: str
    status: str
    counts: RequestCounts
    created_at: float
    expires_at: float
    ended_at: float | None = None
    archived_at: float | None = None
    cancel_initiated_at: float | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """A sealed range of a lane and how far it has come.

    The range is every entry of the lane's stream from `first` to `last`, `entries` of them, of which `count`
    are usable and make up the body of `bytes` bytes. `attempt` counts the POSTs that were (or may have been) made.
    `judged_at` and `max_attempts` are fixed when the remote batch ends, so that a second delivery judges every
    result as the first did. `commits` says when each sink had it. `failures` counts what went wrong in a row, whatever
    it was; `misses` only refusals that named no prompt, looks that found no remote batch, readings that did not add up.
    A remote batch was `guessed` when only its count said that it is ours. `intent` names the intent to post that is on
    record: an attempt's number alone could be of another process, when one's own record was lost on its way.
    `deployment` is the id in the custom_ids of what was posted last; None where nothing was, or by an older batchmill.
    """

    uid: str
    lane: str
    state: State
    first: str
    last: str
    entries: int
    count: int
    bytes: int
    trigger: Trigger
    sealed_at: float
    attempt: int = 0
    head: str | None = None
    head_at: float | None = None
    posted_at: float | None = None
    intent: str | None = None
    deployment: str | None = None
    doubt_at: float | None = None
    doubt: str | None = None
    seen: frozenset[str] = frozenset()
    ruled_out: frozenset[str] = frozenset()
    closed: bool = False
    remote_id: str | None = None
    created_at: float | None = None
    expires_at: float | None = None
    ended_at: float | None = None
    settled_at: float | None = None
    counts: RequestCounts | None = None
    deadline: float | None = None
    reason: str | None = None
    failures: int = 0
    misses: int = 0
    guessed: bool = False
    probe: bool = False
    workspace_id: str | None = None
    judged_at: float | None = None
    max_attempts: int = 1
    commits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to take a batch's next step, until the lease ends or a newer fence is given out."""

    lane: str
    uid: str
    fence: str
    state: State
