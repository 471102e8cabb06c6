from collections import Counter

import pytest
from core_builders import DEPLOYMENT, UID, build_batch
from hypothesis import given
from hypothesis import strategies as st

from worker.core.account import Account, Whose
from worker.core.custom_id import prefix
from worker.core.entry_ids import entry_id_of, order
from worker.core.intake import Flaw
from worker.core.model import ResultType
from worker.core.rulings import SETTLED, Ruling

MS = 1_795_348_800_000
OURS = prefix(DEPLOYMENT, UID, 1)
RETRY = Ruling("retry", "expired", 2)


def open_account(unusable: dict[str, Flaw] | None = None, count: int = 3) -> Account:
    """Open the account of a batch that ranges over the entries 10 to 12 of one millisecond."""
    flaws = unusable or {}
    batch = build_batch(first=f"{MS}-10", last=f"{MS}-12", entries=count + len(flaws), count=count)
    return Account(batch=batch, deployment=DEPLOYMENT, unusable=flaws)


def check_off(account: Account, *sequences: int) -> None:
    """Enter successes for these entries."""
    for sequence in sequences:
        whose, entry_id = account.identify(f"{OURS}{MS}-{sequence}")
        assert whose is Whose.OURS
        account.enter(entry_id, SETTLED, ResultType.SUCCEEDED)


def test_every_prompt_once_makes_the_account_complete() -> None:
    """In whatever order the lines come."""
    account = open_account()
    completed = []
    for sequence in (12, 10, 11):
        check_off(account, sequence)
        completed.append(account.complete)
    assert completed == [False, False, True]
    assert account.results == Counter({ResultType.SUCCEEDED: 3})
    assert (account.foreign, account.doubled, account.all_foreign) == (0, 0, False)


@pytest.mark.parametrize(
    "custom_id",
    [
        "request-1",
        f"{OURS}{MS}-9",
        f"{OURS}{MS}-13",
        f"{OURS}{MS - 1}-11",
        f"{OURS}{MS + 1}-11",
        prefix("zzzzzz", UID, 1) + f"{MS}-11",
        prefix(DEPLOYMENT, UID[:-1] + "a", 1) + f"{MS}-11",
    ],
)
def test_a_line_that_is_not_of_this_range_is_foreign(custom_id: str) -> None:
    """Another deployment's, another batch's, nobody's, or an entry that was never in the body."""
    account = open_account()
    assert account.identify(custom_id) == (Whose.FOREIGN, "")
    assert (account.foreign, account.rulings) == (1, {})


def test_a_line_for_an_entry_that_was_not_sent_is_foreign() -> None:
    """An unusable entry has no place in a body, so no result can be its."""
    account = open_account({f"{MS}-11": Flaw.NOT_JSON}, count=2)
    assert account.identify(f"{OURS}{MS}-11") == (Whose.FOREIGN, "")
    check_off(account, 10, 12)
    assert account.complete


def test_a_double_line_does_not_make_up_for_a_missing_one() -> None:
    """Three lines for two prompts are still one short."""
    account = open_account()
    check_off(account, 10, 11)
    assert account.identify(f"{OURS}{MS}-11") == (Whose.DOUBLE, f"{MS}-11")
    assert not account.complete
    assert account.doubled == 1
    assert account.results == Counter({ResultType.SUCCEEDED: 2})


def test_the_first_of_two_lines_wins() -> None:
    """What was ruled stays ruled."""
    account = open_account()
    _, entry_id = account.identify(f"{OURS}{MS}-10")
    account.enter(entry_id, RETRY, ResultType.EXPIRED)
    account.identify(f"{OURS}{MS}-10")
    assert dict(account.in_order()) == {f"{MS}-10": RETRY}


def test_some_foreign_lines_are_no_foreign_batch() -> None:
    """One line of ours proves that the batch is."""
    account = open_account()
    for number in range(account.batch.count):
        account.identify(f"request-{number}")
    check_off(account, 10)
    assert not account.all_foreign


