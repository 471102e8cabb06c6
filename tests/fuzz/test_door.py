from collections.abc import Mapping
from typing import Any

import hostile_entries
from fuzzing import chance, many
from hostile_entries import ODD_NAMES, ODD_WORDS, PARAMS, ROOM, SIDE_NAMES, is_usable, may_be_metadata, may_be_sent
from hostile_json import any_document, documents
from hypothesis import event, given
from hypothesis import strategies as st
from strict_json import parse

from worker.core.body import write_body
from worker.core.custom_id import prefix
from worker.core.grouping import Limits, Seal, Wait, Window, decide
from worker.core.intake import (
    MAX_ENTRY_ID,
    Flaw,
    Unusable,
    check_params,
    describe_prompt,
    describe_unusable,
    is_metadata,
    read_prompt,
)
from worker.core.model import Batch, Prompt, State, Trigger
from worker.core.rows import RowWriter, spell_instant, unusable_result

numbers = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 999, 1000, 1_795_348_800_000, 10**19, 2**64 - 1])
entry_ids = st.builds("{}-{}".format, numbers, numbers)
names = st.sampled_from([b"params", *SIDE_NAMES, *SIDE_NAMES, *ODD_NAMES])
fields_of_any_kind = st.dictionaries(names, st.sampled_from(ODD_WORDS) | any_document, max_size=6)


def entries() -> st.SearchStrategy[Mapping[bytes, bytes]]:
    """Make fields: often a usable prompt with some odd ones beside it."""
    return st.tuples(fields_of_any_kind, st.booleans()).map(
        lambda made: made[0] | ({b"params": PARAMS} if made[1] else {})
    )


@given(any_document)
def test_params_are_usable_when_a_strict_parser_says_so_too(params: bytes) -> None:
    """Both ways: one prompt let in wrongly costs a batch, one refused wrongly is a prompt lost."""
    flaw = check_params(params, ROOM)
    event(str(flaw))
    assert (flaw is None) == may_be_sent(params), flaw


@given(any_document)
def test_metadata_are_what_a_strict_parser_reads(metadata: bytes) -> None:
    """They are spliced into the row as they are."""
    assert is_metadata(metadata) == may_be_metadata(metadata)


def test_thousands_of_entries_are_judged_as_by_others() -> None:
    """The same, quickly: the entries that the run from end to end is made of."""
    wrong = [
        entry.pairs
        for entry in hostile_entries.entries(chance(), many(5000))
        if isinstance(read_prompt("1-1", entry.fields, ROOM), Prompt) != is_usable(entry.fields)
    ]
    assert wrong == []


@given(entry_ids, entries())
def test_any_entry_is_a_prompt_or_has_a_flaw_and_either_way_a_row(entry_id: str, fields: Mapping[bytes, bytes]) -> None:
    """The row is one line of strict JSON, whatever the entry was."""
    entry = read_prompt(entry_id, fields, ROOM)
    event(entry.flaw if isinstance(entry, Unusable) else "a prompt")
    if isinstance(entry, Unusable):
        prompt, custom_id, result = describe_unusable(entry_id, fields), None, unusable_result(entry.flaw)
        assert entry.id == prompt.id
        assert not is_usable(fields) or len(entry_id) > MAX_ENTRY_ID
    else:
        assert is_usable(fields)
        assert len(entry_id) <= MAX_ENTRY_ID
        without_params = {name: value for name, value in fields.items() if name != b"params"}
        prompt, custom_id = describe_prompt(entry_id, without_params, entry.id), "c"
        result = b'{"type":"succeeded"}'
        assert (prompt.id, prompt.attempt, prompt.deadline) == (entry.id, entry.attempt, entry.deadline)
        spell_instant(prompt.deadline)
    row = parse(RowWriter(batch()).write(prompt, custom_id, result))
    assert set(row) - {"traceparent"} == {
        "id", "lane", "custom_id", "batch", "batch_id", "attempt", "enqueued_at", "ended_at", "metadata", "result",
    }  # fmt: skip
    assert row["id"] == (fields[b"id"].decode() if entry.id != entry_id else entry_id)
    assert (row["batch_id"] is None) == isinstance(entry, Unusable)


def batch() -> Batch:
    """Build the batch that a row needs."""
    return Batch(
        uid="u" * 16, lane="default", state=State.ENDED, first="0-1", last="0-1", entries=1, count=1, bytes=1,
        trigger=Trigger.AGE, sealed_at=0.0, remote_id="msgbatch_1",
    )  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 3), entries()), max_size=12), st.integers(1, 8), st.integers(300, 3000))
def test_a_body_is_strict_json_with_the_usable_prompts_byte_for_byte(
    made: list[tuple[int, Mapping[bytes, bytes]]], max_count: int, max_bytes: int
) -> None:
    """And exactly as long as was said when it was sealed."""
    window = Window(after="0-0", limits=Limits(max_count, max_bytes, 1.0))
    taken: list[Prompt | Unusable] = []
    for number, (gap, fields) in enumerate(made):
        entry = read_prompt(f"{1000 + number * 4 + gap}-0", fields, max_bytes)
        if not window.add(entry):
            break
        taken.append(entry)
    decision = decide(window, now=1e12)
    if not taken:
        assert isinstance(decision, Wait)
        return
    assert isinstance(decision, Seal)
    flawed = window.unusable_within(decision.cut)
    prompts = [entry for entry in taken if isinstance(entry, Prompt) and entry.entry_id not in flawed]
    assert [entry.entry_id for entry in taken if isinstance(entry, Unusable) and entry.entry_id not in flawed] == []
    assert (len(taken), len(prompts)) == (decision.cut.entries, decision.cut.count)
    token = prefix("d" * 6, "u" * 16, 1)
    body = b"".join(write_body(token, ((one.entry_id.encode(), one.params) for one in prompts)))
    if not prompts:
        return
    assert len(body) == decision.cut.bytes <= max_bytes
    sent = parse(body)["requests"]
    expected = [{"custom_id": token + one.entry_id, "params": parse(one.params)} for one in prompts]
    assert repr(sent) == repr(expected)
    assert all(one.params in body for one in prompts)


@given(st.lists(st.tuples(entry_ids, st.booleans()), min_size=1, max_size=5, unique=True), st.floats(0, 2e9))
def test_no_entry_id_keeps_a_window_waiting_for_ever(made: list[tuple[str, bool]], now: float) -> None:
    """The next look is never later than the oldest age allows, counted from when the window was first seen."""
    window = Window(after="0-0", limits=Limits(100, 10**6, 60.0))
    for entry_id, usable in made:
        window.add(read_prompt(entry_id, {b"params": PARAMS if usable else b"{"}, ROOM))
    window.notice(now)
    first = decide(window, now=now)
    assert isinstance(first, Seal) or (first.until is not None and first.until <= now + 60.0)
    assert isinstance(decide(window, now=now + 60.0), Seal)


@given(documents(), st.binary(max_size=300))
def test_the_flaw_of_an_entry_does_not_depend_on_fields_nobody_knows(params: bytes, noise: bytes) -> None:
    """A producer may write beside a prompt what it likes."""
    fields: dict[bytes, bytes] = {b"params": params}
    plain: Any = read_prompt("1-1", fields, ROOM)
    assert plain == read_prompt("1-1", fields | {b"batchmill.x": noise, noise + b"!": noise}, ROOM)
    assert not isinstance(plain, Unusable) or isinstance(plain.flaw, Flaw)
