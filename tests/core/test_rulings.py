import json
from typing import Any

import pytest
from core_builders import DEPLOYMENT, NOON, UID, build_batch, build_prompt

from worker.core.model import Batch
from worker.core.rulings import (
    SETTLED,
    Ruling,
    UnreadableLineError,
    read_line,
    read_result,
    rule,
)

CUSTOM_ID = f"{DEPLOYMENT}_{UID}_01_1795348800000-0"
CREDIT = "Your credit balance is too low to access the Anthropic API."


def judged(**changes: Any) -> Batch:
    """Build a batch whose remote batch ended at noon, with three attempts for each prompt."""
    return build_batch(**({"judged_at": NOON, "max_attempts": 3} | changes))


def errored(kind: str | None, message: str | None = "no") -> bytes:
    """Spell an errored result as the API does, doubly nested."""
    error = {"type": kind, "message": message, "details": None}
    return json.dumps({"type": "errored", "error": {"type": "error", "error": error, "request_id": None}}).encode()


def ruling(result: bytes, *, attempt: int = 1, deadline: float | None = None, batch: Batch | None = None) -> Ruling:
    """Rule on a result of a prompt in its n-th attempt."""
    return rule(read_result(result), build_prompt(attempt=attempt, deadline=deadline), batch or judged())


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (b'{"type":"succeeded","message":{"model":"m","stop_reason":"end_turn"}}', SETTLED),
        (b'{"type":"expired"}', Ruling("retry", "expired", 2)),
        (errored("rate_limit_error"), Ruling("retry", "rate_limit_error", 2)),
        (errored("timeout_error"), Ruling("retry", "timeout_error", 2)),
        (errored("api_error"), Ruling("retry", "api_error", 2)),
        (errored("overloaded_error"), Ruling("retry", "overloaded_error", 2)),
        (errored("invalid_request_error"), Ruling("bury", "invalid_request_error", 1)),
        (errored("not_found_error"), Ruling("bury", "not_found_error", 1)),
        (errored("permission_error"), Ruling("bury", "permission_error", 1)),
        (errored("authentication_error"), Ruling("bury", "authentication_error", 1)),
        (errored("billing_error"), Ruling("retry", "account", 1, parks=True)),
        (errored("invalid_request_error", CREDIT), Ruling("retry", "account", 1, parks=True)),
        (
            errored("invalid_request_error", "You have reached your specified API usage limits."),
            Ruling("retry", "account", 1, parks=True),
        ),
        (b'{"type":"canceled"}', Ruling("bury", "canceled", 1)),
        (errored("brand_new_error"), Ruling("retry", "brand_new_error", 2)),
        (errored(None, None), Ruling("retry", "errored", 2)),
        (b'{"type":"errored"}', Ruling("retry", "errored", 2)),
        (b'{"type":"evaporated"}', Ruling("bury", "unknown_result", 1)),
    ],
)
def test_every_kind_of_result_has_its_ruling(result: bytes, expected: Ruling) -> None:
    """What the API can answer, and what becomes of the prompt."""
    assert ruling(result) == expected


@pytest.mark.parametrize(
    "message",
    [
        '"text"',
        "[]",
        "7",
        '{"model":5}',
        '{"model":"m","usage":[]}',
        '{"model":"m","usage":{"input_tokens":1.5}}',
        '{"model":"m","usage":{"input_tokens":"9"}}',
        '{"model":"m","usage":{"input_tokens":-1}}',
        '{"model":"m","usage":{"input_tokens":' + "9" * 4000 + "}}",
        '{"model":"m","usage":{"cache_creation":{"ephemeral_1h_input_tokens":null}}}',
    ],
)
def test_an_answer_of_an_odd_shape_is_still_an_answer(message: str) -> None:
    """Buried for an odd number among its tokens, it could be redriven and paid for twice; its tokens are unknown."""
    result = f'{{"type":"succeeded","message":{message},"error":3}}'.encode()
    assert ruling(result) is SETTLED
    assert read_result(result).message is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ('"boom"', Ruling("retry", "errored", 2)),
        ('{"error":[]}', Ruling("retry", "errored", 2)),
        ('{"error":{"type":7}}', Ruling("retry", "errored", 2)),
        ('{"error":{"type":"Words of a prompt\\n"}}', Ruling("retry", "errored", 2)),
        ('{"error":{"type":"' + "x" * 65 + '"}}', Ruling("retry", "errored", 2)),
        ('{"error":{"type":"not_found_error","message":{"a":1}}}', Ruling("bury", "not_found_error", 1)),
        ('{"error":{"type":"billing_error","message":null}},"message":[1]', Ruling("retry", "account", 1, parks=True)),
    ],
)
def test_an_error_of_an_odd_shape_is_read_as_far_as_it_goes(error: str, expected: Ruling) -> None:
    """What it does not say is not guessed, and what is no word becomes no reason."""
    assert ruling(f'{{"type":"errored","error":{error}}}'.encode()) == expected


