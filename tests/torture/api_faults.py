"""Every way the simulated API misbehaves, each bounded so that the documented assumptions hold.

A create is decided and listed well within the horizon (A1, A2: at most 2 + 1.5 + 2 of 10 seconds), a refusal never
creates (A3), and no stranger deletes our batches (A5): those would have to end with a human.
"""

import random
from typing import Any

READS = ("list", "retrieve", "results", "delete", "any")
DOUBTFUL = (500, 502, 503, 504, 529, 408, 409, 499)
GARBAGE = ('{"id": "msgbatch_', "", "<html>Bad gateway</html>", "[]", '{"data": {}}', "null", '{"id": "msgbatch_01x"}')
UNNAMED = "messages: something is wrong"
ERRORS = ("api_error", "overloaded_error", "invalid_request_error", "billing_error", "brand_new_error")
AGAIN_AND_AGAIN = None


def conjure(chance: random.Random) -> dict[str, Any]:
    """Make up one fault to be posted."""
    kind = chance.choice(KINDS)
    if kind == "revoke_key":
        return {"kind": kind}  # without an operation it acts at once, until somebody restores the key
    share = chance.choice((0.1, 0.3, 0.7))
    return {"kind": kind, "times": AGAIN_AND_AGAIN, "probability": share, **SHAPES[kind](chance)}


def _status(chance: random.Random) -> dict[str, Any]:
    early = {"early": True} if chance.random() < 0.3 else {}
    odd = chance.random()
    if odd < 0.45:
        return {"on": "create", "status": chance.choice((*DOUBTFUL, 429)), "retry_after": 0.2, **early}
    if odd < 0.7:
        return {"on": chance.choice(READS), "status": chance.choice((*DOUBTFUL, 429)), "retry_after": 0.2}
    if odd < 0.8:
        return {"on": "create", "status": chance.choice((401, 402, 403, 404)), "times": 2}
    if odd < 0.87:
        return {"on": "create", "status": 413, "times": 2}
    if odd < 0.93:
        return {"on": "create", "status": 400, "error_code": "request_body_timeout", "times": 3}
    if odd < 0.97:
        return {"on": "create", "status": 400, "message": UNNAMED, "times": 3}
    return {"on": "create", "status": 400, "message": "requests.0: is not to our taste", "times": 1}


def _rows(chance: random.Random) -> dict[str, Any]:
    fraction = chance.choice((0.1, 0.5, 1.0))
    result = chance.choice(("errored", "errored", "expired", "canceled", "succeeded"))
    shape: dict[str, Any] = {"result": result, "fraction": fraction}
    if result == "errored":
        shape |= {"error_type": chance.choice(ERRORS), "message": "it did not work"}
    if result == "succeeded":
        shape |= {"stop_reason": chance.choice(("refusal", "max_tokens", "pause_turn"))}
    return shape | {"times": chance.randrange(1, 6)}


SHAPES: dict[str, Any] = {
    "status": _status,
    "delay": lambda c: {
        "on": c.choice(("create", "any")),
        "seconds": c.uniform(0.05, 1.5),
        "times": c.randrange(1, 6),
    },
    "reset_before": lambda c: {"on": c.choice(("create", *READS))},
    "not_found": lambda c: {"on": c.choice(("retrieve", "results", "list", "create", "delete")), "times": 2},
    "revoke_key": lambda _: {},
    "commit_then_status": lambda c: {"on": c.choice(("create", "create", "delete")), "status": c.choice(DOUBTFUL)},
    "drop_reply": lambda c: {"on": c.choice(("create", "create", *READS))},
    "hold": lambda c: {"on": c.choice(("create", "any")), "seconds": c.uniform(0.1, 3.0), "times": c.randrange(1, 6)},
    "garbage": lambda c: {"on": c.choice(("create", *READS)), "body": c.choice(GARBAGE)},
    "late_commit": lambda c: {"seconds": c.uniform(0.05, 2.0)},
    "rows": _rows,
    "hide_from_list": lambda c: {"seconds": c.uniform(0.05, 2.0)},
    "stuck": lambda c: {"on": "create", "times": c.randrange(1, 3)},
    "end_now": lambda _: {"on": "create"},
    "cut_results": lambda c: {
        "fraction": c.random(),
        "mode": c.choice(("reset", "clean")),
        "mid_line": c.random() < 0.5,
        "times": 6,
    },
    "duplicate_line": lambda c: {"lines": c.randrange(1, 4)},
    "missing_line": lambda c: {"lines": c.randrange(1, 4), "times": 4},
    "foreign_line": lambda c: {"lines": c.randrange(1, 4)},
}
KINDS = tuple(SHAPES)
