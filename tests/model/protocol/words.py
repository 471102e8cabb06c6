"""The words of the model: states and moves as in `worker.core.lifecycle`, and what of that table is left out."""

from __future__ import annotations

SEALED = "sealed"
SUBMITTING = "submitting"
IN_PROGRESS = "in_progress"
CANCELING = "canceling"
ENDED = "ended"
DELIVERED = "delivered"
SETTLED = "settled"
HELD = "held"

MOVES: dict[tuple[str, str], str] = {
    (SEALED, "submit"): SUBMITTING,
    (SEALED, "find"): IN_PROGRESS,
    (SEALED, "skip"): ENDED,
    (SUBMITTING, "accept"): IN_PROGRESS,
    (SUBMITTING, "adopt"): IN_PROGRESS,
    (SUBMITTING, "find"): IN_PROGRESS,
    (SUBMITTING, "refuse"): SEALED,
    (SUBMITTING, "absent"): SEALED,
    (SUBMITTING, "hold"): HELD,
    (IN_PROGRESS, "end"): ENDED,
    (IN_PROGRESS, "hold"): HELD,
    (ENDED, "disown"): SUBMITTING,
    (ENDED, "deliver"): DELIVERED,
    (ENDED, "hold"): HELD,
    (DELIVERED, "settle"): SETTLED,
    (DELIVERED, "hold"): HELD,
}
"""What the model does. Every change of a batch's state goes through here."""

LEFT_OUT: dict[tuple[str, str], str] = {
    (SEALED, "hold"): HELD,  # entries deleted from Redis by somebody else: Redis is assumed to keep them
    (IN_PROGRESS, "cancel"): CANCELING,  # canceling differs from in_progress in nothing that matters here
    (CANCELING, "end"): ENDED,
    (CANCELING, "hold"): HELD,
    (HELD, "resubmit"): SEALED,  # a human decides to pay again: no promise is made
    (HELD, "bury"): ENDED,
}
"""What `worker/` may do and the model does not, each with its reason."""

# What is known about an answer that nobody saw, and whether the horizon of that kind of doubt has passed.
CERTAIN = ""
LOST = "lost"
LOST_DUE = "lost, horizon passed"
OVERLOADED = "overloaded"
OVERLOADED_DUE = "overloaded, horizon passed"
DUE = (LOST_DUE, OVERLOADED_DUE)

# A remote batch.
OPEN = "open"
OVER = "ended"
GONE = "deleted"

# In which life of Redis a lane was recovered last.
NEVER = "never"
EARLIER = "an earlier life"
NOW = "this life"

# Why a lane is parked: only good rows end trouble that rows told of.
BY_REFUSAL = "refusal"
BY_ROWS = "rows"

STRANGER = -1
"""The token of a remote batch that somebody else has made."""

# What a worker is in the middle of.
IDLE = "idle"
READY = "ready"  # has claimed a sealed batch and seen the newest remote batch
INTENT = "intent"  # the intent is on disk, the last byte is not sent
UNSENT = "unsent"  # knows that its last byte never leaves; the intent may be on record
WAITING = "waiting"  # the last byte is sent
OVERLOAD = "overload"  # has read a 529 or 503
REFUSED = "refused"  # has read a 4xx
JUDGING = "judging"  # has taken the refused intent back, decides what follows
LISTED = "listed"  # has listed remote batches for a batch in doubt
READING = "reading"  # has read the results of an ended batch
SUNK = "sunk"  # the sink has committed
SETTLING = "settling"  # the batch is delivered; settles prompt by prompt
