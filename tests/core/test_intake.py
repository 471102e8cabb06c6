import json
import time
from typing import Any

import pytest
from core_builders import NOON, build_batch
from hypothesis import given
from hypothesis import strategies as st

from worker.core.intake import (
    ATTEMPT,
    ENQUEUED_AT,
    EXPLANATIONS,
    MAX_DEPTH,
    MAX_ID_BYTES,
    MAX_METADATA_BYTES,
    Flaw,
    Unusable,
    check_params,
    describe_prompt,
    describe_unusable,
    read_prompt,
)
from worker.core.model import Prompt
from worker.core.rows import RowWriter, unusable_result

ENTRY = "1795348800000-7"
ROOM = 100_000
GOOD = b'{"model":"claude-haiku-4-5","max_tokens":10,"messages":[{"role":"user","content":"hi"}]}'


def params(**changes: Any) -> bytes:
    """Spell good params with some keys changed; an ellipsis leaves a key out."""
    wanted = json.loads(GOOD) | changes
    return json.dumps({name: value for name, value in wanted.items() if value is not ...}).encode()


def within(value: str) -> bytes:
    """Put raw JSON into otherwise good params."""
    return GOOD[:-1] + b',"x":' + value.encode("utf-8", "surrogatepass") + b"}"


def read(**fields: bytes) -> Prompt | Unusable:
    """Read an entry with good params and these fields."""
    given_fields = {b"params": GOOD} | {name.encode(): value for name, value in fields.items()}
    return read_prompt(ENTRY, given_fields, ROOM)


def flaw_of(entry: Prompt | Unusable) -> Flaw | None:
    """Return why an entry is unusable, None when it is a prompt."""
    return entry.flaw if isinstance(entry, Unusable) else None


def test_a_plain_entry_is_a_prompt_in_its_first_attempt() -> None:
    """With params alone its name is its entry id and its time that of the entry."""
    expected = Prompt(entry_id=ENTRY, id=ENTRY, params=GOOD, attempt=1, enqueued_at=NOON)
    assert read_prompt(ENTRY, {b"params": GOOD}, ROOM) == expected


