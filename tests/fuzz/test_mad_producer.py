from collections import Counter
from collections.abc import Callable, Iterable

import hostile_entries
import msgspec
import pytest
from fuzzing import chance, many
from hostile_entries import PARAMS, ROOM, Entry, is_plain, is_usable, name_of
from mill import Mill
from strict_json import parse

from worker.core.custom_id import decode
from worker.core.intake import MAX_ENTRY_ID
from worker.simulator import Simulator

DEFAULT = 3000
PERMANENT = {"deployment", "lanes", "in_flight", "waiting", "{default}:lane", "{default}:dead", "{default}:prompts"}


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """One request of a body, with its params as they were sent."""

    custom_id: str
    params: msgspec.Raw


class Body(msgspec.Struct, forbid_unknown_fields=True):
    """A whole body."""

    requests: list[Request]


def kind_of(row: dict[str, object], sent: set[str]) -> str:
    """Say what a row tells: `good`, `bad` (it never reached the API) or `odd` (the API would not answer it)."""
    result = row["result"]
    assert isinstance(result, dict)
    if row["batch_id"] is None:
        assert result["error"]["error"]["type"] == "invalid_request_error"
        assert row["custom_id"] is None
        return "bad"
    assert row["custom_id"] in sent
    return "good" if result["type"] == "succeeded" else "odd"


def expected_of(entry: Entry) -> str:
    """Say what the row of an entry must tell."""
    if not is_usable(entry.fields):
        return "bad"
    return "good" if is_plain(entry.fields[b"params"]) else "odd"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_entry_of_a_mad_producer_ends_as_one_row(connect: Callable[..., Mill], simulator: Simulator) -> None:
    """Good ones are answered, bad ones are told why; what the API is sent is strict JSON, byte for byte theirs."""
    mill = connect(simulator.url, lanes__default__max_bytes=str(ROOM), lanes__default__max_attempts="9")
    simulator.control.inject({"kind": "rows", "on": "create", "result": "expired", "fraction": 0.2, "times": 5})
    entries = list(hostile_entries.entries(chance(), many(DEFAULT)))
    ids = mill.add(entry.pairs for entry in entries)
    mill.drive(mill.idle, timeout=3000)

    names = [name_of(entry.fields, at) for at, entry in zip(ids, entries, strict=True)]
    # the API may or may not answer odd params, and one that is past its deadline is not tried again when it expired
    open_names = {
        name
        for name, entry in zip(names, entries, strict=True)
        if entry.fields.get(b"deadline") or expected_of(entry) == "odd"
    }
    expected = tell(zip(names, map(expected_of, entries), strict=True), open_names)
    usable = {at: entry.fields[b"params"] for at, entry in zip(ids, entries, strict=True) if is_usable(entry.fields)}
    sent = read_bodies(mill, usable)
    rows = [parse(line) for line in mill.lines()]
    kinds = [kind_of(row, sent) for row in rows]
    assert tell(zip((row["id"] for row in rows), kinds, strict=True), open_names) == expected
    assert len(mill.dead()) == len(kinds) - kinds.count("good")
    assert {name.decode().removeprefix("batchmill:") for name in mill.redis.scan_iter()} - settled_keys(
        mill
    ) <= PERMANENT
    verdict = simulator.control.ledger()
    assert verdict["prompts_billed_twice"] == 0
    assert set(kinds) == {"good", "odd", "bad"}, "a run without each of them proves nothing"
    print(Counter(kinds), Counter(reason for _, reason in mill.dead()))


def tell(rows: Iterable[tuple[str, str]], open_names: set[str]) -> Counter[tuple[str, str]]:
    """Count rows by name and kind; of `open_names` only whether they were sent."""
    return Counter((name, "sent" if kind != "bad" and name in open_names else kind) for name, kind in rows)


def read_bodies(mill: Mill, usable: dict[str, bytes]) -> set[str]:
    """Check all bodies against the usable prompts: each first comes with its own entry id; returns the custom_ids."""
    sent: set[str] = set()
    by_first_id: dict[str, bytes] = {}
    again = Counter[bytes]()
    for body in mill.bodies:
        parse(body)
        for request in msgspec.json.decode(body, type=Body).requests:
            token = decode(request.custom_id)
            assert token is not None
            sent.add(request.custom_id)
            if token.entry_id in usable:
                by_first_id[token.entry_id] = bytes(request.params)
            else:
                again[bytes(request.params)] += 1
    assert by_first_id == usable
    assert set(again) <= set(usable.values())
    return sent


def settled_keys(mill: Mill) -> set[str]:
    """Return the keys that have an end of their own."""
    return {
        name.decode().removeprefix("batchmill:")
        for name in mill.redis.scan_iter()
        if mill.redis.ttl(name) >= 0 or name.endswith(b":settled")
    }


def test_entry_ids_of_a_producers_making_stop_no_lane(connect: Callable[..., Mill], simulator: Simulator) -> None:
    """From the first there can be to the last, and far in the future: each has its row, and the lane goes on."""
    mill = connect(simulator.url, lanes__default__max_age="50ms")
    most, lane = 2**64 - 1, "batchmill:{default}:prompts"
    early = ["0-1", "0-2", "1-0", f"999-{most}", "1000-0"]
    late = ["99999999999999-0", f"9999999999999999-{most - 1}", f"{10**19}-0", f"{most}-{10**15}", f"{most}-{10**18}"]
    ids = [mill.redis.execute_command("XADD", lane, each, "params", PARAMS).decode() for each in early]
    for each in (*late, f"{most}-{most - 1}"):
        ids.append(mill.redis.execute_command("XADD", lane, each, "params", PARAMS).decode())
        ids.append(mill.redis.execute_command("XADD", lane, "*", "params", PARAMS).decode())
    mill.drive(mill.idle)
    told = {row["id"]: row["batch_id"] is not None for row in mill.rows()}
    assert len(mill.rows()) == len(ids)
    assert told == {each: len(each) <= MAX_ENTRY_ID for each in ids}
