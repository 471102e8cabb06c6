"""What an error of the API means for us: for one prompt, for a whole create, for a create without an answer.

Judged by result type, status and the API's stable `error_code`. Its sentences may change, so text decides only
where there is no code: the credit and usage-limit refusals, and the index of the request a 400 complains about.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

_TOO_LITTLE_MONEY = re.compile(r"credit balance|specified\b.{0,40}\bAPI usage limits", re.IGNORECASE)
# Anchored: a message may quote a prompt, and a quoted "requests.3" must not bury an innocent neighbour.
_NAMED_REQUEST = re.compile(r"\W{0,3}requests\.(\d{1,6})\b")

_RETRIED = frozenset({"rate_limit_error", "timeout_error", "api_error", "overloaded_error"})
_FINAL = frozenset({"invalid_request_error", "not_found_error", "permission_error", "authentication_error"})
_CLIENT_ERRORS = range(400, 500)
_UNDECIDED_STATUSES = frozenset({408, 409, 499})


class Fate(StrEnum):
    """What becomes of a prompt that did not succeed."""

    RETRY = "retry"
    BURY = "bury"
    PARK = "park"
    CANCELED = "canceled"
    UNKNOWN = "unknown"


def judge_row(result_type: str, error_type: str | None, message: str | None) -> Fate:
    """Judge one result line; `error_type` is `result.error.error.type`, doubly nested.

    PARK is trouble of the account, not of the prompt; UNKNOWN is a word we do not know (retry with a low cap, alert).
    Raises ValueError for `succeeded`, which needs no judgement.
    """
    match result_type:
        case "succeeded":
            raise ValueError("a result that succeeded has no fate to judge")
        case "expired":
            return Fate.RETRY
        case "canceled":
            return Fate.CANCELED
        case "errored":
            return _judge_error(error_type, message or "")
        case _:
            return Fate.UNKNOWN


def _judge_error(error_type: str | None, message: str) -> Fate:
    if error_type == "billing_error":
        return Fate.PARK
    if error_type == "invalid_request_error" and _TOO_LITTLE_MONEY.search(message):
        return Fate.PARK
    if error_type in _FINAL:
        return Fate.BURY
    return Fate.RETRY if error_type in _RETRIED else Fate.UNKNOWN


class Refusal(StrEnum):
    """What to do after the API has definitely refused a create."""

    WAIT = "wait"
    PARK = "park"
    SPLIT = "split"
    BISECT = "bisect"
    EJECT = "eject"


class Reason(StrEnum):
    """Why it was refused: a closed set, fit for a metric label."""

    KEY = "key"
    BILLING = "billing"
    SPEND_LIMIT = "spend_limit"
    ON_HOLD = "on_hold"
    CMEK = "cmek"
    POLICY = "policy"
    ENCODING = "encoding"
    ENDPOINT = "endpoint"
    RATE_LIMIT = "rate_limit"
    RAMP_LIMIT = "ramp_limit"
    BODY_TIMEOUT = "body_timeout"
    TOO_LARGE = "too_large"
    NAMED_REQUEST = "named_request"
    INVALID = "invalid"
    UNEXPECTED = "unexpected"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How to go on after a refusal; `index` is the request to take out, counted from 0, for EJECT only."""

    refusal: Refusal
    reason: Reason
    index: int | None = None


_BY_CODE = {
    "enforced_spend_limit_reached": Verdict(Refusal.PARK, Reason.SPEND_LIMIT),
    "contract_spend_limit_reached": Verdict(Refusal.PARK, Reason.SPEND_LIMIT),
    "linked_organization_spend_limit_reached": Verdict(Refusal.PARK, Reason.SPEND_LIMIT),
    "linked_organization_billing_unavailable": Verdict(Refusal.PARK, Reason.BILLING),
    "organization_on_hold": Verdict(Refusal.PARK, Reason.ON_HOLD),
    "ramp_limit_exceeded": Verdict(Refusal.WAIT, Reason.RAMP_LIMIT),
    "request_body_timeout": Verdict(Refusal.WAIT, Reason.BODY_TIMEOUT),
    "unsupported_charset": Verdict(Refusal.PARK, Reason.ENCODING),
}
# Whole families of codes that speak of the account: no half of the batch would fare better than the whole.
_BY_CODE_PREFIX = (
    ("request_body_too_large", Verdict(Refusal.SPLIT, Reason.TOO_LARGE)),
    ("request_body_encoding_", Verdict(Refusal.PARK, Reason.ENCODING)),
    ("cmek_", Verdict(Refusal.PARK, Reason.CMEK)),
    ("external_key_", Verdict(Refusal.PARK, Reason.CMEK)),
    ("workspace_", Verdict(Refusal.PARK, Reason.POLICY)),
    ("organization_", Verdict(Refusal.PARK, Reason.POLICY)),
    ("parent_organization_", Verdict(Refusal.PARK, Reason.POLICY)),
    ("user_profile_", Verdict(Refusal.PARK, Reason.POLICY)),
)
_BY_STATUS = {
    401: Verdict(Refusal.PARK, Reason.KEY),
    402: Verdict(Refusal.PARK, Reason.BILLING),
    403: Verdict(Refusal.PARK, Reason.KEY),
    404: Verdict(Refusal.PARK, Reason.ENDPOINT),
    413: Verdict(Refusal.SPLIT, Reason.TOO_LARGE),
    429: Verdict(Refusal.WAIT, Reason.RATE_LIMIT),
}


def judge_refusal(status: int, error_type: str | None, error_code: str | None, message: str | None) -> Verdict:
    """Judge a definite refusal of a create (see `is_definite`).

    BISECT means that nothing names the culprit; whoever bisects must know that the account can still create batches.
    A status we never expect parks the lane instead of burying prompts for it.
    """
    if error_code is not None and (coded := _judge_code(error_code)) is not None:
        return coded
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status in (400, 422):
        return _judge_bad_request(error_type, message or "")
    return Verdict(Refusal.PARK, Reason.UNEXPECTED)


def _judge_code(error_code: str) -> Verdict | None:
    family = (verdict for prefix, verdict in _BY_CODE_PREFIX if error_code.startswith(prefix))
    return _BY_CODE.get(error_code) or next(family, None)


def _judge_bad_request(error_type: str | None, message: str) -> Verdict:
    if named := _NAMED_REQUEST.match(message):
        return Verdict(Refusal.EJECT, Reason.NAMED_REQUEST, int(named.group(1)))
    if error_type == "billing_error":
        return Verdict(Refusal.PARK, Reason.BILLING)
    if _TOO_LITTLE_MONEY.search(message):
        return Verdict(Refusal.PARK, Reason.SPEND_LIMIT)
    return Verdict(Refusal.BISECT, Reason.INVALID)


class Doubt(StrEnum):
    """How a create was left without a definite answer; each kind has its own horizon."""

    LOST = "lost"
    OVERLOADED = "overloaded"


def judge_doubt(status: int | None, *, well_formed: bool) -> Doubt:
    """Judge an indefinite end of a create; `well_formed` says that the body was the API's own error object."""
    return Doubt.OVERLOADED if well_formed and status in (503, 529) else Doubt.LOST


def is_definite(status: int | None) -> bool:
    """Whether an answer with this status proves that the create made nothing."""
    return status in _CLIENT_ERRORS and status not in _UNDECIDED_STATUSES