@pytest.mark.parametrize("result", [b"7", b"[]", b"{}", b'{"type":null}', b'{"type":["succeeded"]}'])
def test_a_result_without_a_type_is_for_a_human(result: bytes) -> None:
    """Its row says all there is, and its dead letter that somebody has to look."""
    assert ruling(result) == Ruling("bury", "unknown_result", 1)


@pytest.mark.parametrize("spot", [b'"\xff"', b'{"\xc3":1}', b'"\xed\xa0\x80"'])
@pytest.mark.parametrize("line", [b'{"custom_id":"a","result":{"x":%b}}', b'{"x":%b,"custom_id":"a","result":{}}'])
def test_a_line_that_is_no_text_is_no_line(line: bytes, spot: bytes) -> None:
    """What is passed through unread would make rows that nobody can read."""
    with pytest.raises(UnreadableLineError):
        read_line(line % spot)


@pytest.mark.parametrize(("attempt", "fate"), [(1, "retry"), (2, "retry"), (3, "bury"), (4, "bury")])
def test_the_last_attempt_is_the_last(attempt: int, fate: str) -> None:
    """With three attempts the third failure is final."""
    assert ruling(b'{"type":"expired"}', attempt=attempt).fate == fate


@pytest.mark.parametrize(("attempt", "fate"), [(1, "retry"), (2, "bury")])
def test_an_error_nobody_knows_is_tried_twice(attempt: int, fate: str) -> None:
    """The prompt itself may be the cause, so a lane's many attempts do not apply."""
    assert ruling(errored("brand_new_error"), attempt=attempt, batch=judged(max_attempts=9)).fate == fate


def test_an_error_nobody_knows_is_not_tried_more_often_than_the_lane_allows() -> None:
    """One attempt is one attempt."""
    assert ruling(errored("brand_new_error"), batch=judged(max_attempts=1)).fate == "bury"


@pytest.mark.parametrize(
    ("deadline", "fate"), [(NOON - 0.001, "bury"), (NOON, "bury"), (NOON + 0.001, "retry"), (None, "retry")]
)
def test_a_prompt_is_not_retried_past_its_deadline(deadline: float | None, fate: str) -> None:
    """By the instant at which its batch ended, not by today's time: a second delivery rules the same."""
    assert ruling(b'{"type":"expired"}', deadline=deadline).fate == fate


@pytest.mark.parametrize(("attempt", "deadline"), [(3, None), (99, None), (1, NOON - 3600)])
def test_trouble_of_the_account_costs_no_attempt_and_buries_nobody(attempt: int, deadline: float | None) -> None:
    """The prompt goes back as it was, however often it was tried and however late it is."""
    expected = Ruling("retry", "account", attempt, parks=True)
    assert ruling(errored("billing_error"), attempt=attempt, deadline=deadline) == expected


def test_a_line_gives_its_result_as_it_stands() -> None:
    """The bytes between `result` and the end of the line, whatever keys stand around them."""
    result = b'{ "type" : "succeeded", "message": {"n": 1.50, "s": "\\u00e9"} }'
    line = read_line(b'{"custom_id": "a", "new_key": [1], "result": ' + result + b"}")
    assert (line.custom_id, bytes(line.result)) == ("a", result)
