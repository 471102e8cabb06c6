import json
from typing import Any

import pytest
from rig import Rig, params, wait_until

Entry = dict[Any, Any]

NESTED = '{"model":"m","max_tokens":1,"messages":' + "[" * 200 + "]" * 200 + "}"
UNUSABLE: dict[str, Entry] = {
    "nan": {"params": '{"model":"m","max_tokens":NaN,"messages":[]}'},
    "infinity": {"params": '{"model":"m","max_tokens":1,"messages":[-Infinity]}'},
    "too-large-a-number": {"params": '{"model":"m","max_tokens":1e999,"messages":[]}'},
    "lone-surrogate": {"params": '{"model":"m","max_tokens":1,"messages":["\\ud800"]}'},
    "raw-surrogate": {"params": b'{"model":"m","max_tokens":1,"messages":["\xed\xa0\x80"]}'},
    "not-utf8": {"params": b'{"model":"m","max_tokens":1,"messages":["\xff\xfe"]}'},
    "bom": {"params": b"\xef\xbb\xbf" + params().encode()},
    "not-json": {"params": "hello"},
    "cut-short": {"params": params()[:-1]},
    "two-values": {"params": params() + params()},
    "empty": {"params": ""},
    "nul": {"params": "\0"},
    "a-list": {"params": "[]"},
    "a-string": {"params": '"{}"'},
    "no-model": {"params": '{"max_tokens":1,"messages":[]}'},
    "no-max-tokens": {"params": '{"model":"m","messages":[]}'},
    "no-messages": {"params": '{"model":"m","max_tokens":1}'},
    "a-stream": {"params": params(stream=True)},
    "too-deep": {"params": NESTED},
    "deeper-than-the-stack": {"params": "[" * 200_000},
    "too-large": {"params": params("x" * 10_000_000)},
    "no-params": {"prompt": "hello"},
    "metadata-not-json": {"params": params(), "metadata": "{broken"},
    "metadata-not-utf8": {"params": params(), "metadata": b'"\xff"'},
    "metadata-too-large": {"params": params(), "metadata": json.dumps("x" * 70_000)},
    "deadline-never": {"params": params(), "deadline": "soon"},
    "reply-to-nowhere": {"params": params(), "reply_to": "a b/c\r\n"},
}


def test_nothing_in_a_prompt_stops_its_lane(rig: Rig) -> None:
    """Each unusable prompt, between good ones, ends as a dead letter and an errored row that says why."""
    worker = rig.start(lanes__default__max_bytes="1MB")
    good = []
    for name, fields in UNUSABLE.items():
        rig.add([{**fields, "id": name}])
        good += rig.enqueue(2, name=f"after-{name}")
    rig.await_rows(len(UNUSABLE) + len(good))
    rows = {row["id"]: row for row in rig.rows()}
    assert set(rows) == {*UNUSABLE, *good}
    assert len(rig.row_lines()) == len(rows)
    for name in UNUSABLE:
        assert rows[name]["batch_id"] is None, name
        assert rows[name]["result"]["type"] == "errored", name
        assert rows[name]["result"]["error"]["error"]["type"] == "invalid_request_error", name
        assert rows[name]["result"]["error"]["error"]["message"], name
    assert all(rows[name]["result"]["type"] == "succeeded" for name in good)
    wait_until(
        lambda: worker.metric("batchmill_dead_letters", lane="default") == len(UNUSABLE), description="dead letters"
    )
    assert worker.metric("batchmill_prompts_buried_total", lane="default") == len(UNUSABLE)
    assert "Traceback" not in worker.err


def test_an_entry_whose_names_are_no_text_is_still_an_entry(rig: Rig) -> None:
    """Unknown fields are ignored whatever their bytes; an unreadable id is replaced by the entry's own."""
    rig.start()
    entries: list[Entry] = [
        {b"\xff\xfe\x00": b"\xff", b"params": params().encode(), b"id": b"odd-field"},
        {b"": b"", b"params": params().encode(), b"id": b"empty-field"},
        {b"params": params().encode(), b"id": b"\xff\xfe"},
        {b"params": params().encode(), b"id": b""},
        {b"params": params().encode(), b"id": b"x" * 300},
        {b"\xff": b"\xff"},
        {b"PARAMS": params().encode()},
    ]
    ids = rig.add(entries)
    rig.await_rows(len(entries))
    results = {row["id"]: row["result"]["type"] for row in rig.rows()}
    assert results == {"odd-field": "succeeded", "empty-field": "succeeded"} | dict.fromkeys(ids[2:], "errored")


