"""Who may call: API keys, the workspaces they open, and the organisation's requests per minute."""

import hashlib
import math
import threading
from collections.abc import Mapping

from worker.simulator.instants import rfc3339
from worker.simulator.notes import Note, Revoked, forget
from worker.simulator.refusal import Refusal
from worker.simulator.wire import Request

DEFAULT_WORKSPACE = "wrkspc_sim"
PREFIX = "sk-ant-"


class Keyring:
    """Opens workspaces to keys. A revoked key is refused like one that never was; only its digest is remembered."""

    def __init__(self, workspaces: Mapping[str, str] | None, *, note: Note = forget) -> None:
        self._workspaces = workspaces
        self._note = note
        self._revoked: set[str] = set()
        self._all_revoked = False

    def workspace(self, request: Request) -> str:
        """Return the workspace of the request's key; raises Refusal 401."""
        key = key_of(request)
        if not key:
            raise Refusal(401, "x-api-key header is required")
        workspace = self._workspaces.get(key) if self._workspaces is not None else None
        if self._workspaces is None and key.startswith(PREFIX):
            workspace = DEFAULT_WORKSPACE
        if workspace is None or self._all_revoked or _digest(key) in self._revoked:
            raise Refusal(401, "invalid x-api-key" if "x-api-key" in request.headers else "Invalid bearer token")
        return workspace

    @property
    def default(self) -> str:
        """The workspace of a batch whose creator names none."""
        return next(iter((self._workspaces or {}).values()), DEFAULT_WORKSPACE)

    def revoke(self, key: str | None) -> None:
        """Refuse a key, or with None every key."""
        self._all_revoked = self._all_revoked or key is None
        self._revoked |= {_digest(key)} if key else set()
        self._note(Revoked(self._all_revoked, sorted(self._revoked)))

    def restore(self, key: str | None) -> None:
        """Take a key back, or with None all of them."""
        self._all_revoked = self._all_revoked and key is not None
        self._revoked = self._revoked - {_digest(key)} if key else set()
        self._note(Revoked(self._all_revoked, sorted(self._revoked)))

    def recall(self, record: Revoked) -> None:
        """Take over what an earlier life had revoked."""
        self._all_revoked, self._revoked = record.everything, set(record.digests)

    def describe(self) -> dict[str, object]:
        """What is revoked, as fingerprints: a key is never shown."""
        return {"all_revoked": self._all_revoked, "revoked": sorted(digest[:8] for digest in self._revoked)}


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def key_of(request: Request) -> str:
    """Return the key a request carries in either header, or an empty string."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")


class Minute:
    """A token bucket of requests per minute over all endpoints. Without a limit it only makes up headers."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._level = float(limit or 0)
        self._at: float | None = None
        self._lock = threading.Lock()

    def take(self, now: float) -> dict[str, str]:
        """Count a request and return the rate-limit headers; raises Refusal 429 with `retry-after`."""
        if self._limit is None:
            return _headers(4_000, 4_000, now)
        rate = self._limit / 60
        with self._lock:
            self._level = min(self._limit, self._level + (now - (now if self._at is None else self._at)) * rate)
            self._at = now
            if self._level < 1:
                message = (
                    f"This request would exceed your organization's rate limit of {self._limit} requests per minute"
                )
                raise Refusal(429, message, retry_after=math.ceil((1 - self._level) / rate))
            self._level -= 1
            return _headers(self._limit, int(self._level), now + (self._limit - self._level) / rate)


def _headers(limit: int, remaining: int, reset_at: float) -> dict[str, str]:
    stem = "anthropic-ratelimit-requests-"
    return {stem + "limit": str(limit), stem + "remaining": str(remaining), stem + "reset": rfc3339(reset_at) or ""}
