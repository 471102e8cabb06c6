from collections.abc import Callable, Iterator
from typing import Any

import pytest
from anthropic import (
    Anthropic,
    APIConnectionError,
    AuthenticationError,
    BadRequestError,
    ContentTooLargeError,
    InternalServerError,
    NotFoundError,
    RateLimitError,
)
from anthropic.types.messages.batch_create_params import Request

from worker.simulator import Simulator

Any_ = Callable[..., Any]
PARAMS: Any = {
    "model": "claude-haiku-4-5",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Hello"}],
}


@pytest.fixture
def client(simulator: Simulator) -> Iterator[Anthropic]:
    """The official SDK, pointed at a simulator."""
    with Anthropic(api_key="sk-ant-canary", base_url=simulator.url, max_retries=0) as client:
        yield client


def _requests(count: int) -> list[Request]:
    return [Request(custom_id=f"ns_uid_aa_{number}", params=PARAMS) for number in range(count)]


def test_the_sdk_creates_retrieves_and_reads_results(simulator: Simulator, client: Anthropic) -> None:
    """The whole round through the official client, with its own models."""
    created = client.messages.batches.create(requests=_requests(30))
    assert created.processing_status == "in_progress"
    assert created.request_counts.processing == 30
    assert (created.expires_at - created.created_at).total_seconds() == 86_400
    simulator.control.advance(1)
    ended = client.messages.batches.retrieve(created.id)
    assert ended.ended_at is not None
    assert ended.request_counts.succeeded == 30
    results = list(client.messages.batches.results(created.id))
    assert {result.custom_id for result in results} == {f"ns_uid_aa_{number}" for number in range(30)}
    assert results[0].result.type == "succeeded"
    message = results[0].result.message
    assert message.usage.service_tier == "batch"
    assert message.content[0].type == "text"


def test_the_sdk_walks_the_list(simulator: Simulator, client: Anthropic) -> None:
    """Its automatic paging visits every batch once, in both directions."""
    made = [simulator.control.foreign(1)["id"] for _ in range(45)]
    assert [batch.id for batch in client.messages.batches.list(limit=10)] == made[::-1]
    newer = {batch.id for batch in client.messages.batches.list(limit=10, before_id=str(made[4]))}
    assert newer == set(made[5:])


def test_the_sdk_cancels_and_deletes(simulator: Simulator, client: Anthropic) -> None:
    """Cancel gives the batch, delete its tombstone; canceled rows come as such."""
    batch_id = client.messages.batches.create(requests=_requests(3)).id
    assert client.messages.batches.cancel(batch_id).processing_status == "canceling"
    simulator.control.advance(1)
    assert {row.result.type for row in client.messages.batches.results(batch_id)} == {"canceled"}
    assert client.messages.batches.delete(batch_id).type == "message_batch_deleted"
    with pytest.raises(NotFoundError):
        client.messages.batches.retrieve(batch_id)


@pytest.mark.parametrize(
    ("fault", "error", "code"),
    [
        ({"status": 400, "message": "no"}, BadRequestError, None),
        ({"status": 429, "error_code": "enforced_spend_limit_reached"}, RateLimitError, "enforced_spend_limit_reached"),
        ({"status": 529}, InternalServerError, None),
    ],
)
def test_scripted_statuses_are_the_sdks_own_errors(
    simulator: Simulator, client: Anthropic, fault: dict[str, Any], error: type[Exception], code: str | None
) -> None:
    """Status, type and error_code arrive in the SDK's exception classes."""
    simulator.control.inject({"on": "create", "kind": "status", **fault})
    with pytest.raises(error) as caught:
        client.messages.batches.create(requests=_requests(1))
    assert caught.value.error_code == code  # type: ignore[attr-defined]  # every status error has it
    assert caught.value.request_id.startswith("req_01")  # type: ignore[attr-defined]  # the same


def test_a_revoked_key_is_an_authentication_error(simulator: Simulator, client: Anthropic) -> None:
    """The SDK sees 401 as its AuthenticationError, with the API's message."""
    simulator.control.inject({"kind": "revoke_key"})
    with pytest.raises(AuthenticationError, match="Invalid bearer token"):
        client.messages.batches.list()


def test_a_body_too_large_reaches_the_sdk_as_413(simulate: Any_) -> None:
    """The gateway's refusal is read even though the body was not."""
    simulator = simulate(max_body_bytes=100_000)
    with (
        Anthropic(api_key="sk-ant-canary", base_url=simulator.url, max_retries=0) as client,
        pytest.raises(ContentTooLargeError),
    ):
        client.messages.batches.create(requests=_requests(10_000))


def test_the_sdks_own_retries_pay_twice(simulate: Any_) -> None:
    """The reason for all this: one lost answer and a default client make two batches of the same prompts."""
    simulator = simulate()
    simulator.control.inject({"on": "create", "kind": "drop_reply"})
    with Anthropic(api_key="sk-ant-canary", base_url=simulator.url) as client:
        client.messages.batches.create(requests=_requests(5))
    simulator.control.advance(1)
    assert simulator.control.ledger()["prompts_billed_twice"] == 5


def test_a_lost_answer_is_a_connection_error(simulator: Simulator, client: Anthropic) -> None:
    """Without retries the SDK reports the reset, and the batch exists."""
    simulator.control.inject({"on": "create", "kind": "drop_reply"})
    with pytest.raises(APIConnectionError):
        client.messages.batches.create(requests=_requests(5))
    assert simulator.control.ledger()["prompts_committed"] == 5


def test_a_clean_cut_fools_the_sdk(simulator: Simulator, client: Anthropic) -> None:
    """The SDK takes half of the rows for all of them: counts must be compared by the caller."""
    batch_id = client.messages.batches.create(requests=_requests(10)).id
    simulator.control.advance(1)
    simulator.control.inject({"kind": "cut_results", "mode": "clean"})
    assert len(list(client.messages.batches.results(batch_id))) == 5