def test_two_prompts_of_one_name_are_two_prompts(rig: Rig) -> None:
    """A plain XADD says nothing about repetition: both are answered."""
    rig.start()
    rig.add([{"params": params("first"), "id": "same"}, {"params": params("second"), "id": "same"}])
    rig.await_rows(2)
    assert [row["id"] for row in rig.rows()] == ["same", "same"]
    assert len({row["custom_id"] for row in rig.rows()}) == 2


def test_ids_and_metadata_come_back_as_they_went_in(rig: Rig) -> None:
    """Any text is a name and any JSON is metadata; neither ever becomes a path or a header."""
    rig.start()
    names = ["../../etc/passwd", "a\nb\r\nc", 'quote"\\', "snow☃\U0001f600", "\x00\x1b[31m", " ", "x" * 256, "\u2028"]
    metadata = [None, True, 0, 1.5, "text☃", [1, [2]], {"a": {"b": None}}, {"id": "other"}]
    rig.add(
        {"params": params(), "id": name, "metadata": json.dumps(value)}
        for name, value in zip(names, metadata, strict=True)
    )
    rig.await_rows(len(names))
    assert {row["id"]: row["metadata"] for row in rig.rows()} == dict(zip(names, metadata, strict=True))
    assert all(file.parent.name == "default" for file in rig.directory.glob("results/**/*.jsonl"))


@pytest.mark.parametrize("count", [1000])
def test_a_range_of_nothing_but_unusable_prompts_costs_no_request(rig: Rig, count: int) -> None:
    """No batch is created for it; every producer has its row, and the lane goes on."""
    rig.start()
    rig.add({"params": "[]", "id": f"bad-{number}"} for number in range(count))
    rig.await_rows(count)
    assert rig.created() == []
    names = rig.enqueue(1)
    rig.await_rows(count + 1)
    assert rig.verdict()["prompts_billed"] == len(names)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hundred_thousand_unusable_prompts_delay_a_good_one_by_seconds(rig: Rig) -> None:
    """A producer gone mad costs its lane time and nothing else."""
    worker = rig.start(lanes__default__max_count="10000")
    rig.add({"prompt": "hello"} for _ in range(100_000))
    rig.enqueue(1, name="good")
    rig.await_rows(100_001, timeout=200)
    results = [row["result"]["type"] for row in rig.rows()]
    assert results.count("succeeded") == 1
    assert results.count("errored") == 100_000
    wait_until(lambda: worker.metric("batchmill_dead_letters", lane="default") == 100_000, description="dead letters")


def test_streams_that_only_look_like_lanes_are_left_alone(rig: Rig) -> None:
    """A name no lane may have is nobody's lane: it is not served, not touched, and does not stop the others."""
    client = rig.server.client
    names = [b"Upper", b"with space", b"a/../b", b"", b"\xff\xfe", b"x" * 64, b"-dash", b"new\nline", b"{nested}"]
    for name in names:
        client.xadd(b"batchmill:{" + name + b"}:prompts", {"params": params()})
    client.set("batchmill:{a-string}:prompts", "no stream")
    client.xadd("batchmill:{legal.name_1-a}:prompts", {"params": params(), "id": "legal"})
    worker = rig.start()
    rig.enqueue(1)
    rig.await_rows(2)
    assert {row["lane"] for row in rig.rows()} == {"default", "legal.name_1-a"}
    assert set(worker.status()["lanes"]) == {"default", "legal.name_1-a"}
    assert all(client.xlen(b"batchmill:{" + name + b"}:prompts") == 1 for name in names)
    assert worker.get("/metrics")[0] == 200
    assert "Traceback" not in worker.err


def test_a_lane_that_is_no_stream_stops_only_itself(rig: Rig) -> None:
    """Somebody wrote a string where a lane should be: the other lanes are served, and the trouble is told."""
    rig.enqueue(1, lane="before")
    rig.enqueue(1, lane="zebra")
    rig.server.client.set("batchmill:{default}:prompts", "no stream")
    worker = rig.start()
    rig.await_rows(2)
    assert {row["lane"] for row in rig.rows()} == {"before", "zebra"}
    wait_until(lambda: "refused" in worker.err, description="the trouble is told")
    assert worker.get("/livez")[0] == 200
    rig.server.client.delete("batchmill:{default}:prompts")
    rig.enqueue(1)
    rig.await_rows(3)
