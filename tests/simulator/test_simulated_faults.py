import time
from collections import Counter
from collections.abc import Callable
from http.client import HTTPException, IncompleteRead
from typing import Any

import pytest

from worker.simulator import Simulator

Any_ = Callable[..., Any]
GONE = (HTTPException, OSError)


def _script(simulator: Simulator, call: Any_, *faults: dict[str, Any]) -> None:
    assert call(simulator, "POST", "/simulator/faults", body=list(faults)).status == 200


def _count(simulator: Simulator, call: Any_) -> int:
    return len(call(simulator).json["data"])


def _ended(simulator: Simulator, create: Any_, count: int = 20) -> str:
    batch_id = create(simulator, count)
    simulator.control.end(batch_id)
    return str(batch_id)


@pytest.mark.parametrize("on", ["create", "retrieve", "list", "results", "cancel", "delete"])
def test_a_status_strikes_any_operation_once_and_does_nothing(
    simulator: Simulator, call: Any_, create: Any_, requests: Any_, on: str
) -> None:
    """The scripted error is answered as scripted, once, and nothing was done."""
    batch_id = create(simulator)
    fault = {"on": on, "kind": "status", "status": 529, "error_type": "overloaded_error", "message": "Overloaded"}
    _script(simulator, call, {**fault, "retry_after": 7, "error_code": "some_code"})
    path = f"/v1/messages/batches/{batch_id}"
    method, target, body = {
        "create": ("POST", "", requests()),
        "retrieve": ("GET", path, None),
        "list": ("GET", "", None),
        "results": ("GET", f"{path}/results", None),
        "cancel": ("POST", f"{path}/cancel", None),
        "delete": ("DELETE", path, None),
    }[on]
    answer = call(simulator, method, target, body=body)
    assert (answer.status, answer.headers["retry-after"], answer.headers["x-should-retry"]) == (529, "7", "true")
    inner = {"type": "overloaded_error", "message": "Overloaded", "details": {"error_code": "some_code"}}
    assert answer.json["error"] == inner
    assert call(simulator, method, target, body=body).json != answer.json
    assert call(simulator, "GET", path).json["cancel_initiated_at"] is None or on == "cancel"


def test_after_and_times_say_when_and_how_often(simulator: Simulator, call: Any_) -> None:
    """A fault skips `after` requests, strikes `times` and is over."""
    _script(simulator, call, {"on": "list", "kind": "status", "status": 500, "after": 2, "times": 3})
    assert [call(simulator).status for _ in range(7)] == [200, 200, 500, 500, 500, 200, 200]


def test_a_fault_without_end_strikes_until_cleared(simulator: Simulator, call: Any_) -> None:
    """`times: null` is for ever; DELETE ends it and says how many there were."""
    _script(simulator, call, {"on": "any", "kind": "status", "status": 503, "times": None})
    assert {call(simulator).status for _ in range(5)} == {503}
    assert call(simulator, "GET", "/simulator/faults").json["faults"][0]["struck"] == 5
    assert call(simulator, "DELETE", "/simulator/faults").json == {"cleared": 1}
    assert call(simulator).status == 200


def test_a_probability_strikes_a_share_that_the_seed_repeats(simulate: Any_, call: Any_) -> None:
    """Half of the requests fail at 0.5, the same ones for the same seed."""
    seen = []
    for _ in range(2):
        simulator = simulate(seed=4)
        _script(simulator, call, {"on": "list", "kind": "status", "probability": 0.5, "times": None})
        seen.append([call(simulator).status for _ in range(60)])
    assert seen[0] == seen[1]
    assert 15 < seen[0].count(500) < 45


def test_a_status_after_the_commit_hides_a_batch_that_exists(simulator: Simulator, call: Any_, requests: Any_) -> None:
    """`commit_then_status` answers 500 and the batch is in the list."""
    _script(simulator, call, {"on": "create", "kind": "commit_then_status"})
    assert call(simulator, "POST", body=requests(3)).status == 500
    assert _count(simulator, call) == 1
    assert call(simulator, "GET", "/simulator/state").json["posts"] == {"created+commit_then_status": 1}


def test_a_dropped_reply_resets_and_the_batch_exists(simulator: Simulator, call: Any_, requests: Any_) -> None:
    """`drop_reply` does everything and answers nothing."""
    _script(simulator, call, {"on": "create", "kind": "drop_reply"})
    with pytest.raises(GONE):
        call(simulator, "POST", body=requests())
    assert _count(simulator, call) == 1


