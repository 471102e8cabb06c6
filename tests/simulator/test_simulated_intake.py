import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.simulator import intake as intake_module
from worker.simulator.intake import Intake
from worker.simulator.params import LATEST, Judge
from worker.simulator.refusal import Refusal

TRICKY = ['{"custom_id"', '},{"custom_id":"x","params":{', "]}", "\\", '"', ",", "\n", "ä", "😀", "[[", "}}"]
TEXTS = st.lists(st.sampled_from([*TRICKY, "words "]), max_size=12).map("".join)
NESTED = st.recursive(
    TEXTS | st.integers(-5, 5) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
PARAMS = st.dictionaries(st.sampled_from(["messages", "model", "custom_id", "x"]), NESTED, max_size=4)
ITEMS = st.lists(PARAMS, min_size=1, max_size=12)
STYLES = st.sampled_from([{}, {"separators": (",", ":")}, {"indent": 1}, {"ensure_ascii": False}])


def _judge() -> Judge:
    return Judge(version=LATEST, betas="", models=None, max_output_tokens=100)


def _feed(body: bytes, step: int) -> Intake:
    intake = Intake(_judge(), 1_000)
    for at in range(0, len(body), step):
        intake.feed(memoryview(body)[at : at + step])
    return intake


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=ITEMS, style=STYLES, step=st.integers(1, 400), swap=st.booleans(), window=st.sampled_from([1, 40, 300]))
def test_a_body_is_split_like_a_whole_one_however_it_arrives(
    *, monkeypatch: pytest.MonkeyPatch, items: list[Any], style: dict[str, Any], step: int, swap: bool, window: int
) -> None:
    """Whatever strings, nesting, spacing and order of keys: each request is found once, with the size of its params."""
    monkeypatch.setattr(intake_module, "WINDOW", window)
    requests = [{"custom_id": f"id-{number}", "params": params} for number, params in enumerate(items)]
    if swap:
        requests = [dict(reversed(request.items())) for request in requests]
    body = json.dumps({"requests": requests}, **style).encode()
    rows = _feed(body, step).finish()
    whole = msgspec.json.decode(body, type=dict[str, list[dict[str, msgspec.Raw]]])
    assert rows.ids == [f"id-{number}" for number in range(len(items))]
    sizes = [len(bytes(request["params"])) for request in whole["requests"]]
    assert [rows.record(number)[0] for number in range(len(items))] == sizes


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    items=ITEMS,
    step=st.integers(1, 400),
    at=st.integers(0, 10_000),
    junk=st.sampled_from(['"', "{", "}", "]", ",", "x", ""]),
)
def test_a_damaged_body_is_refused_exactly_if_it_is_damaged(
    *, monkeypatch: pytest.MonkeyPatch, items: list[Any], step: int, at: int, junk: str
) -> None:
    """One byte replaced anywhere: what the whole-body decoder refuses, the intake refuses, and nothing else."""
    monkeypatch.setattr(intake_module, "WINDOW", 64)
    requests = [{"custom_id": f"id-{number}", "params": params} for number, params in enumerate(items)]
    body = json.dumps({"requests": requests}, ensure_ascii=False).encode()
    at %= len(body)
    body = body[:at] + junk.encode() + body[at + 1 :]
    try:
        str(body, "utf-8")
        tree = json.loads(body, parse_constant=lambda _: pytest.skip("a constant"))
        msgspec.json.decode(body)
    except ValueError:
        with pytest.raises(Refusal, match="not valid JSON"):
            _feed(body, step).finish()
        return
    fine = set(tree) == {"requests"} and all(
        set(each) == {"custom_id", "params"} and re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", each["custom_id"])
        for each in tree["requests"]
    )
    if fine:
        assert len(_feed(body, step).finish().ids) == len(tree["requests"])
    else:
        with pytest.raises(Refusal):
            _feed(body, step).finish()


@pytest.mark.parametrize("tail", [b",]}", b", ]}", b",,]}", b",{}]}"])
def test_a_trailing_comma_is_refused_wherever_the_windows_end(monkeypatch: pytest.MonkeyPatch, tail: bytes) -> None:
    """A comma without a request after it refuses the batch, even if all before it was already taken."""
    monkeypatch.setattr(intake_module, "WINDOW", 1)
    body = b'{"requests":[{"custom_id":"a","params":{}},{"custom_id":"b","params":{}}' + tail
    for step in (1, 7, len(body) - 2, len(body)):
        with pytest.raises(Refusal):
            _feed(body, step).finish()
    # The only request taken, its comma too, and the end comes in the last window.
    intake = _feed(b'{"requests":[{"custom_id":"a","params":{}},', 1 << 20)
    monkeypatch.setattr(intake_module, "WINDOW", 1 << 20)
    intake.feed(tail[1:])
    with pytest.raises(Refusal):
        intake.finish()


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n", " : ")])
def test_an_ordinary_body_never_needs_the_scanner(monkeypatch: pytest.MonkeyPatch, separators: tuple[str, str]) -> None:
    """Bodies with `custom_id` first take the fast way alone, whatever the spacing."""
    monkeypatch.setattr(intake_module, "WINDOW", 500)
    monkeypatch.setattr(intake_module, "split", lambda *_, **__: pytest.fail("scanned"))
    requests = [{"custom_id": f"id-{n}", "params": {"x": "y" * 90}} for n in range(100)]
    body = json.dumps({"requests": requests}, separators=separators).encode()
    assert len(_feed(body, 450).finish().ids) == 100


def test_no_more_requests_are_kept_than_a_batch_may_have() -> None:
    """A batch of too many is refused without remembering all of them."""
    intake = Intake(_judge(), 3)
    intake.feed(json.dumps({"requests": [{"custom_id": f"id-{n}", "params": {}} for n in range(9)]}).encode())
    with pytest.raises(Refusal, match="at most 3 items after validation, not 9"):
        intake.finish()
    assert len(intake.rows.ids) == 3


def test_memory_stays_small_while_a_body_arrives() -> None:
    """Of a body of 30 MB no more than a window and a half is ever held."""
    text = "x" * 2_400
    intake = Intake(_judge(), 100_000)
    intake.feed(b'{"requests":[')
    most = 0
    for number in range(12_000):
        comma = b"," if number else b""
        intake.feed(comma + b'{"custom_id":"id-%d","params":{"x":"%b"}}' % (number, text.encode()))
        most = max(most, len(intake._pending))
    intake.feed(b"]}")
    assert len(intake.finish().ids) == 12_000
    assert most < 3 << 19
