import pytest

from worker.core.errors import (
    Doubt,
    Fate,
    Reason,
    Refusal,
    Verdict,
    is_definite,
    judge_doubt,
    judge_refusal,
    judge_row,
)

CREDIT = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing."
USAGE = "You have reached your specified API usage limits. You will regain access on 2026-12-01."


@pytest.mark.parametrize("error_type", ["rate_limit_error", "timeout_error", "api_error", "overloaded_error"])
def test_a_passing_trouble_of_the_api_is_retried(error_type: str) -> None:
    """Rows that failed through no fault of the prompt come again in a later batch."""
    assert judge_row("errored", error_type, "later") is Fate.RETRY


@pytest.mark.parametrize(
    "error_type", ["invalid_request_error", "not_found_error", "permission_error", "authentication_error"]
)
def test_a_final_error_buries_the_prompt(error_type: str) -> None:
    """Sending the same prompt again would fail again."""
    assert judge_row("errored", error_type, "messages.0.role: Unexpected role") is Fate.BURY


@pytest.mark.parametrize(
    ("error_type", "message"),
    [
        ("billing_error", None),
        ("invalid_request_error", CREDIT),
        ("invalid_request_error", USAGE),
        ("invalid_request_error", "You have reached your specified workspace API usage limits."),
    ],
)
def test_money_trouble_parks_and_never_buries(error_type: str, message: str | None) -> None:
    """A thousand rows refused for an empty account are fine again after a top-up."""
    assert judge_row("errored", error_type, message) is Fate.PARK


def test_money_words_in_another_kind_of_error_mean_nothing() -> None:
    """Only an invalid_request_error speaks of the account in prose; elsewhere the type decides."""
    assert judge_row("errored", "not_found_error", "model: credit balance") is Fate.BURY


def test_expired_comes_again_and_canceled_is_a_decision_of_its_own() -> None:
    """An expired prompt is retried; what to do with a canceled one is the operator's policy."""
    assert judge_row("expired", None, None) is Fate.RETRY
    assert judge_row("canceled", None, None) is Fate.CANCELED


@pytest.mark.parametrize(
    ("result_type", "error_type"), [("errored", "brand_new_error"), ("errored", None), ("evaporated", None)]
)
def test_a_word_we_do_not_know_is_said_so(result_type: str, error_type: str | None) -> None:
    """New types of errors and of results are neither retried for ever nor buried unseen."""
    assert judge_row(result_type, error_type, None) is Fate.UNKNOWN


def test_success_is_not_judged() -> None:
    """Asking for the fate of a success is a mistake of the caller."""
    with pytest.raises(ValueError, match="no fate"):
        judge_row("succeeded", None, None)


@pytest.mark.parametrize(
    ("status", "error_code", "refusal", "reason"),
    [
        (401, None, Refusal.PARK, Reason.KEY),
        (402, None, Refusal.PARK, Reason.BILLING),
        (402, "linked_organization_spend_limit_reached", Refusal.PARK, Reason.SPEND_LIMIT),
        (403, None, Refusal.PARK, Reason.KEY),
        (404, None, Refusal.PARK, Reason.ENDPOINT),
        (400, "organization_on_hold", Refusal.PARK, Reason.ON_HOLD),
        (400, "organization_not_enrolled_in_beta", Refusal.PARK, Reason.POLICY),
        (400, "cmek_key_disabled", Refusal.PARK, Reason.CMEK),
        (400, "workspace_policy_violation", Refusal.PARK, Reason.POLICY),
        (400, "request_body_encoding_unsupported", Refusal.PARK, Reason.ENCODING),
        (400, "request_body_timeout", Refusal.WAIT, Reason.BODY_TIMEOUT),
        (429, None, Refusal.WAIT, Reason.RATE_LIMIT),
        (429, "some_new_code", Refusal.WAIT, Reason.RATE_LIMIT),
        (429, "ramp_limit_exceeded", Refusal.WAIT, Reason.RAMP_LIMIT),
        (429, "enforced_spend_limit_reached", Refusal.PARK, Reason.SPEND_LIMIT),
        (429, "contract_spend_limit_reached", Refusal.PARK, Reason.SPEND_LIMIT),
        (413, None, Refusal.SPLIT, Reason.TOO_LARGE),
        (413, "request_body_too_large_after_decoding", Refusal.SPLIT, Reason.TOO_LARGE),
        (400, "request_body_too_large", Refusal.SPLIT, Reason.TOO_LARGE),
        (400, None, Refusal.BISECT, Reason.INVALID),
        (400, "image_dimensions_too_large", Refusal.BISECT, Reason.INVALID),
        (422, None, Refusal.BISECT, Reason.INVALID),
        (418, None, Refusal.PARK, Reason.UNEXPECTED),
        (431, None, Refusal.PARK, Reason.UNEXPECTED),
    ],
)
def test_a_refusal_is_judged_by_status_and_code(
    status: int, error_code: str | None, refusal: Refusal, reason: Reason
) -> None:
    """Status and error_code are stable; the message may say anything."""
    assert judge_refusal(status, "invalid_request_error", error_code, "whatever") == Verdict(refusal, reason)


