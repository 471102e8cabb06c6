import json
from collections.abc import Callable
from typing import Any

import pytest

from worker.simulator import Simulator

Any_ = Callable[..., Any]
GOOD = {"model": "claude-haiku-4-5", "max_tokens": 10, "messages": [{"role": "user", "content": "Hi"}]}


def _item(custom_id: object = "a", **changes: object) -> dict[str, object]:
    return {"custom_id": custom_id, "params": GOOD} | changes


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"requests": []}, "requests: List should have at least 1 item"),
        ({}, "requests: Field required"),
        ({"requests": {}}, "requests: Input should be a valid list"),
        ({"requests": [_item()], "name": "x"}, "name: Extra inputs are not permitted"),
        ({"name": "x", "requests": [_item()]}, "name: Extra inputs are not permitted"),
        ([], "Input should be a valid dictionary"),
        ({"requests": [_item(), {"params": GOOD}]}, "requests.1.custom_id: Field required"),
        ({"requests": [_item(), {"custom_id": "b"}]}, "requests.1.params: Field required"),
        ({"requests": [_item(), _item(7)]}, "requests.1.custom_id: Input should be a valid string"),
        ({"requests": [_item(), _item("b", tag=1)]}, "requests.1.tag: Extra inputs are not permitted"),
        ({"requests": [_item(), 7]}, "requests.1: Input should be a valid dictionary"),
        ({"requests": [_item(params=[])]}, "requests.0.params: Input should be a valid dictionary"),
        ({"requests": [_item(), _item("b"), _item("ä")]}, "requests.2.custom_id: String should match pattern"),
        ({"requests": [_item("")]}, "requests.0.custom_id: String should match pattern"),
        ({"requests": [_item("a\nb")]}, "requests.0.custom_id: String should match pattern"),
        ({"requests": [_item("x" * 65)]}, "requests.0.custom_id: String should have at most 64 characters"),
        ({"requests": [_item("a"), _item("b"), _item("a")]}, "requests: custom_id's must be unique within a batch"),
    ],
)
def test_a_bad_envelope_refuses_the_whole_batch(simulator: Simulator, call: Any_, body: object, message: str) -> None:
    """What is wrong outside of params is said at once, with its place, and nothing is created."""
    answer = call(simulator, "POST", body=body)
    assert answer.status == 400
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert answer.json["error"]["message"].startswith(message)
    assert simulator.control.ledger()["batches"] == 0


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b'{"requests":[',
        b'{"requests":[{"custom_id":"a","params":{}}',
        b'{"requests":[{"custom_id":"a","params":{}},]}',
        b'{"requests":[{"custom_id":"a","params":{}}]}}',
        b'{"requests":[{"custom_id":"a","params":{}} {"custom_id":"b","params":{}}]}',
        b'{"requests":[,]}',
        b'{"requests":[{"custom_id":"a","params":{"x":NaN}}]}',
        b'{"requests":[{"custom_id":"a","params":{"x":"\xff"}}]}',
        b'{"requests":[{"custom_id":"a","params":{"x":"\\ud800"}}]}',
        b'\xef\xbb\xbf{"requests":[]}',
        b'{"requests":[{"custom_id":"a","params":{}]}',
        b"requests",
    ],
)
def test_a_body_that_is_no_json_is_refused(simulator: Simulator, call: Any_, raw: bytes) -> None:
    """Broken JSON, lone surrogates and bytes that are no UTF-8 refuse the batch as unreadable."""
    answer = call(simulator, "POST", raw=raw)
    assert answer.status == 400
    assert answer.json["error"]["message"].startswith("The request body is not valid JSON: ")
    assert simulator.control.ledger()["batches"] == 0


