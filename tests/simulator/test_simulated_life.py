from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from worker.simulator import Simulator

DAY = 86_400
IDS = [f"depl01_batch_aa_{number}" for number in range(50)]
Any_ = Callable[..., Any]


def test_counts_are_processing_until_the_end_and_final_after_it(simulator: Simulator, call: Any_, create: Any_) -> None:
    """A batch shows only `processing` while it is open, and four final buckets once it has ended."""
    batch_id = create(simulator, 50)
    simulator.control.advance(0.5)
    counts = call(simulator, "GET", f"/v1/messages/batches/{batch_id}").json["request_counts"]
    assert counts == {"processing": 50, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
    simulator.control.advance(0.5)
    ended = call(simulator, "GET", f"/v1/messages/batches/{batch_id}").json
    assert ended["processing_status"] == "ended"
    assert ended["request_counts"] == {"processing": 0, "succeeded": 50, "errored": 0, "canceled": 0, "expired": 0}


def test_a_fresh_batch_has_every_field_of_the_real_one(simulator: Simulator, call: Any_, requests: Any_) -> None:
    """The object has the API's ten fields and its type; it expires exactly a day after its creation."""
    batch = call(simulator, "POST", body=requests(3)).json
    assert batch.pop("id").startswith("msgbatch_01")
    assert batch == {
        "type": "message_batch",
        "processing_status": "in_progress",
        "request_counts": {"processing": 3, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0},
        "ended_at": None,
        "created_at": "2025-11-22T12:00:00.000000Z",
        "expires_at": "2025-11-23T12:00:00.000000Z",
        "archived_at": None,
        "cancel_initiated_at": None,
        "results_url": None,
    }


def test_counts_move_early_only_when_asked_to(simulate: Any_, call: Any_, create: Any_) -> None:
    """With moving counts a batch half done shows half of its prompts as succeeded."""
    simulator = simulate(moving_counts=True, ends_after=10)
    batch_id = create(simulator, 50)
    simulator.control.advance(5)
    counts = call(simulator, "GET", f"/v1/messages/batches/{batch_id}").json["request_counts"]
    assert counts == {"processing": 25, "succeeded": 25, "errored": 0, "canceled": 0, "expired": 0}


def test_results_are_refused_before_the_end(simulator: Simulator, call: Any_, create: Any_) -> None:
    """Results of an open batch are 404 with the API's words."""
    batch_id = create(simulator)
    answer = call(simulator, "GET", f"/v1/messages/batches/{batch_id}/results")
    assert (answer.status, answer.json["error"]["type"]) == (404, "not_found_error")
    assert answer.json["error"]["message"].endswith("has no available results.")


def test_results_come_complete_in_another_order(simulator: Simulator, create: Any_, rows: Any_) -> None:
    """Every prompt has one line, none has two, and their order is not the order of the requests."""
    batch_id = create(simulator, ids=IDS)
    simulator.control.advance(1)
    got = [row["custom_id"] for row in rows(simulator, batch_id)]
    assert sorted(got) == sorted(IDS)
    assert got != IDS


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 12, 30, 97])
def test_a_batch_of_any_size_answers_each_prompt_once(
    simulator: Simulator, create: Any_, rows: Any_, count: int
) -> None:
    """The shuffled order leaves nothing out, whatever the size."""
    batch_id = create(simulator, count)
    simulator.control.advance(1)
    assert len({row["custom_id"] for row in rows(simulator, batch_id)}) == count


def test_the_same_seed_repeats_ids_and_orders(simulate: Any_, create: Any_, rows: Any_) -> None:
    """Two simulators with one seed make the same ids and the same order of lines; another seed makes others."""
    seen = []
    for seed in (1, 1, 2):
        simulator = simulate(seed=seed)
        batch_id = create(simulator, ids=IDS)
        simulator.control.advance(1)
        seen.append((batch_id, [row["custom_id"] for row in rows(simulator, batch_id)]))
    assert seen[0] == seen[1]
    assert seen[0][0] != seen[2][0]
    assert seen[0][1] != seen[2][1]