@pytest.mark.parametrize("message", [CREDIT, USAGE])
def test_a_400_about_money_parks_and_never_bisects(message: str) -> None:
    """Bisecting on a spend limit would bury every prompt, one half after the other."""
    verdict = judge_refusal(400, "invalid_request_error", None, message)
    assert verdict == Verdict(Refusal.PARK, Reason.SPEND_LIMIT)


def test_a_billing_error_parks_whatever_it_says() -> None:
    """The type alone is enough where there is no code."""
    assert judge_refusal(400, "billing_error", None, None) == Verdict(Refusal.PARK, Reason.BILLING)


@pytest.mark.parametrize(
    ("message", "index"),
    [
        ("requests.0.custom_id: String should match pattern", 0),
        ("requests.17: Extra inputs are not permitted", 17),
        ("`requests.99999.params`: missing", 99999),
    ],
)
def test_a_400_that_names_a_request_ejects_exactly_that_one(message: str, index: int) -> None:
    """The rest of the batch is innocent."""
    verdict = judge_refusal(400, "invalid_request_error", None, message)
    assert verdict == Verdict(Refusal.EJECT, Reason.NAMED_REQUEST, index)


@pytest.mark.parametrize(
    "message",
    [
        "requests: custom_id's must be unique within a batch",
        "could not parse 'please look at requests.3.custom_id'",
        "requests.1234567.params: too many",
    ],
)
def test_an_index_that_the_message_only_quotes_ejects_nobody(message: str) -> None:
    """A prompt that talks of requests.3 must not get its neighbour buried."""
    assert judge_refusal(400, "invalid_request_error", None, message).refusal is Refusal.BISECT


def test_an_account_code_outweighs_a_named_request() -> None:
    """When the organisation is on hold no prompt is to blame."""
    verdict = judge_refusal(400, "invalid_request_error", "organization_on_hold", "requests.3.params: no")
    assert verdict.refusal is Refusal.PARK


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 422, 429, 431])
def test_most_refusals_are_definite(status: int) -> None:
    """These answers prove that nothing was created."""
    assert is_definite(status)


@pytest.mark.parametrize("status", [None, 200, 307, 408, 409, 499, 500, 502, 503, 504, 529])
def test_everything_else_proves_nothing(status: int | None) -> None:
    """A timeout, a conflict or a server error may hide a created batch."""
    assert not is_definite(status)


@pytest.mark.parametrize(
    ("status", "well_formed", "doubt"),
    [
        (529, True, Doubt.OVERLOADED),
        (503, True, Doubt.OVERLOADED),
        (529, False, Doubt.LOST),
        (503, False, Doubt.LOST),
        (500, True, Doubt.LOST),
        (502, True, Doubt.LOST),
        (408, True, Doubt.LOST),
        (200, False, Doubt.LOST),
        (None, False, Doubt.LOST),
    ],
)
def test_only_the_apis_own_overload_answer_shortens_the_doubt(
    status: int | None, *, well_formed: bool, doubt: Doubt
) -> None:
    """A 503 of some proxy in between says nothing about what the API did."""
    assert judge_doubt(status, well_formed=well_formed) is doubt