def test_broken_json_is_said_before_a_bad_custom_id(simulator: Simulator, call: Any_) -> None:
    """A body is read before it is checked: its unreadable end hides the bad id at its start."""
    answer = call(simulator, "POST", raw=b'{"requests":[{"custom_id":"!","params":{}},{"custom_id":"a"')
    assert "not valid JSON" in answer.json["error"]["message"]


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"messages": ...}, "invalid_request_error", "messages: Field required"),
        ({"model": ...}, "invalid_request_error", "model: Field required"),
        ({"max_tokens": ...}, "invalid_request_error", "max_tokens: Field required"),
        ({"max_tokens": 0}, "invalid_request_error", "max_tokens: "),
        ({"max_tokens": 10**7}, "invalid_request_error", "max_tokens: 10000000 > 128000"),
        ({"max_tokens": "many"}, "invalid_request_error", "max_tokens: "),
        ({"model": "claude-99"}, "not_found_error", "model: claude-99"),
        ({"model": "claude-sonnet-4-20250514"}, "not_found_error", "model: claude-sonnet-4-20250514"),
        ({"model": "gpt-4"}, "not_found_error", "model: gpt-4"),
        ({"stream": True}, "invalid_request_error", "stream: "),
        ({"speed": "fast"}, "invalid_request_error", "speed: "),
        ({"betas": ["x"]}, "invalid_request_error", "betas: "),
        ({"extra_headers": {}}, "invalid_request_error", "extra_headers: "),
        ({"temperature": 1.0}, "invalid_request_error", "temperature: "),
        ({"top_p": 1.0}, "invalid_request_error", "top_p: "),
        ({"top_k": 5}, "invalid_request_error", "top_k: "),
        ({"messages": []}, "invalid_request_error", "messages: "),
        ({"messages": "hi"}, "invalid_request_error", "messages: "),
        ({"messages": [{"role": "system", "content": "x"}]}, "invalid_request_error", "messages.0.role: "),
        ({"messages": [{"role": "user", "content": ""}]}, "invalid_request_error", "messages.0.content: "),
        ({"messages": [{"role": "user", "content": [{}]}]}, "invalid_request_error", "messages.0.content.0.type: "),
    ],
)
def test_bad_params_become_an_errored_row_at_the_end(
    *, simulator: Simulator, call: Any_, rows: Any_, requests: Any_, changes: dict[str, Any], kind: str, message: str
) -> None:
    """Params are accepted unseen; the row says, doubly nested, what was wrong, and costs nothing."""
    body = requests(1, ids=["bad"], **changes)
    body["requests"].append(_item("good"))
    batch = call(simulator, "POST", body=body)
    assert batch.status == 200
    simulator.control.advance(1)
    results = {row["custom_id"]: row["result"] for row in rows(simulator, batch.json["id"])}
    assert results["good"]["type"] == "succeeded"
    assert results["bad"]["type"] == "errored"
    error = results["bad"]["error"]
    assert (error["type"], error["request_id"], error["error"]["details"]) == ("error", None, None)
    assert error["error"]["type"] == kind
    assert error["error"]["message"].startswith(message)
    assert simulator.control.ledger()["prompts_billed"] == 1


DOCUMENT = {"type": "document", "source": {"type": "text", "data": "x"}}
IMAGE = {"type": "image", "source": {"type": "url", "url": "https://pictures.invalid/cat.png"}}
TURNS = [
    {"role": "user", "content": "x"},
    {"role": "assistant", "content": [DOCUMENT]},
    {"role": "user", "content": "y"},
]


