"""Edges of the core on which no other test stands: each was found by a mutant that lived (docs/mutation.md)."""

import time
from collections.abc import Iterator
from datetime import UTC, date, datetime

import pytest
from core_builders import DEPLOYMENT, NOON, UID, build_batch, build_prompt, build_remote

from worker.core.account import Account, Whose
from worker.core.cost import Usage, parse_prices
from worker.core.custom_id import prefix, spell_uid
from worker.core.intake import MAX_DEPTH, Flaw, check_params
from worker.core.model import RequestCounts
from worker.core.names import is_lane_name
from worker.core.reconcile import Hold, conclude
from worker.core.rulings import Ruling, read_result, rule
from worker.core.schedule import backoff, poll_delay, refusal_delay

ROOM = 1_000_000
RATES = {"input": "1", "output": "2", "cache_read": "0.1", "cache_write_5m": "1.25", "cache_write_1h": "2"}


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process live elsewhere for a while."""
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("depth", [MAX_DEPTH, MAX_DEPTH + 1])
def test_brackets_that_were_closed_do_not_hide_those_that_stay_open(depth: int) -> None:
    """Depth is counted down one by one, not begun anew."""
    nested = b"[" * 100 + b"[]," + b"[" * (depth - 101) + b"]" * (depth - 101) + b"]" * 100
    params = b'{"model":"m","max_tokens":1,"messages":%b}' % nested
    assert check_params(params, ROOM) is (Flaw.TOO_DEEP if depth > MAX_DEPTH else None)


def test_many_shallow_neighbours_are_not_deep() -> None:
    """However many brackets there are."""
    messages = b",".join([b"[[]]"] * MAX_DEPTH)
    assert check_params(b'{"model":"m","max_tokens":1,"messages":[%b]}' % messages, ROOM) is None


@pytest.mark.parametrize("neighbour", [b"[]", b"[1]", b"{}"])
def test_a_vast_number_is_found_beside_a_list(neighbour: bytes) -> None:
    """What was found first still waits while a list is looked into."""
    vast = b"9" * 400
    params = b'{"model":"m","max_tokens":1,"messages":[],"vast":%b,"beside":%b}' % (vast, neighbour)
    assert check_params(params, ROOM) is Flaw.NOT_JSON


def test_foreign_and_double_lines_are_counted() -> None:
    """Each of them, since their number is what tells a wrong adoption."""
    batch = build_batch(first="10-0", last="10-2")
    account = Account(batch=batch, deployment=DEPLOYMENT, unusable={})
    ours = prefix(DEPLOYMENT, UID, 1)
    whose = [account.identify(name)[0] for name in (f"{ours}10-0", f"{ours}10-0", f"{ours}10-0")]
    whose += [account.identify(f"{ours}99-{number}")[0] for number in range(3)]
    assert whose == [Whose.OURS, Whose.DOUBLE, Whose.DOUBLE, *[Whose.FOREIGN] * 3]
    assert (account.foreign, account.doubled) == (3, 2)


def test_lines_without_an_entry_are_disclaimed() -> None:
    """They are foreign, and a batch that has nothing else is foreign altogether."""
    account = Account(batch=build_batch(first="10-0", last="10-2"), deployment=DEPLOYMENT, unusable={})
    for number in range(3):
        _, entry_id = account.identify(f"{prefix(DEPLOYMENT, UID, 1)}10-{number}")
        account.disclaim(entry_id)
    assert (account.foreign, account.complete, account.all_foreign) == (3, False, True)


def test_holding_gives_the_reason_to_the_human() -> None:
    """It is all that `batchmill batches show` has to say."""
    archived = build_remote(status="ended", counts=RequestCounts(succeeded=3), archived_at=NOON)
    conclusion = conclude(
        build_batch(doubt_at=NOON), [archived], owned=set(), began_at=NOON, horizon=60.0, exclusive=False
    )
    assert conclusion == Hold("the results of a remote batch that may be ours are archived")


@pytest.mark.parametrize("asked", [0.5, 1.0])
def test_the_api_may_ask_for_less_than_a_second(asked: float) -> None:
    """Any time above nothing is a time."""
    assert poll_delay(age=600.0, interval=60.0, retry_after=asked, jitter=0.0) == asked
    assert refusal_delay(retry_after=asked, failures=9, first=4.0, most=60.0, jitter=0.0) == asked
    assert asked < backoff(failures=9, first=4.0, most=60.0, jitter=0.0)


def test_a_lane_is_spelled_the_same_for_ever() -> None:
    """Batches of an earlier release carry it in their custom_ids; spelled otherwise, recovery would not know them."""
    assert spell_uid("default", bytes(range(10))) == "jacoaduaeyaehdtz"


@pytest.mark.parametrize(
    "answer", [b'{"type":"sonderbar"}', b'{"type":"errored","error":{"error":{"type":"invalid_request_error"}}}']
)
def test_who_is_buried_keeps_the_count_of_attempts(answer: bytes) -> None:
    """The dead letter says how often it was tried."""
    batch = build_batch(max_attempts=3, judged_at=NOON)
    ruling = rule(read_result(answer), build_prompt(attempt=3), batch)
    assert (ruling.fate, ruling.attempt) == ("bury", 3)


def test_an_error_whose_message_is_no_text_is_judged_by_its_type() -> None:
    """As if it had no message at all."""
    answers = [b"", b',"message":5', b',"message":["credit balance"]']
    raws = [b'{"type":"errored","error":{"error":{"type":"invalid_request_error"%b}}}' % message for message in answers]
    rulings = {rule(read_result(raw), build_prompt(), build_batch(max_attempts=3)) for raw in raws}
    assert rulings == {Ruling("bury", "invalid_request_error", 1)}


@pytest.mark.parametrize(
    ("name", "good"),
    [("a", True), ("0", True), ("a.b_c-d", True), ("a" * 63, True), ("a" * 64, False), ("", False), (".a", False)],
)
def test_lane_names_are_short_and_plain(name: str, good: bool) -> None:
    """They stand in keys, paths and labels."""
    assert is_lane_name(name) is good
    assert not is_lane_name(f"{name}\n")


def test_a_price_for_a_dated_name_is_for_that_name() -> None:
    """The name without its date is only asked for where the table has no better."""
    table = parse_prices(
        {"price": [{"models": ["toy-1-20260101"], **RATES}, {"models": ["toy-1"], **RATES, "input": "7"}]}
    )
    prompt = Usage(input=1_000_000)
    assert table.cost("claude-toy-1-20260101", prompt, NOON) == 500_000
    assert table.cost("claude-toy-1-20260202", prompt, NOON) == 3_500_000


def test_the_shortest_tier_that_fits_decides_in_whatever_order_they_stand() -> None:
    """A file written by hand has any order."""
    tiers = [
        {"models": ["toy-1"], **RATES, "input": str(most // 10), "max_prompt_tokens": most} for most in (90, 30, 60)
    ]
    table = parse_prices({"price": tiers})
    costs = [table.cost("toy-1", Usage(input=length), NOON) for length in (30, 31, 61, 91)]
    assert costs == [45, 93, 275, None]  # half of tokens times rate, rounded half up


def test_a_tier_may_end_at_one_token() -> None:
    """One is positive."""
    assert parse_prices({"price": [{"models": ["toy-1"], **RATES, "max_prompt_tokens": 1}]})


@pytest.mark.parametrize("rate", ["0", "0.000001", "1000000"])
def test_a_rate_may_be_nothing_and_a_million(rate: str) -> None:
    """Both ends are amounts, and so is the smallest step."""
    table = parse_prices({"price": [{"models": ["toy-1"], **RATES, "input": rate}]})
    assert table.cost("toy-1", Usage(input=2_000_000), NOON) == round(float(rate) * 1_000_000)


@pytest.mark.parametrize("models", [[3], [""], ["toy-1", None]])
def test_a_model_without_a_name_is_refused(models: list[object]) -> None:
    """As a mistake in the file, not as a crash."""
    with pytest.raises(ValueError, match="entry 1: models must be a list of names"):
        parse_prices({"price": [{"models": models, **RATES}]})


def test_a_date_that_is_none_is_refused_by_the_name_of_its_entry() -> None:
    """The second of fifty entries is hard to find otherwise."""
    with pytest.raises(ValueError, match=r"entry 1 \(toy-1, toy-2\): from must be a date"):
        parse_prices({"price": [{"models": ["toy-1", "toy-2"], **RATES, "from": "soon"}]})


@pytest.mark.usefixtures("far_from_greenwich")
def test_prices_begin_at_midnight_in_greenwich() -> None:
    """Wherever the machine is."""
    table = parse_prices({"price": [{"models": ["toy-1"], **RATES, "from": date(2026, 3, 1)}]})
    midnight = datetime(2026, 3, 1, tzinfo=UTC).timestamp()
    assert table.cost("toy-1", Usage(input=2), midnight - 1) is None
    assert table.cost("toy-1", Usage(input=2), midnight) == 1