def test_a_reset_before_does_nothing(simulator: Simulator, call: Any_, requests: Any_) -> None:
    """`reset_before` closes the connection and there is no batch, early or late."""
    for early in (True, False):
        _script(simulator, call, {"on": "create", "kind": "reset_before", "early": early})
        with pytest.raises(GONE):
            call(simulator, "POST", body=requests())
    assert _count(simulator, call) == 0
    assert simulator.control.state()["posts"] == {"reset": 2}


def test_garbage_is_a_200_that_cannot_be_read(simulator: Simulator, call: Any_, requests: Any_) -> None:
    """`garbage` commits and answers 200 with a body that is no JSON."""
    _script(simulator, call, {"on": "create", "kind": "garbage"}, {"on": "list", "kind": "garbage", "body": "<html>"})
    answer = call(simulator, "POST", body=requests())
    assert (answer.status, answer.json, answer.raw) == (200, None, b'{"id": "msgbatch_')
    assert call(simulator).raw == b"<html>"
    assert _count(simulator, call) == 1


@pytest.mark.parametrize("kind", ["hold", "delay"])
def test_a_held_or_delayed_answer_comes_late(simulator: Simulator, call: Any_, requests: Any_, kind: str) -> None:
    """`hold` waits after the commit, `delay` before it; both answer in the end."""
    _script(simulator, call, {"on": "create", "kind": kind, "seconds": 0.15})
    began = time.monotonic()
    assert call(simulator, "POST", body=requests()).status == 200
    assert time.monotonic() - began >= 0.15


def test_stopping_does_not_wait_for_a_held_answer(simulate: Any_, call: Any_, requests: Any_, wait_until: Any_) -> None:
    """A simulator with an answer on hold for an hour stops at once."""
    import threading  # noqa: PLC0415  # this test alone has a second caller

    simulator = simulate()
    _script(simulator, call, {"on": "create", "kind": "hold", "seconds": 3600})
    failures: list[str] = []

    def caller() -> None:
        try:
            call(simulator, "POST", body=requests())
        except GONE as error:
            failures.append(type(error).__name__)

    thread = threading.Thread(target=caller)
    thread.start()
    wait_until(lambda: simulator.control.ledger()["batches"], "the batch is committed")
    began = time.monotonic()
    simulator.stop()
    thread.join(5)
    assert time.monotonic() - began < 4
    assert not thread.is_alive()


def test_a_late_commit_appears_after_the_connection_closed(simulator: Simulator, call: Any_, requests: Any_) -> None:
    """`late_commit` hangs up at once, and N seconds later there is a batch created at that moment."""
    _script(simulator, call, {"on": "create", "kind": "late_commit", "seconds": 90})
    with pytest.raises(GONE):
        call(simulator, "POST", body=requests(4))
    simulator.control.advance(89)
    assert _count(simulator, call) == 0
    simulator.control.advance(1)
    (batch,) = call(simulator).json["data"]
    assert (batch["created_at"], batch["request_counts"]["processing"]) == ("2025-11-22T12:01:30.000000Z", 4)


def test_a_hidden_batch_is_listed_later_but_can_be_retrieved(simulator: Simulator, call: Any_, create: Any_) -> None:
    """`hide_from_list` keeps a fresh batch out of the list alone, for N seconds."""
    _script(simulator, call, {"on": "create", "kind": "hide_from_list", "seconds": 30})
    batch_id = create(simulator)
    assert _count(simulator, call) == 0
    assert call(simulator, "GET", f"/v1/messages/batches/{batch_id}").status == 200
    simulator.control.advance(30)
    assert _count(simulator, call) == 1


def test_shapes_and_a_lost_answer_combine(simulator: Simulator, call: Any_, requests: Any_) -> None:
    """One create can be hidden, partly expired and unanswered at the same time."""
    _script(
        simulator,
        call,
        {"kind": "hide_from_list", "seconds": 30},
        {"kind": "rows", "result": "expired", "fraction": 0.5},
        {"on": "create", "kind": "drop_reply"},
    )
    with pytest.raises(GONE):
        call(simulator, "POST", body=requests(10))
    assert _count(simulator, call) == 0
    simulator.control.advance(30)
    (batch,) = call(simulator).json["data"]
    assert (batch["request_counts"]["succeeded"], batch["request_counts"]["expired"]) == (5, 5)


def test_of_two_lost_answers_each_strikes_its_own_request(simulator: Simulator, call: Any_, requests: Any_) -> None:
    """Only the older of two final faults strikes; the other is kept for the next request."""
    _script(
        simulator,
        call,
        {"on": "create", "kind": "commit_then_status", "status": 500},
        {"on": "create", "kind": "commit_then_status", "status": 504},
    )
    assert [call(simulator, "POST", body=requests()).status for _ in range(3)] == [500, 504, 200]


