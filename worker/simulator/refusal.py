"""What the API says when it says no, in the shapes it says it."""

from typing import Any

import msgspec

from worker.simulator.wire import Reply

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
MESSAGES = {408: "Request timeout", 500: "Internal server error", 503: "Service unavailable", 529: "Overloaded"}


def error_object(kind: str, message: str, error_code: str | None = None) -> dict[str, Any]:
    """Build the inner `error`: type, message and details, which is null or holds the stable `error_code`."""
    return {"type": kind, "message": message, "details": {"error_code": error_code} if error_code else None}


class Refusal(Exception):  # noqa: N818  # an answer, not an error of ours
    """An answer other than 2xx. `early` means: sent before the request's body was read."""

    def __init__(
        self,
        status: int,
        message: str = "",
        *,
        kind: str | None = None,
        error_code: str | None = None,
        retry_after: float | None = None,
        early: bool = False,
        gateway: bool = False,
    ) -> None:
        self.status = status
        self.kind = kind or TYPES.get(status, "api_error")
        self.message = message or MESSAGES.get(status, "Error")
        self.error_code = error_code
        self.retry_after = retry_after
        self.early = early
        self.gateway = gateway
        super().__init__(f"{status} {self.kind}: {self.message}")

    def reply(self, request_id: str) -> Reply:
        """Turn into what goes over the wire. The gateway's own refusals know no request id and no outer type."""
        headers = {"content-type": "application/json", "x-should-retry": "true" if self.retryable else "false"}
        if self.retry_after is not None:
            headers["retry-after"] = f"{self.retry_after:g}"
        body: dict[str, Any]
        if self.gateway:
            headers |= {"server": "cloudflare", "cf-ray": "5eed5eed5eed5eed-SIM"}
            body = {"error": {"type": self.kind, "message": self.message}}
        else:
            inner = error_object(self.kind, self.message, self.error_code)
            body = {"type": "error", "error": inner, "request_id": request_id}
        return Reply(self.status, headers, msgspec.json.encode(body), early=self.early)

    @property
    def retryable(self) -> bool:
        """Whether the API would tell its SDK to try again."""
        return self.status in (408, 409, 429) or self.status // 100 == 5  # noqa: PLR2004  # 5xx


def unknown_batch(batch_id: str) -> Refusal:
    """404 for an id that is not in this workspace."""
    return Refusal(404, f"Batch {batch_id} not found.")