@pytest.mark.parametrize(
    ("version", "changes", "result"),
    [
        ("2023-06-01", {"temperature": 1.0, "top_p": 0.5, "top_k": 3}, "succeeded"),
        ("2026-10-21", {"temperature": 1.0}, "errored"),
        ("2023-06-01", {"messages": TURNS}, "succeeded"),
        ("2026-10-21", {"messages": TURNS}, "errored"),
        ("2026-10-21", {"messages": [{"role": "user", "content": [DOCUMENT]}]}, "succeeded"),
        ("2026-10-21", {"messages": [{"role": "user", "content": [IMAGE]}]}, "errored"),
        ("2026-10-21", {"messages": [TURNS[0], {"role": "assistant", "content": "{"}]}, "succeeded"),
        (
            "2026-10-21",
            {"model": "claude-sonnet-4-6", "messages": [TURNS[0], {"role": "assistant", "content": "{"}]},
            "errored",
        ),
        ("2026-10-21", {"system": "Be brief.", "stream": False}, "succeeded"),
        ("2026-10-21", {"model": "claude-opus-4-5-20251101"}, "succeeded"),
        ("2026-10-21", {"model": "claude-mythos-5-2"}, "succeeded"),
    ],
)
def test_the_rules_for_params_depend_on_version_and_model(
    *, simulator: Simulator, call: Any_, rows: Any_, requests: Any_, version: str, changes: dict[str, Any], result: str
) -> None:
    """Sampling parameters and odd blocks fall only under the new version, prefill only with new models."""
    batch = call(simulator, "POST", body=requests(1, **changes), headers={"anthropic-version": version})
    simulator.control.advance(1)
    assert rows(simulator, batch.json["id"])[0]["result"]["type"] == result


def test_the_long_output_beta_lifts_max_tokens(simulator: Simulator, call: Any_, rows: Any_, requests: Any_) -> None:
    """With the beta header 300,000 output tokens are fine."""
    headers = {"anthropic-beta": "output-300k-2026-03-24"}
    batch = call(simulator, "POST", body=requests(1, max_tokens=300_000), headers=headers)
    simulator.control.advance(1)
    assert rows(simulator, batch.json["id"])[0]["result"]["type"] == "succeeded"


@pytest.mark.parametrize(
    ("headers", "status", "message"),
    [
        ({"authorization": None}, 401, "x-api-key header is required"),
        ({"authorization": "Bearer nonsense"}, 401, "Invalid bearer token"),
        ({"authorization": None, "x-api-key": "nonsense"}, 401, "invalid x-api-key"),
        ({"authorization": None, "x-api-key": "sk-ant-fine"}, 200, ""),
        ({"anthropic-version": None}, 400, "anthropic-version: header is required"),
        ({"anthropic-version": "2020-01-01"}, 400, 'anthropic-version: "2020-01-01" is not a valid version'),
        ({"anthropic-version": "2023-06-01"}, 200, ""),
    ],
)
def test_key_and_version_are_checked_on_every_call(
    simulator: Simulator, call: Any_, headers: dict[str, str | None], status: int, message: str
) -> None:
    """Either header carries the key; without key or with an unknown version nothing is answered."""
    answer = call(simulator, "GET", headers=headers)
    assert answer.status == status
    if message:
        assert answer.json["error"]["message"] == message


def test_an_error_body_has_the_exact_form(simulator: Simulator, call: Any_) -> None:
    """Outer type, inner type, message and details, and the request id that the header has too."""
    answer = call(simulator, "GET", headers={"authorization": "Bearer nonsense"})
    assert answer.json == {
        "type": "error",
        "error": {"type": "authentication_error", "message": "Invalid bearer token", "details": None},
        "request_id": answer.headers["request-id"],
    }
    assert answer.headers["request-id"].startswith("req_01")
    assert "canary" not in str(answer.raw)


def test_every_answer_carries_the_headers_of_the_real_one(simulator: Simulator, call: Any_) -> None:
    """Request id, workspace, organisation, rate limit and the date of the simulator's own clock."""
    headers = call(simulator).headers
    assert headers["date"] == "Sat, 22 Nov 2025 12:00:00 GMT"
    assert headers["anthropic-workspace-id"] == "wrkspc_sim"
    for name in ("request-id", "anthropic-organization-id"):
        assert headers[name]
    for name in ("limit", "remaining", "reset"):
        assert headers[f"anthropic-ratelimit-requests-{name}"]