def test_a_share_of_rows_expires_and_another_fails(simulator: Simulator, call: Any_, create: Any_, rows: Any_) -> None:
    """Several `rows` faults hit different rows; what failed is not billed, and the next batch is whole again."""
    credit = "Your credit balance is too low to access the Anthropic API."
    _script(
        simulator,
        call,
        {"kind": "rows", "result": "expired", "fraction": 0.05},
        {"kind": "rows", "result": "errored", "error_type": "api_error", "message": "Oops", "fraction": 0.05},
        {"kind": "rows", "error_type": "invalid_request_error", "message": credit, "fraction": 0.1},
    )
    batch_id = _ended(simulator, create, 100)
    results = [row["result"] for row in rows(simulator, batch_id)]
    assert Counter(result["type"] for result in results) == {"succeeded": 80, "expired": 5, "errored": 15}
    errors = Counter(result["error"]["error"]["message"] for result in results if result["type"] == "errored")
    assert errors == {"Oops": 5, credit: 10}
    assert simulator.control.ledger()["prompts_billed"] == 80
    whole = _ended(simulator, create, 10)
    assert {row["result"]["type"] for row in rows(simulator, whole)} == {"succeeded"}


def test_rows_may_stop_for_a_scripted_reason(simulator: Simulator, call: Any_, create: Any_, rows: Any_) -> None:
    """A succeeded row can be a refusal, with nothing in it."""
    fault = {"kind": "rows", "result": "succeeded", "stop_reason": "refusal", "fraction": 1.0}
    _script(simulator, call, fault)
    message = rows(simulator, _ended(simulator, create, 1))[0]["result"]["message"]
    assert (message["stop_reason"], message["content"]) == ("refusal", [])


def test_a_stuck_batch_never_ends_until_somebody_ends_it(simulator: Simulator, call: Any_, create: Any_) -> None:
    """Neither time, expiry nor cancel ends a stuck batch; the simulator's own `end` does."""
    _script(simulator, call, {"kind": "stuck", "on": "create"})
    batch_id = create(simulator, 10)
    path = f"/v1/messages/batches/{batch_id}"
    simulator.control.advance(40 * 86_400)
    assert call(simulator, "GET", path).json["processing_status"] == "in_progress"
    call(simulator, "POST", f"{path}/cancel")
    simulator.control.advance(86_400)
    assert call(simulator, "GET", path).json["processing_status"] == "canceling"
    assert call(simulator, "POST", f"/simulator/batches/{batch_id}/end").status == 200
    assert call(simulator, "GET", path).json["request_counts"]["canceled"] == 10


def test_end_now_ends_at_birth_or_at_once(simulate: Any_, call: Any_, create: Any_) -> None:
    """On create the batch is born ended; without `on` every open batch ends when the fault is posted."""
    simulator = simulate(ends_after=3600)
    _script(simulator, call, {"kind": "end_now", "on": "create"})
    born, other = create(simulator), create(simulator)
    status = {batch["id"]: batch["processing_status"] for batch in call(simulator).json["data"]}
    assert status == {born: "ended", other: "in_progress"}
    _script(simulator, call, {"kind": "end_now"})
    assert {batch["processing_status"] for batch in call(simulator).json["data"]} == {"ended"}


def test_not_found_counts_for_each_batch_apart(simulator: Simulator, call: Any_, create: Any_) -> None:
    """The first two retrieves of every batch answer 404, then it is there."""
    _script(simulator, call, {"on": "retrieve", "kind": "not_found", "times": 2})
    for batch_id in (create(simulator), create(simulator)):
        path = f"/v1/messages/batches/{batch_id}"
        assert [call(simulator, "GET", path).status for _ in range(3)] == [404, 404, 200]


def test_a_fault_can_be_meant_for_one_batch(simulator: Simulator, call: Any_, create: Any_) -> None:
    """With `batch` only requests about that batch are struck."""
    hit, spared = create(simulator), create(simulator)
    _script(simulator, call, {"on": "retrieve", "kind": "status", "batch": hit, "times": None})
    assert call(simulator, "GET", f"/v1/messages/batches/{spared}").status == 200
    assert call(simulator, "GET", f"/v1/messages/batches/{hit}").status == 500


