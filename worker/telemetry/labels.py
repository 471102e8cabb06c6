"""The label values that are known beforehand, and the guard that keeps all others few."""

import re
import threading

from worker.core.intake import Flaw
from worker.core.model import ResultType, State, Trigger

RESULTS = tuple(ResultType)
STATES = tuple(State)
TRIGGERS = tuple(Trigger)
RESOLUTIONS = ("adopted", "resubmitted", "rejected")
OPERATIONS = ("create", "retrieve", "list", "cancel", "delete", "results")
OUTCOMES = ("ok", "refused", "rate_limited", "not_sent", "in_doubt", "not_found", "unavailable", "truncated")
TOKEN_KINDS = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
ROLES = ("batcher", "ticker", "rescuer", "sink-checks", "submitter", "poller", "drainer")
RETRY_REASONS = ("expired", "canceled", "rate_limit_error", "timeout_error", "api_error", "overloaded_error")
_FINAL_ERRORS = ("invalid_request_error", "not_found_error", "permission_error", "authentication_error")
BURY_REASONS = (*Flaw, *_FINAL_ERRORS, *RETRY_REASONS)  # what is retried for too long is buried too
SINK_ERRORS = ("no_space", "permission", "unreachable", "refused", "invalid", "io")

OTHER = "other"
MOST = 50

# Prose has spaces, a word has none: what somebody wrote into a prompt cannot become a time series.
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@/-]{0,95}")


class Bounded:
    """Lets the first `most` distinct values through and calls all later ones `other`; known ones always pass.

    A value that is no single word of at most 96 characters is `other` as well.
    """

    def __init__(self, known: tuple[str, ...] = (), *, most: int = MOST) -> None:
        self._known = frozenset(known)
        self._most = most
        self._seen: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, value: str) -> str:
        """Return `value` or `other`."""
        if value in self._known or value in self._seen:
            return str(value)
        if not _WORD.fullmatch(value):
            return OTHER
        with self._lock:
            if len(self._seen) >= self._most:
                return OTHER
            self._seen.add(value)
        return value