def test_a_batch_in_progress_hints_when_to_look_again(simulate: Any_, call: Any_, create: Any_) -> None:
    """Retrieve answers with `retry-after` until the end; the hint scales with the time a batch takes."""
    for ends_after, hint in ((0.5, "1"), (5, "5"), (3600, "10")):
        simulator = simulate(ends_after=ends_after)
        batch_id = create(simulator)
        path = f"/v1/messages/batches/{batch_id}"
        assert call(simulator, "GET", path).headers["retry-after"] == hint
        simulator.control.end(batch_id)
        assert "retry-after" not in call(simulator, "GET", path).headers


def test_too_many_requests_in_a_batch_are_refused(simulate: Any_, call: Any_, requests: Any_) -> None:
    """One request more than the limit refuses all; the limit itself passes."""
    simulator = simulate(max_requests=10)
    assert call(simulator, "POST", body=requests(10)).status == 200
    answer = call(simulator, "POST", body=requests(11))
    assert (answer.status, answer.json["error"]["message"]) == (
        400,
        "requests: List should have at most 10 items after validation, not 11",
    )


def test_a_body_too_large_is_refused_by_the_gateway(simulate: Any_, call: Any_, requests: Any_) -> None:
    """413 comes in Cloudflare's form: no outer type, no request id; a body of just the limit passes."""
    body = json.dumps(requests(3)).encode()
    simulator = simulate(max_body_bytes=len(body))
    assert call(simulator, "POST", raw=body).status == 200
    answer = call(simulator, "POST", raw=body + b" ")
    assert (answer.status, answer.headers["server"]) == (413, "cloudflare")
    assert set(answer.json) == {"error"}
    assert answer.json["error"]["type"] == "request_too_large"
    assert "request-id" not in answer.headers


def test_an_encoded_body_is_refused(simulator: Simulator, call: Any_, requests: Any_) -> None:
    """Which encodings the real API takes is unknown, so none is taken here."""
    answer = call(simulator, "POST", body=requests(), headers={"content-encoding": "zstd"})
    assert answer.status == 400
    assert answer.json["error"]["details"] == {"error_code": "request_body_encoding_unsupported"}


def test_requests_per_minute_are_limited_and_come_back(simulate: Any_, call: Any_) -> None:
    """Over the limit: 429 with a `retry-after` after which the next request passes."""
    simulator = simulate(requests_per_minute=60)
    answers = [call(simulator) for _ in range(61)]
    assert [answer.status for answer in answers] == [200] * 60 + [429]
    assert answers[0].headers["anthropic-ratelimit-requests-remaining"] == "59"
    assert answers[60].headers["retry-after"] == "1"
    assert answers[60].json["error"]["type"] == "rate_limit_error"
    simulator.control.advance(1)
    assert call(simulator).status == 200
    simulator.control.advance(3600)
    assert [call(simulator).status for _ in range(61)].index(429) == 60


def test_prompts_in_processing_are_limited(simulate: Any_, call: Any_, requests: Any_) -> None:
    """The queue limit counts prompts of open batches; when one has ended there is room again."""
    simulator = simulate(queue_limit=10)
    assert call(simulator, "POST", body=requests(8)).status == 200
    answer = call(simulator, "POST", body=requests(3))
    assert (answer.status, answer.json["error"]["type"]) == (429, "rate_limit_error")
    simulator.control.advance(1)
    assert call(simulator, "POST", body=requests(3)).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/messages", 404), ("PUT", "", 405), ("POST", "/x/results", 405), ("GET", "/simulator/nothing", 404)],
)
def test_other_routes_do_not_exist(simulator: Simulator, call: Any_, method: str, path: str, status: int) -> None:
    """Anything but the six endpoints is refused."""
    path = f"/v1/messages/batches{path}" if path.endswith("results") else path
    assert call(simulator, method, path).status == status