@pytest.mark.parametrize("mid_line", [False, True])
def test_a_clean_cut_looks_complete(
    simulator: Simulator, call: Any_, create: Any_, mid_line: bool
) -> None:  # parametrised
    """Cut in mode `clean` the stream is close-delimited and nothing but the count tells that rows are missing."""
    batch_id = _ended(simulator, create, 20)
    fault = {"kind": "cut_results", "mode": "clean", "fraction": 0.5, "mid_line": mid_line}
    _script(simulator, call, fault)
    answer = call(simulator, "GET", f"/v1/messages/batches/{batch_id}/results")
    assert answer.status == 200
    assert "content-length" not in answer.headers
    assert "transfer-encoding" not in answer.headers
    assert answer.raw.count(b"\n") == 10
    assert answer.raw.endswith(b"\n") is not mid_line


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
def test_a_reset_cut_is_an_error(simulate: Any_, call: Any_, create: Any_, framing: str) -> None:
    """Cut in mode `reset` the download fails, and the next one is whole."""
    simulator = simulate(framing=framing)
    batch_id = _ended(simulator, create, 1000)
    _script(simulator, call, {"kind": "cut_results", "mode": "reset", "fraction": 0.7})
    with pytest.raises((IncompleteRead, OSError)):
        call(simulator, "GET", f"/v1/messages/batches/{batch_id}/results")
    assert call(simulator, "GET", f"/v1/messages/batches/{batch_id}/results").raw.count(b"\n") == 1000


@pytest.mark.parametrize(
    ("kind", "lines", "distinct", "strange"),
    [("duplicate_line", 22, 20, 0), ("missing_line", 18, 18, 0), ("foreign_line", 22, 22, 2)],
)
def test_lines_are_doubled_lost_or_added(
    *, simulator: Simulator, call: Any_, create: Any_, rows: Any_, kind: str, lines: int, distinct: int, strange: int
) -> None:
    """The stream is spoiled by two lines while the counts of the batch stay right."""
    batch_id = _ended(simulator, create, 20)
    _script(simulator, call, {"kind": kind, "lines": 2})
    got = [row["custom_id"] for row in rows(simulator, batch_id)]
    assert (len(got), len(set(got))) == (lines, distinct)
    assert sum(each.startswith("stranger") for each in got) == strange
    assert call(simulator, "GET", f"/v1/messages/batches/{batch_id}").json["request_counts"]["succeeded"] == 20


def test_a_key_can_be_revoked_and_restored(simulator: Simulator, call: Any_) -> None:
    """A revoked key is 401 while another works; the record shows only fingerprints."""
    _script(simulator, call, {"kind": "revoke_key", "key": "sk-ant-canary"})
    assert call(simulator).status == 401
    assert call(simulator, headers={"authorization": "Bearer sk-ant-other"}).status == 200
    assert b"canary" not in call(simulator, "GET", "/simulator/state").raw
    _script(simulator, call, {"kind": "restore_key", "key": "sk-ant-canary"})
    assert call(simulator).status == 200


def test_a_key_can_be_revoked_in_the_middle(simulator: Simulator, call: Any_) -> None:
    """With `on` the key of the n-th request is revoked by that request."""
    _script(simulator, call, {"on": "list", "kind": "revoke_key", "after": 1})
    assert [call(simulator).status for _ in range(4)] == [200, 401, 401, 401]
    _script(simulator, call, {"kind": "restore_key"})
    assert call(simulator).status == 200


def test_all_keys_can_be_revoked(simulator: Simulator, call: Any_) -> None:
    """Without a key every key is refused until all are restored."""
    _script(simulator, call, {"kind": "revoke_key"})
    assert call(simulator, headers={"authorization": "Bearer sk-ant-other"}).status == 401
    _script(simulator, call, {"kind": "restore_key"})
    assert call(simulator).status == 200


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"on": "create", "kind": "explode"}, "kind"),
        ({"kind": "status"}, "`on` says which operation"),
        ({"on": "list", "kind": "late_commit"}, "strikes only `create`"),
        ({"on": "create", "kind": "cut_results"}, "strikes only `results`"),
        ({"on": "create", "kind": "status", "tiems": 1}, "tiems"),
        ({"on": "create", "kind": "status", "probability": 2}, "probability"),
        ({"on": "create", "kind": "drop_reply", "early": True}, "early"),
        ({"on": "list", "kind": "restore_key"}, "at once"),
        ({"kind": "end_now", "batch": "msgbatch_01nobody"}, "not found"),
        ("status", "Expected"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(simulator: Simulator, call: Any_, fault: object, reason: str) -> None:
    """A typo in a fault is an answer with the reason, not a fault that never strikes."""
    answer = call(simulator, "POST", "/simulator/faults", body=fault)
    assert answer.status in (400, 404)
    assert reason in answer.json["error"]["message"]
    assert simulator.control.state()["faults"] == []