def test_a_whole_batch_of_foreign_lines_is_a_foreign_batch() -> None:
    """A stream of them that was cut short proves nothing: our own lines may have been behind the cut."""
    account = open_account()
    proofs = []
    for number in range(account.batch.count):
        account.identify(f"request-{number}")
        proofs.append(account.all_foreign)
    assert proofs == [False, False, True]


def test_no_lines_at_all_are_nobodys() -> None:
    """An empty download is a download to repeat, not a wrong adoption."""
    account = open_account()
    assert not account.all_foreign
    assert not account.complete


def test_a_line_of_an_earlier_attempt_is_ours() -> None:
    """The prompts are the same, whichever of our own submissions answers for them."""
    account = open_account()
    assert account.identify(prefix(DEPLOYMENT, UID, 2) + f"{MS}-10") == (Whose.OURS, f"{MS}-10")


def test_an_entry_that_never_was_is_taken_back() -> None:
    """Its line lay within the range and named no entry of the lane: it is foreign, and makes nothing complete."""
    account = open_account()
    check_off(account, 10, 11)
    whose, entry_id = account.identify(f"{OURS}{MS}-12")
    assert (whose, account.complete) == (Whose.OURS, True)
    account.disclaim(entry_id)
    assert (account.complete, account.foreign) == (False, 1)
    assert [entry for entry, _ in account.in_order()] == [f"{MS}-10", f"{MS}-11"]


def test_a_retried_prompt_has_no_result_yet() -> None:
    """It will be counted when it has one; a buried one has."""
    account = open_account()
    for sequence, ruling in ((10, RETRY), (11, Ruling("bury", "not_found_error", 1)), (12, SETTLED)):
        _, entry_id = account.identify(f"{OURS}{MS}-{sequence}")
        account.enter(entry_id, ruling, ResultType.ERRORED if ruling is not SETTLED else ResultType.SUCCEEDED)
    assert account.results == Counter({ResultType.ERRORED: 1, ResultType.SUCCEEDED: 1})
    assert account.reasons("retry") == Counter({"expired": 1})
    assert account.reasons("bury") == Counter({"not_found_error": 1})
    assert not account.parks


def test_one_line_about_the_account_parks() -> None:
    """The others may be fine: the trouble began while they ran."""
    account = open_account()
    check_off(account, 10)
    _, entry_id = account.identify(f"{OURS}{MS}-11")
    account.enter(entry_id, Ruling("retry", "account", 1, parks=True), ResultType.ERRORED)
    assert account.parks


halves = st.integers(0, 2**64 - 1)


@given(halves, halves)
def test_an_order_can_be_undone(milliseconds: int, sequence: int) -> None:
    """The account keeps numbers, since 100,000 strings would take ten times the room."""
    entry_id = f"{milliseconds}-{sequence}"
    assert entry_id_of(order(entry_id)) == entry_id


@given(halves, halves, halves, halves)
def test_order_is_that_of_redis(ms: int, sequence: int, other_ms: int, other_sequence: int) -> None:
    """Milliseconds first, then the sequence, both as numbers: 9-0 comes before 10-0."""
    assert (order(f"{ms}-{sequence}") < order(f"{other_ms}-{other_sequence}")) is (
        (ms, sequence) < (other_ms, other_sequence)
    )


@given(st.permutations(range(20)))
def test_prompts_are_settled_in_the_order_of_the_stream(arrival: list[int]) -> None:
    """Ascending, whatever order the lines came in: that frees Redis' memory soonest."""
    batch = build_batch(first="5-0", last="24-0", entries=20, count=20)
    account = Account(batch=batch, deployment=DEPLOYMENT, unusable={})
    for number in arrival:
        account.identify(f"{OURS}{number + 5}-0")
    assert [entry_id for entry_id, _ in account.in_order()] == [f"{number}-0" for number in range(5, 25)]
