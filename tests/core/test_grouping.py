from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from core_builders import DEPLOYMENT, UID, build_prompt
from hypothesis import given
from hypothesis import strategies as st

from worker.core.body import write_body
from worker.core.custom_id import prefix
from worker.core.grouping import TRIM, Cut, Limits, Seal, Wait, Window, decide
from worker.core.intake import Flaw, Unusable
from worker.core.model import Prompt

Entry = Prompt | Unusable
ROOMY = Limits(max_count=1000, max_bytes=1_000_000, max_age=300.0)


def prompt(number: int, *, size: int = 2, deadline: float | None = None) -> Prompt:
    """Build the lane's n-th prompt; its params are `size` bytes."""
    return build_prompt(f"1795348800000-{number}", params=b"p" * size, deadline=deadline)


def unusable(number: int) -> Unusable:
    """Build the lane's n-th entry as one that cannot be used."""
    return Unusable(f"1795348800000-{number}", Flaw.NOT_JSON, "broken")


def window_of(entries: Sequence[Entry], limits: Limits = ROOMY, after: str = "0-0") -> Window:
    """Feed entries to a window until it refuses one."""
    window = Window(after=after, limits=limits)
    for entry in entries:
        if not window.add(entry):
            break
    return window


@dataclass(frozen=True)
class Sealed:
    """What a seal took: its entries, those of them that go into the body, and the cut."""

    entries: list[Entry]
    usable: list[Prompt]
    cut: Cut


def seal_all(entries: Sequence[Entry], limits: Limits, taken: set[int] | None = None) -> list[Sealed]:
    """Seal a whole lane, window by window, as the batcher does when an operator flushes it."""
    sealed: list[Sealed] = []
    rest = list(entries)
    cursor = "0-0"
    while rest:
        window = window_of(rest, limits, cursor)
        decision = decide(window, now=0.0, flush=True, taken=taken or set())
        assert isinstance(decision, Seal), "a lane with something in it must never be stuck"
        head, rest = rest[: decision.cut.entries], rest[decision.cut.entries :]
        assert window.first == head[0].entry_id
        assert decision.cut.last == head[-1].entry_id
        flawed = window.unusable_within(decision.cut)
        assert set(flawed) <= {entry.entry_id for entry in head}
        usable = [entry for entry in head if isinstance(entry, Prompt) and entry.entry_id not in flawed]
        sealed.append(Sealed(head, usable, decision.cut))
        cursor = decision.cut.last
    return sealed


sizes = st.one_of(st.integers(2, 40), st.integers(300, 330))
kinds = st.lists(st.one_of(sizes, st.none()), max_size=40)
limits_of_a_lane = st.builds(
    Limits, max_count=st.integers(1, 8), max_bytes=st.integers(80, 420), max_age=st.just(300.0)
)


def lane_of(kinds: Sequence[int | None]) -> list[Entry]:
    """Build a lane: a number is a prompt with params of that size, None an unusable entry."""
    return [unusable(number) if kind is None else prompt(number, size=kind) for number, kind in enumerate(kinds)]


@given(kinds, limits_of_a_lane, st.sets(st.integers(1, 8)))
def test_windows_partition_the_lane(kinds: list[int | None], limits: Limits, taken: set[int]) -> None:
    """Every entry is in exactly one batch, in order, whatever the limits and the counts already taken."""
    entries = lane_of(kinds)
    assert [entry for batch in seal_all(entries, limits, taken) for entry in batch.entries] == entries


@given(kinds, limits_of_a_lane)
def test_ceilings_are_never_overshot(kinds: list[int | None], limits: Limits) -> None:
    """Neither prompts nor bytes exceed the limits, since a window looks before it adds."""
    for batch in seal_all(lane_of(kinds), limits):
        assert batch.cut.count <= batch.cut.entries <= limits.max_count
        assert batch.cut.bytes <= limits.max_bytes


@given(kinds, limits_of_a_lane)
def test_the_bytes_of_a_cut_are_those_of_its_body(kinds: list[int | None], limits: Limits) -> None:
    """A body's Content-Length is fixed by the seal; one byte off and the create fails."""
    for batch in seal_all(lane_of(kinds), limits):
        requests = [(entry.entry_id.encode(), entry.params) for entry in batch.usable]
        body = b"".join(write_body(prefix(DEPLOYMENT, UID, 7), requests))
        assert (batch.cut.count, batch.cut.bytes) == (len(requests), len(body))