def test_an_answer_depends_on_its_prompt_alone(simulator: Simulator, create: Any_, rows: Any_) -> None:
    """The text is the same in another batch, and another for another prompt."""
    texts = []
    for content in ("one", "one", "two"):
        batch_id = create(simulator, messages=[{"role": "user", "content": content}])
        simulator.control.advance(1)
        texts.append(rows(simulator, batch_id)[0]["result"]["message"]["content"][0]["text"])
    assert texts[0] == texts[1] != texts[2]


def test_an_answer_has_batch_usage_and_a_stop_reason(simulator: Simulator, create: Any_, rows: Any_) -> None:
    """A message names its model and service tier, counts tokens, and says why it stopped."""
    batch_id = create(simulator)
    simulator.control.advance(1)
    message = rows(simulator, batch_id)[0]["result"]["message"]
    assert (message["model"], message["stop_reason"], message["role"]) == ("claude-haiku-4-5", "end_turn", "assistant")
    assert message["id"].startswith("msg_01")
    usage = message["usage"]
    assert usage["service_tier"] == "batch"
    assert usage["input_tokens"] > 0 < usage["output_tokens"]
    assert usage["cache_creation"]["ephemeral_5m_input_tokens"] == usage["cache_creation_input_tokens"] == 0


def test_a_small_token_limit_cuts_the_answer(simulator: Simulator, create: Any_, rows: Any_) -> None:
    """`max_tokens` below the answer's length ends it there with that stop reason."""
    batch_id = create(simulator, max_tokens=5)
    simulator.control.advance(1)
    message = rows(simulator, batch_id)[0]["result"]["message"]
    assert (message["stop_reason"], message["usage"]["output_tokens"]) == ("max_tokens", 5)


def test_cached_prompts_are_written_once_and_read_often(simulator: Simulator, create: Any_, rows: Any_) -> None:
    """With `cache_control` some rows write the cache, others read it, and no token is counted twice."""
    prompts = [{"type": "text", "text": "A long preamble." * 20, "cache_control": {"type": "ephemeral"}}]
    ids = [f"depl01_batch_aa_{number}" for number in range(30)]
    batch_id = create(simulator, ids=ids, system=prompts)
    simulator.control.advance(1)
    usages = [row["result"]["message"]["usage"] for row in rows(simulator, batch_id)]
    assert usages[0]["cache_creation_input_tokens"] > 0
    assert any(usage["cache_read_input_tokens"] for usage in usages)
    assert not any(usage["cache_read_input_tokens"] and usage["cache_creation_input_tokens"] for usage in usages)


def test_a_canceled_batch_keeps_what_was_done(simulate: Any_, call: Any_, create: Any_, rows: Any_) -> None:
    """Cancel goes through `canceling`; what was processed by then succeeded and is billed, the rest is canceled."""
    simulator = simulate(ends_after=10, cancel_takes=2)
    batch_id = create(simulator, 50)
    simulator.control.advance(2)
    canceling = call(simulator, "POST", f"/v1/messages/batches/{batch_id}/cancel").json
    assert canceling["processing_status"] == "canceling"
    assert canceling["cancel_initiated_at"] == "2025-11-22T12:00:02.000000Z"
    simulator.control.advance(2)
    ended = call(simulator, "GET", f"/v1/messages/batches/{batch_id}").json
    assert ended["request_counts"] == {"processing": 0, "succeeded": 10, "errored": 0, "canceled": 40, "expired": 0}
    assert Counter(row["result"]["type"] for row in rows(simulator, batch_id)) == {"succeeded": 10, "canceled": 40}
    assert simulator.control.ledger()["prompts_billed"] == 10


def test_canceling_twice_is_canceling_once(simulate: Any_, call: Any_, create: Any_) -> None:
    """A second cancel answers like the first and moves nothing."""
    simulator = simulate(ends_after=10, cancel_takes=5)
    batch_id = create(simulator)
    first = call(simulator, "POST", f"/v1/messages/batches/{batch_id}/cancel").json
    simulator.control.advance(1)
    assert call(simulator, "POST", f"/v1/messages/batches/{batch_id}/cancel").json == first


