from collections.abc import Sequence

import pytest
from core_builders import NOON, build_prompt
from hypothesis import given
from hypothesis import strategies as st

from worker.core.grouping import (
    DEADLINE_LEAD,
    ENVELOPE_BYTES,
    TRIM,
    Limits,
    Part,
    Seal,
    Wait,
    Window,
    cut_in_two,
    decide,
    request_bytes,
)
from worker.core.intake import Flaw, Unusable
from worker.core.model import Trigger

LIMITS = Limits(max_count=100, max_bytes=100_000, max_age=300.0)
FIRST_MS = int(NOON * 1000)


def window_of(count: int, *, limits: Limits = LIMITS, deadlines: Sequence[float | None] = (), size: int = 20) -> Window:
    """Fill a window with prompts, a second apart, the first of which arrived at noon."""
    window = Window(after="0-0", limits=limits)
    for number in range(count):
        deadline = deadlines[number] if number < len(deadlines) else None
        window.add(build_prompt(f"{FIRST_MS + 1000 * number}-0", params=b"p" * size, deadline=deadline))
    return window


def trigger_of(decision: Seal | Wait) -> Trigger | None:
    """Return why a decision seals, None when it waits."""
    return decision.trigger if isinstance(decision, Seal) else None


@pytest.mark.parametrize(
    ("now", "trigger"),
    [(NOON, None), (NOON + 299.999, None), (NOON + 300.0, Trigger.AGE), (NOON + 300.001, Trigger.AGE)],
)
def test_the_age_of_the_oldest_prompt_seals(now: float, trigger: Trigger | None) -> None:
    """At max_age to the instant, counted from the oldest prompt and not from the last batch."""
    assert trigger_of(decide(window_of(5), now=now)) is trigger


def test_an_entry_from_the_future_ages_from_when_it_was_seen() -> None:
    """Its id is its producer's making, or a clock was put back; by its own id its lane would stand for years."""
    window = Window(after="0-0", limits=LIMITS)
    window.notice(NOON - 1000)
    window.add(build_prompt("9999999999999999-0"))
    window.notice(NOON)
    window.notice(NOON + 299)
    assert decide(window, now=NOON + 299) == Wait(NOON + 300)
    assert trigger_of(decide(window, now=NOON + 300)) is Trigger.AGE


def test_an_entry_that_waited_before_it_was_seen_is_as_old_as_it_is() -> None:
    """A daemon that starts late does not make prompts young again."""
    window = window_of(1)
    window.notice(NOON + 250)
    assert decide(window, now=NOON + 250) == Wait(NOON + 300)


def test_a_window_too_young_says_when_to_look_again() -> None:
    """The step says when next: when the oldest prompt will be max_age old."""
    assert decide(window_of(5), now=NOON + 10) == Wait(NOON + 300)


@pytest.mark.parametrize(("count", "trigger"), [(4, None), (5, Trigger.COUNT), (6, Trigger.COUNT)])
def test_count_seals_at_the_ceiling(count: int, trigger: Trigger | None) -> None:
    """The prompt that reaches max_count seals at once, without another one having to arrive."""
    decision = decide(window_of(count, limits=Limits(5, 100_000, 300.0)), now=NOON)
    assert trigger_of(decision) is trigger


def test_unusable_entries_count_towards_the_ceiling() -> None:
    """Otherwise a flood of broken prompts would make a batch of any length."""
    window = Window(after="0-0", limits=Limits(3, 100_000, 300.0))
    for number in range(3):
        window.add(Unusable(f"{FIRST_MS}-{number}", Flaw.NO_PARAMS, "broken"))
    assert trigger_of(decide(window, now=NOON)) is Trigger.COUNT


@pytest.mark.parametrize(("spare", "trigger"), [(0, None), (-1, Trigger.BYTES)])
def test_bytes_seal_when_the_next_prompt_does_not_fit(spare: int, trigger: Trigger | None) -> None:
    """A body of exactly max_bytes is allowed and waits for more; one byte beyond is the next batch."""
    three = window_of(3).cut
    assert three is not None
    decision = decide(window_of(3, limits=Limits(100, three.bytes + spare, 300.0)), now=NOON)
    assert trigger_of(decision) is trigger
    if isinstance(decision, Seal):
        assert decision.cut.count == 2


@pytest.mark.parametrize(
    ("now", "trigger"),
    [
        (NOON + 7200 - DEADLINE_LEAD - 0.001, None),
        (NOON + 7200 - DEADLINE_LEAD, Trigger.DEADLINE),
        (NOON + 9000, Trigger.DEADLINE),
    ],
)
def test_a_deadline_seals_an_hour_ahead(now: float, trigger: Trigger | None) -> None:
    """Most remote batches end within the hour, so that is how early it has to go; one already past goes at once."""
    window = window_of(3, limits=Limits(100, 100_000, 86_400.0), deadlines=[None, NOON + 7200, NOON + 8000])
    assert trigger_of(decide(window, now=now)) is trigger


def test_a_deadline_brings_the_next_look_forward() -> None:
    """Whichever comes first, age or deadline, is when to look again."""
    limits = Limits(100, 100_000, 7200.0)
    soon = window_of(1, limits=limits, deadlines=[NOON + DEADLINE_LEAD + 60])
    late = window_of(1, limits=limits, deadlines=[NOON + DEADLINE_LEAD + 9000])
    assert decide(soon, now=NOON) == Wait(NOON + 60)
    assert decide(late, now=NOON) == Wait(NOON + 7200)


def test_an_operator_flushes_what_is_there() -> None:
    """A flush needs no limit and no age."""
    window = window_of(2)
    assert decide(window, now=NOON, flush=True) == Seal(window.cuts[-1], Trigger.FLUSH)


