import json

import pytest
from core_builders import DEPLOYMENT, NOON, UID, build_batch, build_prompt
from hypothesis import given
from hypothesis import strategies as st

from worker.core.intake import Flaw
from worker.core.rows import RowWriter, spell_instant, unusable_result

CUSTOM_ID = f"{DEPLOYMENT}_{UID}_01_1795348800000-0"


def test_a_row_has_the_shape_of_the_contract() -> None:
    """Key for key and in this order."""
    batch = build_batch(remote_id="msgbatch_1", lane="reports", ended_at=NOON + 1800)
    prompt = build_prompt(id="order-42", attempt=2, metadata=b'{"a": 1}')
    result = b'{"type":"succeeded","message":{}}'
    row = RowWriter(batch).write(prompt, CUSTOM_ID, result)
    assert list(json.loads(row).items()) == [
        ("id", "order-42"),
        ("lane", "reports"),
        ("custom_id", CUSTOM_ID),
        ("batch", UID),
        ("batch_id", "msgbatch_1"),
        ("attempt", 2),
        ("enqueued_at", "2026-11-22T12:00:00.000Z"),
        ("ended_at", "2026-11-22T12:30:00.000Z"),
        ("metadata", {"a": 1}),
        ("result", {"type": "succeeded", "message": {}}),
    ]


def test_a_row_without_metadata_says_null() -> None:
    """The key is always there."""
    assert json.loads(RowWriter(build_batch()).write(build_prompt(), CUSTOM_ID, b"{}"))["metadata"] is None


def test_a_trace_is_carried_through() -> None:
    """Only where the producer sent one, just before the result."""
    row = json.loads(RowWriter(build_batch()).write(build_prompt(traceparent="00-ab-cd-01"), CUSTOM_ID, b"{}"))
    assert list(row)[-2:] == ["traceparent", "result"]
    assert row["traceparent"] == "00-ab-cd-01"


def test_a_prompt_that_never_reached_the_api_has_no_batch_of_its() -> None:
    """Even where the rest of its batch did reach it."""
    batch = build_batch(remote_id="msgbatch_1")
    row = json.loads(RowWriter(batch).write(build_prompt(), None, unusable_result(Flaw.NOT_JSON)))
    assert row["batch_id"] is None
    assert row["custom_id"] is None
    assert row["result"] == {
        "type": "errored",
        "error": {
            "type": "error",
            "error": {"type": "invalid_request_error", "message": "batchmill: params is not valid JSON"},
        },
    }


words = st.text(min_size=1, max_size=10)


@given(
    result=st.dictionaries(words, words | st.integers() | st.none(), max_size=5).map(
        lambda value: json.dumps(value, ensure_ascii=False, indent=1).encode()
    ),
    metadata=st.recursive(words | st.floats(allow_nan=False, allow_infinity=False), st.lists, max_leaves=5).map(
        lambda value: json.dumps(value).encode()
    ),
    name=words,
)
def test_result_and_metadata_are_passed_through_byte_for_byte(result: bytes, metadata: bytes, name: str) -> None:
    """Not re-spelled: white space, escapes and digits are as they came, and the row is JSON around them."""
    row = RowWriter(build_batch()).write(build_prompt(id=name, metadata=metadata), CUSTOM_ID, result)
    assert row.endswith(b',"metadata":%b,"result":%b}' % (metadata, result))
    decoded = json.loads(row)
    assert (decoded["id"], decoded["metadata"], decoded["result"]) == (name, json.loads(metadata), json.loads(result))


def test_a_percent_sign_in_a_row_is_only_a_percent_sign() -> None:
    """What producers write is data, never a format."""
    prompt = build_prompt(id="%d%s%b", metadata=b'"%b"')
    row = json.loads(RowWriter(build_batch()).write(prompt, CUSTOM_ID, b'{"100%b":1}'))
    assert (row["id"], row["metadata"], row["result"]) == ("%d%s%b", "%b", {"100%b": 1})


@pytest.mark.parametrize(
    ("instant", "spelled"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (NOON, "2026-11-22T12:00:00.000Z"),
        (NOON + 0.001, "2026-11-22T12:00:00.001Z"),
        (NOON + 0.9994, "2026-11-22T12:00:00.999Z"),
        (None, None),
        (999_999_999_999.0, "9999-12-31T23:59:59.000Z"),
        (2.0**64 / 1000, "9999-12-31T23:59:59.000Z"),
    ],
)
def test_an_instant_is_spelled_with_milliseconds(instant: float | None, spelled: str | None) -> None:
    """UTC; a time beyond the calendar (an entry id may hold one) is spelled as its end."""
    assert spell_instant(instant) == spelled


def test_what_a_batch_is_called_is_no_format() -> None:
    """What all rows share is spelled once, and stands as it is."""
    batch = build_batch(remote_id="msgbatch_%d", lane="50%b", uid="%s")
    row = json.loads(RowWriter(batch).write(build_prompt(), CUSTOM_ID, b"{}"))
    assert (row["batch_id"], row["lane"], row["batch"]) == ("msgbatch_%d", "50%b", "%s")