def test_a_batch_that_ended_cannot_be_canceled(simulator: Simulator, call: Any_, create: Any_) -> None:
    """Cancel after the end is a 4xx."""
    batch_id = create(simulator)
    simulator.control.advance(1)
    assert call(simulator, "POST", f"/v1/messages/batches/{batch_id}/cancel").status == 400


def test_what_is_unprocessed_after_a_day_expires(simulate: Any_, call: Any_, create: Any_, rows: Any_) -> None:
    """A batch that needs two days ends after one, half succeeded and half expired."""
    simulator = simulate(ends_after=2 * DAY)
    batch_id = create(simulator, 10)
    simulator.control.advance(DAY - 1)
    assert call(simulator, "GET", f"/v1/messages/batches/{batch_id}").json["processing_status"] == "in_progress"
    simulator.control.advance(1)
    ended = call(simulator, "GET", f"/v1/messages/batches/{batch_id}").json
    assert ended["ended_at"] == ended["expires_at"]
    assert Counter(row["result"]["type"] for row in rows(simulator, batch_id)) == {"succeeded": 5, "expired": 5}


def test_the_lifetime_can_be_scaled(simulate: Any_, call: Any_, create: Any_) -> None:
    """With a lifetime of a minute a slow batch expires after a minute."""
    simulator = simulate(ends_after=1e9, lifetime=60)
    batch_id = create(simulator, 4)
    simulator.control.advance(60)
    counts = call(simulator, "GET", f"/v1/messages/batches/{batch_id}").json["request_counts"]
    assert counts["expired"] == 4


def test_results_are_archived_29_days_after_creation(simulator: Simulator, call: Any_, create: Any_) -> None:
    """An archived batch says so, has no results URL, and its results are 404."""
    batch_id = create(simulator)
    simulator.control.advance(29 * DAY - 1)
    assert call(simulator, "GET", f"/v1/messages/batches/{batch_id}/results").status == 200
    simulator.control.advance(1)
    batch = call(simulator, "GET", f"/v1/messages/batches/{batch_id}").json
    assert (batch["archived_at"], batch["results_url"]) == ("2025-12-21T12:00:00.000000Z", None)
    assert call(simulator, "GET", f"/v1/messages/batches/{batch_id}/results").status == 404


def test_an_open_batch_cannot_be_deleted_and_an_ended_one_vanishes(
    simulator: Simulator, call: Any_, create: Any_
) -> None:
    """Delete is 400 in progress; after the end it answers with the id and the batch is 404 from then on."""
    batch_id = create(simulator)
    path = f"/v1/messages/batches/{batch_id}"
    assert call(simulator, "DELETE", path).status == 400
    simulator.control.advance(1)
    assert call(simulator, "DELETE", path).json == {"id": batch_id, "type": "message_batch_deleted"}
    assert call(simulator, "GET", path).status == 404
    assert call(simulator, "GET", f"{path}/results").status == 404
    assert call(simulator, "GET").json["data"] == []


def test_an_unknown_batch_is_not_found(simulator: Simulator, call: Any_) -> None:
    """An id that never was is 404 in every operation."""
    for method, verb in (("GET", ""), ("GET", "/results"), ("POST", "/cancel"), ("DELETE", "")):
        answer = call(simulator, method, f"/v1/messages/batches/msgbatch_01nobody{verb}")
        assert (answer.status, answer.json["error"]["type"]) == (404, "not_found_error")


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
def test_results_travel_whole_in_every_framing(simulate: Any_, call: Any_, create: Any_, framing: str) -> None:
    """Chunked, length-delimited and close-delimited streams carry the same lines, and are what they say."""
    simulator = simulate(framing=framing)
    batch_id = create(simulator, 500)
    simulator.control.advance(1)
    answer = call(simulator, "GET", f"/v1/messages/batches/{batch_id}/results")
    assert answer.raw.count(b"\n") == 500
    assert ("transfer-encoding" in answer.headers) == (framing == "chunked")
    assert ("content-length" in answer.headers) == (framing == "length")
    assert answer.headers["connection"] == ("close" if framing == "close" else "keep-alive")