def test_the_reason_named_first_is_the_limit_that_was_reached() -> None:
    """A full window that is flushed, late and old was sealed for being full."""
    window = window_of(5, limits=Limits(5, 100_000, 1.0), deadlines=[NOON])
    assert trigger_of(decide(window, now=NOON + 10, flush=True)) is Trigger.COUNT


def test_a_window_grows_while_too_many_batches_are_not_posted() -> None:
    """Back-pressure: whatever is due waits until one of them is, which is when somebody looks again."""
    assert decide(window_of(5, limits=Limits(5, 100_000, 1.0)), now=NOON + 10, flush=True, room=False) == Wait(None)


def test_without_room_a_young_window_still_says_when_it_is_due() -> None:
    """There may be room again by then."""
    assert decide(window_of(2), now=NOON, room=False) == Wait(NOON + 300)


def test_a_taken_count_is_avoided_by_leaving_prompts_behind() -> None:
    """The count is the fingerprint of a batch in doubt, so two batches not yet posted should not share it."""
    decision = decide(window_of(10), now=NOON, flush=True, taken={10, 9, 7})
    assert isinstance(decision, Seal)
    assert (decision.cut.count, decision.cut.entries) == (8, 8)


def test_as_few_prompts_as_possible_are_left_behind() -> None:
    """A count that nobody has taken is not trimmed."""
    decision = decide(window_of(10), now=NOON, flush=True, taken={9, 11})
    assert isinstance(decision, Seal)
    assert decision.cut.count == 10


def test_trimming_steps_over_unusable_entries() -> None:
    """An unusable entry changes the length of the range, not the count that identifies the batch."""
    window = window_of(3)
    window.add(Unusable(f"{FIRST_MS + 9000}-0", Flaw.NO_PARAMS, "broken"))
    decision = decide(window, now=NOON, flush=True, taken={3})
    assert isinstance(decision, Seal)
    assert (decision.cut.count, decision.cut.entries) == (2, 2)


@pytest.mark.parametrize("count", [1, TRIM + 1, TRIM + 2])
def test_a_count_that_cannot_be_unique_is_shared(count: int) -> None:
    """A lone prompt must not wait for a stranger's doubt, nor may a long row of taken counts block the lane."""
    decision = decide(window_of(count), now=NOON, flush=True, taken=set(range(1, count + 1)))
    assert isinstance(decision, Seal)
    assert decision.cut.count == count


def test_a_trim_leaves_a_body_to_send() -> None:
    """A range of unusable entries alone would have a unique count, of nothing."""
    window = Window(after="0-0", limits=LIMITS)
    window.add(Unusable(f"{FIRST_MS}-0", Flaw.NO_PARAMS, "broken"))
    window.add(build_prompt(f"{FIRST_MS}-1"))
    decision = decide(window, now=NOON, flush=True, taken={1})
    assert isinstance(decision, Seal)
    assert (decision.cut.count, decision.cut.entries) == (1, 2)


def test_a_trim_takes_no_unusable_entry_that_it_left_behind() -> None:
    """The note of unusable entries is that of the cut, or the seal would not match it."""
    window = window_of(2)
    window.add(Unusable(f"{FIRST_MS + 9000}-0", Flaw.NO_PARAMS, "broken"))
    window.add(build_prompt(f"{FIRST_MS + 9000}-10"))
    decision = decide(window, now=NOON, flush=True, taken={3})
    assert isinstance(decision, Seal)
    assert decision.cut.entries == 3
    assert window.unusable_within(decision.cut) == {f"{FIRST_MS + 9000}-0": Flaw.NO_PARAMS}
    assert window.unusable_within(window.cuts[1]) == {}


parts = st.lists(st.one_of(st.none(), st.integers(80, 200)), min_size=2, max_size=30).filter(
    lambda sizes: sum(size is not None for size in sizes) >= 2
)


@given(parts, st.data())
def test_a_batch_cut_in_two_loses_nothing(sizes: list[int | None], data: st.DataObject) -> None:
    """Head and tail follow each other, and between them have every entry, every prompt and every byte."""
    requests = [(f"{FIRST_MS}-{number}", size) for number, size in enumerate(sizes)]
    usable = [size for size in sizes if size is not None]
    head_count = data.draw(st.integers(1, len(usable) - 1))
    head, tail = cut_in_two(requests, head_count)
    assert head.count == head_count
    assert head.count + tail.count == len(usable)
    assert (head.first, tail.last) == (requests[0][0], requests[-1][0])
    assert head.last == requests[head.entries - 1][0]
    assert tail.first == requests[head.entries][0]
    assert head.entries + tail.entries == len(requests)
    commas = head.count - 1 + tail.count - 1
    assert head.bytes + tail.bytes == 2 * ENVELOPE_BYTES + commas + sum(usable)


def test_unusable_entries_behind_the_cut_go_with_the_tail() -> None:
    """They are buried with whichever part ends at them or later."""
    size = request_bytes("1-0", b"{}")
    head, tail = cut_in_two([("1-0", size), ("1-1", None), ("1-2", size)], 1)
    assert head == Part("1-0", "1-0", 1, 1, ENVELOPE_BYTES + size)
    assert tail == Part("1-1", "1-2", 2, 1, ENVELOPE_BYTES + size)


@pytest.mark.parametrize("head_count", [0, 2, 3])
def test_neither_part_may_be_empty(head_count: int) -> None:
    """A batch without a prompt has nothing to submit: such a cut would end no trouble."""
    with pytest.raises(ValueError, match="cannot be cut"):
        cut_in_two([("1-0", 90), ("1-1", 90), ("1-2", None)], head_count)