@given(kinds, limits_of_a_lane)
def test_only_what_can_fit_no_body_is_left_out(kinds: list[int | None], limits: Limits) -> None:
    """A prompt is unusable for its size only when it fits no batch, even alone."""
    for batch in seal_all(lane_of(kinds), limits):
        for entry in batch.entries:
            if isinstance(entry, Prompt):
                alone = window_of([entry], Limits(1, 10_000, 300.0)).cut
                assert alone is not None
                assert (entry in batch.usable) is (alone.bytes <= limits.max_bytes)


@given(kinds, limits_of_a_lane)
def test_a_batch_ends_early_only_for_a_limit(kinds: list[int | None], limits: Limits) -> None:
    """The next entry would not have fitted: batches are as large as the limits allow."""
    sealed = seal_all(lane_of(kinds), limits)
    for batch, following in pairwise(sealed):
        roomier = Limits(limits.max_count + 1, 10_000, limits.max_age)
        grown = window_of([*batch.entries, following.entries[0]], roomier)
        assert grown.cut is not None
        assert grown.cut.entries > limits.max_count or grown.cut.bytes > limits.max_bytes


@given(kinds, limits_of_a_lane, st.sets(st.integers(1, 8)))
def test_the_cuts_of_a_window_are_the_windows_of_its_heads(
    kinds: list[int | None], limits: Limits, taken: set[int]
) -> None:
    """Trimming gives the very batch that fewer entries would have given."""
    for batch in seal_all(lane_of(kinds), limits, taken):
        assert window_of(batch.entries, limits).cut == batch.cut


def test_a_refused_entry_changes_nothing() -> None:
    """What did not fit is not half in: the cut, the deadline and the unusable entries are as they were."""
    limits = Limits(1000, window_of([prompt(0), prompt(1)]).cut.bytes, 300.0)  # type: ignore[union-attr]  # not empty
    window = window_of([prompt(0), prompt(1)], limits)
    before = (window.cut, window.deadline, dict(window.unusable))
    assert not window.add(prompt(2, deadline=5.0))
    assert (window.cut, window.deadline, window.unusable) == before


def test_a_full_window_lets_nobody_overtake() -> None:
    """A small prompt behind a large one that did not fit waits with it: batches are ranges."""
    window = window_of([prompt(0, size=60)], Limits(1000, 200, 300.0))
    assert not window.add(prompt(1, size=90))
    assert not window.add(prompt(2, size=2))
    assert window.cut == window_of([prompt(0, size=60)]).cut


def test_why_a_window_is_full_does_not_change_afterwards() -> None:
    """A large prompt offered to a window that its count has filled does not turn the trigger into bytes."""
    window = window_of([prompt(0), prompt(1)], Limits(2, 200, 300.0))
    full = window.full
    assert not window.add(prompt(2, size=180))
    assert window.full is full


def test_an_oversize_prompt_behind_others_starts_a_window_of_its_own_and_is_left_out() -> None:
    """The others are sealed first; then it is alone, fits no body, and is buried with its reason."""
    entries = [prompt(0), prompt(1, size=500), prompt(2)]
    first, second = seal_all(entries, Limits(1000, 300, 300.0))
    assert first.entries == entries[:1]
    assert second.entries == entries[1:]
    assert second.usable == entries[2:]
    assert window_of(entries[1:], Limits(1000, 300, 300.0)).unusable == {"1795348800000-1": Flaw.TOO_LARGE}


def test_unusable_entries_alone_are_a_batch_without_a_body() -> None:
    """They are sealed all the same, so that their producers hear of them."""
    (batch,) = seal_all([unusable(0), unusable(1)], ROOMY)
    assert (batch.cut.entries, batch.cut.count) == (2, 0)


def test_an_empty_window_waits_for_something_to_arrive() -> None:
    """There is nothing to seal, not even for an operator in a hurry."""
    assert decide(Window(after="0-0", limits=ROOMY), now=9e9, flush=True) == Wait(None)


def test_a_window_remembers_no_more_cuts_than_a_seal_may_need() -> None:
    """Its size does not grow with the lane."""
    assert len(window_of([prompt(number) for number in range(100)]).cuts) == TRIM + 1