def test_every_field_of_the_contract_is_read() -> None:
    """What a producer says about a prompt stays with it."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    prompt = read(
        id="ördnung".encode(),
        metadata=b' {"a": [1]} ',
        deadline=b"1795352400.5",
        reply_to=b"my.replies:1",
        traceparent=trace.encode(),
    )
    assert prompt == Prompt(
        entry_id=ENTRY,
        id="ördnung",
        params=GOOD,
        attempt=1,
        enqueued_at=NOON,
        metadata=b' {"a": [1]} ',
        deadline=1_795_352_400.5,
        reply_to="my.replies:1",
        traceparent=trace,
    )


def test_a_prompt_that_comes_again_keeps_its_count_and_its_time() -> None:
    """Our own fields outlive the entry that a retry replaces."""
    fields = {b"params": GOOD, b"id": b"order-42", ATTEMPT: b"3", ENQUEUED_AT: b"1795300000.123"}
    prompt = read_prompt(ENTRY, fields, ROOM)
    assert isinstance(prompt, Prompt)
    assert (prompt.id, prompt.attempt, prompt.enqueued_at) == ("order-42", 3, 1_795_300_000.123)


@pytest.mark.parametrize("attempt", [b"", b"x", b"-1", b"1.5", b"9" * 5000, "\u0663".encode()])
def test_an_attempt_that_is_no_number_of_ours_counts_as_the_first(attempt: bytes) -> None:
    """Anybody may write any field; five thousand digits must not stop a lane."""
    prompt = read_prompt(ENTRY, {b"params": GOOD, ATTEMPT: attempt}, ROOM)
    assert isinstance(prompt, Prompt)
    assert prompt.attempt == 1


@pytest.mark.parametrize("enqueued", [b"", b"soon", b"nan", b"1e9", b"-1", b"9" * 5000])
def test_a_time_that_is_none_of_ours_is_that_of_the_entry(enqueued: bytes) -> None:
    """The entry id always has one."""
    prompt = read_prompt(ENTRY, {b"params": GOOD, ENQUEUED_AT: enqueued}, ROOM)
    assert isinstance(prompt, Prompt)
    assert prompt.enqueued_at == NOON


@pytest.mark.parametrize("number", ["9" * 308, "1" + "0" * 308, '"' + "9" * 5000 + '"', "0." + "9" * 5000])
def test_numbers_that_a_double_can_hold_and_digits_in_text_are_fine(number: str) -> None:
    """However long they are: only what a parser has no room for is refused."""
    assert flaw_of(read(params=within(number), metadata=number.encode())) is None


def test_fields_that_nobody_knows_are_ignored() -> None:
    """A producer may note for itself what it likes, in any bytes."""
    fields = {b"params": GOOD, b"priority": b"high", b"\xff\x00": b"\xff", b"": b""}
    assert read_prompt(ENTRY, fields, ROOM) == read()


@pytest.mark.parametrize(
    ("fields", "flaw"),
    [
        ({}, Flaw.EMPTY),
        ({b"prompt": GOOD}, Flaw.NO_PARAMS),
        ({b"id": b"a"}, Flaw.NO_PARAMS),
        ({b"params": b""}, Flaw.NOT_JSON),
        ({b"params": b"{"}, Flaw.NOT_JSON),
        ({b"params": GOOD + b"}"}, Flaw.NOT_JSON),
        ({b"params": b"\xef\xbb\xbf" + GOOD}, Flaw.NOT_JSON),
        ({b"params": within("NaN")}, Flaw.NOT_JSON),
        ({b"params": within("Infinity")}, Flaw.NOT_JSON),
        ({b"params": within("-Infinity")}, Flaw.NOT_JSON),
        ({b"params": within("1e400")}, Flaw.NOT_JSON),
        ({b"params": within("-1e400")}, Flaw.NOT_JSON),
        ({b"params": within("9" * 5000)}, Flaw.NOT_JSON),
        ({b"params": within("2" + "0" * 308)}, Flaw.NOT_JSON),
        ({b"params": within("[[-" + "9" * 400 + "]]")}, Flaw.NOT_JSON),
        ({b"params": within("1,")}, Flaw.NOT_JSON),
        ({b"params": within(r'"\ud800"')}, Flaw.NOT_JSON),
        ({b"params": within(r'"\udc00\ud800"')}, Flaw.NOT_JSON),
        ({b"params": within(r'{"\ud800":1}')}, Flaw.NOT_JSON),
        ({b"params": within('"\n"')}, Flaw.NOT_JSON),
        ({b"params": within('"\x00"')}, Flaw.NOT_JSON),
        ({b"params": within('"\ud800"')}, Flaw.NOT_UTF8),
        ({b"params": GOOD.replace(b"hi", b"h\xe9")}, Flaw.NOT_UTF8),
        ({b"params": GOOD.replace(b"model", b"mod\xffel")}, Flaw.NOT_UTF8),
        ({b"params": b"[" + GOOD + b"]"}, Flaw.NOT_AN_OBJECT),
        ({b"params": b'"claude"'}, Flaw.NOT_AN_OBJECT),
        ({b"params": b"null"}, Flaw.NOT_AN_OBJECT),
        ({b"params": params(model=...)}, Flaw.NO_MODEL),
        ({b"params": params(model=None)}, Flaw.NO_MODEL),
        ({b"params": params(max_tokens=...)}, Flaw.NO_MAX_TOKENS),
        ({b"params": params(messages=...)}, Flaw.NO_MESSAGES),
        ({b"params": params(stream=True)}, Flaw.STREAM),
        ({b"params": params(stream="yes")}, Flaw.STREAM),
        ({b"params": within('"' + "a" * ROOM + '"')}, Flaw.TOO_LARGE),
        ({b"params": within("[" * 500 + "]" * 500)}, Flaw.TOO_DEEP),
        ({b"params": b"[" * 50_000}, Flaw.TOO_DEEP),
        ({b"params": GOOD, b"id": b""}, Flaw.BAD_ID),
        ({b"params": GOOD, b"id": b"\xff"}, Flaw.BAD_ID),
        ({b"params": GOOD, b"id": b"a" * (MAX_ID_BYTES + 1)}, Flaw.BAD_ID),
        ({b"params": GOOD, b"id": "é".encode() * (MAX_ID_BYTES // 2 + 1)}, Flaw.BAD_ID),
        ({b"params": GOOD, b"metadata": b""}, Flaw.BAD_METADATA),
        ({b"params": GOOD, b"metadata": b"plain text"}, Flaw.BAD_METADATA),
        ({b"params": GOOD, b"metadata": b"NaN"}, Flaw.BAD_METADATA),
        ({b"params": GOOD, b"metadata": b'"\xff"'}, Flaw.BAD_METADATA),
        ({b"params": GOOD, b"metadata": rb'"\ud800"'}, Flaw.BAD_METADATA),
        ({b"params": GOOD, b"metadata": b"1 2"}, Flaw.BAD_METADATA),
        ({b"params": GOOD, b"deadline": b"tomorrow"}, Flaw.BAD_DEADLINE),
        ({b"params": GOOD, b"reply_to": b"two words"}, Flaw.BAD_REPLY_TO),
        ({b"params": GOOD, b"traceparent": b"00-\n"}, Flaw.BAD_TRACEPARENT),
    ],
)
def test_an_entry_that_cannot_be_used_has_a_reason(fields: dict[bytes, bytes], flaw: Flaw) -> None:
    """Each way in which an entry is no prompt, with the word its dead letter will carry."""
    assert flaw_of(read_prompt(ENTRY, fields, ROOM)) is flaw


def test_every_reason_of_the_door_is_given_somewhere_above() -> None:
    """A flaw without an example could be dead code; two are given later, and one is the entry id, tested below."""
    parameters = test_an_entry_that_cannot_be_used_has_a_reason.pytestmark[0].args[1]  # type: ignore[attr-defined]  # pytest's own
    assert {flaw for _, flaw in parameters} == set(Flaw) - {Flaw.REFUSED, Flaw.ABANDONED, Flaw.BAD_ENTRY_ID}


@pytest.mark.parametrize("flaw", Flaw)
def test_every_flaw_can_be_explained_to_a_producer(flaw: Flaw) -> None:
    """The errored row says what to do about it."""
    assert EXPLANATIONS[flaw].encode() in unusable_result(flaw)


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "1e308",
        "-0",
        "123456789012345678901234567890",
        r'"\u0000"',
        r'"\ud83d\ude00"',
        '"😀"',
        r'"{[[\"[["',
        "[]",
    ],
)
def test_unusual_json_is_json(text: str) -> None:
    """What RFC 8259 allows is for the API to judge."""
    assert flaw_of(read(params=within(text))) is None


@pytest.mark.parametrize("stream", [False, None])
def test_a_stream_that_is_not_asked_for_is_no_flaw(stream: object) -> None:
    """SDKs spell out their defaults."""
    assert flaw_of(read(params=params(stream=stream))) is None


@pytest.mark.parametrize(("spare", "flaw"), [(0, None), (-1, Flaw.TOO_LARGE)])
def test_params_may_fill_the_room_to_the_byte(spare: int, flaw: Flaw | None) -> None:
    """The limit itself is allowed."""
    assert check_params(GOOD, len(GOOD) + spare) is flaw


@pytest.mark.parametrize(("depth", "flaw"), [(MAX_DEPTH, None), (MAX_DEPTH + 1, Flaw.TOO_DEEP)])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_params_may_nest_128_deep(depth: int, flaw: Flaw | None, opening: str, closing: str) -> None:
    """The outermost object counts; both kinds of brackets do."""
    inner = depth - 1
    assert check_params(within(opening * inner + "0" + closing * inner), ROOM) is flaw


def test_depth_alone_is_too_deep() -> None:
    """Whatever else is wrong with it, and however few brackets there are."""
    assert check_params(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, ROOM) is Flaw.NOT_AN_OBJECT
    assert check_params(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), ROOM) is Flaw.TOO_DEEP


def test_brackets_in_strings_do_not_nest() -> None:
    """A prompt about code may hold any number of them, escaped quotes and all."""
    assert check_params(params(system='say \\"[' * 500 + "{" * 500), ROOM) is None


@pytest.mark.parametrize(("depth", "flaw"), [(MAX_DEPTH, None), (MAX_DEPTH + 1, Flaw.BAD_METADATA)])
def test_metadata_may_nest_as_deep(depth: int, flaw: Flaw | None) -> None:
    """It is echoed into rows that others have to parse."""
    assert flaw_of(read(metadata=b"[" * depth + b"]" * depth)) is flaw


@pytest.mark.parametrize(("size", "flaw"), [(MAX_METADATA_BYTES, None), (MAX_METADATA_BYTES + 1, Flaw.BAD_METADATA)])
def test_metadata_may_take_64_kib(size: int, flaw: Flaw | None) -> None:
    """To the byte, quotes included."""
    assert flaw_of(read(metadata=b'"' + b"a" * (size - 2) + b'"')) is flaw


@pytest.mark.parametrize(
    "document",
    [b'"' + b'\\"' * 32_000, b'"' * 60_000, b'"\\' * 30_000, b"\\" * 60_000, b'["' + b"a\\n" * 20_000],
)
def test_no_document_takes_long_to_refuse(document: bytes) -> None:
    """64 KiB of escaped quotes once took more than a minute, and the lane stood still."""
    began = time.process_time()
    assert flaw_of(read(metadata=document)) is Flaw.BAD_METADATA
    assert flaw_of(read(params=b"[" * 200 + document)) is not None
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize(("size", "flaw"), [(1, None), (MAX_ID_BYTES, None), (MAX_ID_BYTES + 1, Flaw.BAD_ID)])
def test_an_id_has_up_to_256_bytes(size: int, flaw: Flaw | None) -> None:
    """Bytes, not characters."""
    assert flaw_of(read(id=b"i" * size)) is flaw


@pytest.mark.parametrize(
    ("deadline", "instant"),
    [(b"0", 0.0), (b"1795348800", NOON), (b"1795348800.25", NOON + 0.25), (b"999999999999", 999_999_999_999.0)],
)
def test_a_deadline_is_unix_seconds(deadline: bytes, instant: float) -> None:
    """Whole or with a fraction."""
    prompt = read(deadline=deadline)
    assert isinstance(prompt, Prompt)
    assert prompt.deadline == instant


@pytest.mark.parametrize(
    "deadline",
    [
        *(b"-1", b"+1", b"1e9", b"nan", b"inf", b" 1", b"1 ", b"1.", b".5", b"1_000", b"1" * 13),
        *(b"2026-11-22T12:00:00Z", "\u0661\u0662".encode()),
    ],
)
def test_a_deadline_in_any_other_spelling_is_refused(deadline: bytes) -> None:
    """A misread deadline would keep a prompt from ever being tried again."""
    assert flaw_of(read(deadline=deadline)) is Flaw.BAD_DEADLINE


@pytest.mark.parametrize("field", ["deadline", "reply_to", "traceparent"])
def test_an_empty_field_is_one_that_is_not_there(field: str) -> None:
    """Clients without optional arguments send empty strings."""
    assert read(**{field: b""}) == read()


@pytest.mark.parametrize("reply_to", [b"a" * 129, b"a/b", b"a\n", "é".encode(), b"a b"])
def test_a_reply_to_that_is_no_name_is_refused(reply_to: bytes) -> None:
    """It becomes part of a key."""
    assert flaw_of(read(reply_to=reply_to)) is Flaw.BAD_REPLY_TO


def test_what_is_wrong_with_params_is_said_first() -> None:
    """They are what a producer has to mend in any case."""
    assert flaw_of(read(params=b"{", deadline=b"tomorrow")) is Flaw.NOT_JSON


def test_an_unusable_entry_keeps_the_name_its_producer_waits_for() -> None:
    """Its errored row has to find its way home; an unreadable name is replaced by the entry id."""
    assert read(params=b"{", id=b"order-42") == Unusable(ENTRY, Flaw.NOT_JSON, "order-42")
    assert read(params=b"{", id=b"\xff") == Unusable(ENTRY, Flaw.BAD_ID, ENTRY)


def test_of_an_unusable_entry_only_what_can_be_echoed_is_described() -> None:
    """Broken metadata must not break the row that says so."""
    good = {b"params": b"{", b"id": b"order-42", b"metadata": b"[1]", b"deadline": b"tomorrow", ATTEMPT: b"2"}
    described = describe_unusable(ENTRY, good)
    assert (described.id, described.metadata, described.deadline, described.attempt) == ("order-42", b"[1]", None, 2)
    broken = describe_unusable(ENTRY, {b"id": b"\xff", b"metadata": b"{", b"traceparent": b"\xff"})
    assert (broken.id, broken.metadata, broken.traceparent) == (ENTRY, None, None)


names = st.sampled_from([b"params", b"id", b"metadata", b"deadline", b"reply_to", b"traceparent", ATTEMPT, ENQUEUED_AT])
values = st.one_of(
    st.binary(max_size=300),
    st.just(GOOD),
    st.integers().map(lambda number: str(number).encode()),
    st.recursive(st.none() | st.floats() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)).map(
        lambda value: json.dumps(value).encode()
    ),
    st.text(alphabet='"\\[]{}ud80', max_size=200).map(str.encode),
)
entry_ids = st.builds("{}-{}".format, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))


@given(entry_ids, st.dictionaries(names | st.binary(max_size=5), values))
def test_whatever_the_bytes_the_answer_is_a_prompt_or_a_reason(entry_id: str, fields: dict[bytes, bytes]) -> None:
    """Nothing that a producer writes raises, not even later, when its row is written."""
    entry = read_prompt(entry_id, fields, 1000)
    described = (
        describe_prompt(entry_id, fields, entry.id)
        if isinstance(entry, Prompt)
        else describe_unusable(entry_id, fields)
    )
    row = RowWriter(build_batch()).write(described, None, b"{}")
    assert json.loads(row)["id"] == entry.id == described.id


def test_an_entry_id_that_no_custom_id_can_hold_is_refused() -> None:
    """A producer may name its entries itself; one such name must not have a whole batch refused."""
    longest, too_long = "1" * 17 + "-" + "1" * 19, "1" * 18 + "-" + "1" * 19
    assert isinstance(read_prompt(longest, {b"params": GOOD}, 10_000), Prompt)
    unusable = read_prompt(too_long, {b"params": GOOD}, 10_000)
    assert isinstance(unusable, Unusable)
    assert unusable.flaw is Flaw.BAD_ENTRY_ID
