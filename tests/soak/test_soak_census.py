import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import census
import pytest
from census import OWNERS, UncertifiedError, certified, take
from compressed_day import CompressedDay
from fleet import Server

from worker.config import load_config
from worker.ledger.keys import Keys

KEYS = Keys("batchmill:")
KNOCKS = "batchmill:{knocks}:"


def test_every_kind_of_key_has_a_certificate_and_an_owner() -> None:
    """The list of kinds is `ledger/keys.py`, and every one says its type and when it dies."""
    kinds = {kind.name for kind in certified("batchmill:")}
    assert kinds == set(OWNERS)
    assert len(kinds) > 15


def of_lane(_: Keys, lane: str) -> str:
    """HASH: whatever."""
    return f"batchmill:{{{lane}}}:whatever"


def ends(_: Keys, lane: str) -> str:
    """HASH: whatever; expires with the lane."""
    return f"batchmill:{{{lane}}}:whatever"


@pytest.mark.parametrize(("kind", "said"), [(of_lane, "when it dies"), (ends, "no owner")])
def test_a_new_kind_of_key_has_to_say_when_it_dies(
    monkeypatch: pytest.MonkeyPatch, kind: Callable[[Keys, str], str], said: str
) -> None:
    """And whoever adds it has to name its owner here."""
    monkeypatch.setattr(Keys, "whatever", kind, raising=False)
    with pytest.raises(UncertifiedError, match=said):
        certified("batchmill:")


@pytest.fixture
def client(server: Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A Redis with one lane and one live batch in it, of which nothing is a stray."""
    monkeypatch.setattr(census, "PAUSE", 0.01)
    client: Any = server.client
    client.sadd(KEYS.lanes, "default")
    client.hset(KEYS.lane("default"), "cursor", "1-0")
    client.xadd(KEYS.prompts("default"), {"params": "{}"})
    client.zadd(KEYS.due("default"), {"uid1": 1})
    client.zadd(KEYS.unposted("default"), {"uid1": 1})
    client.hset(KEYS.fences("default"), "uid1", 1)
    client.hset(KEYS.batch("default", "uid1"), "state", "sealed")
    client.hset(KEYS.unusable("default", "uid1"), "1-0", "no_params")
    client.hset(KEYS.batch("default", "uid0"), "state", "settled")
    client.expire(KEYS.batch("default", "uid0"), 100)
    client.zadd(KEYS.settled("default"), {"uid0": 1})
    client.set(KEYS.dedupe("default", "any:}name"), "1-0", ex=100)
    client.hset(KEYS.in_flight, "default uid1", 1)
    client.hset(KEYS.waiting, mapping={"default": 1, "total": 1})
    client.zadd(f"{KNOCKS}__heartbeats__", {"w1": 1})
    client.sadd(f"{KNOCKS}__acks__.w1.submit", "m1")
    client.hset(f"{KNOCKS}submit.msgs", mapping={"m1": "", "m2": ""})
    client.rpush(f"{KNOCKS}submit", "m2")
    return client


def test_what_has_an_owner_is_counted(client: Any) -> None:
    """Keys by kind, members of collections by kind, and no strays."""
    found = take(client)
    assert found.strays == set()
    assert (found.keys["batch"], found.keys["dedupe"], found.keys["knocks"]) == (2, 1, 4)
    assert (found.members["prompts"], found.members["lanes"], found.members["waiting"]) == (1, 1, 2)
    assert found.settled == {("default", "uid0")}


STRAYS: dict[str, Callable[[Any], object]] = {
    "note:uid1 is of no kind": lambda client: client.set("batchmill:{default}:note:uid1", "x", ex=100),
    "elsewhere is of no kind": lambda client: client.set("elsewhere", "x", ex=100),
    "batch:uid0 will not expire": lambda client: client.persist(KEYS.batch("default", "uid0")),
    "unusable:uid9 will not expire": lambda client: client.hset(KEYS.unusable("default", "uid9"), "1-0", "x"),
    "any:}name will not expire": lambda client: client.persist(KEYS.dedupe("default", "any:}name")),
    "remote:r1 will not expire": lambda client: client.set(KEYS.remote("default", "r1"), "uid1"),
    "barrier_mark will not expire": lambda client: client.set(KEYS.barrier_mark, "everysec"),
    "{ghost}:lane belongs to a lane that nobody knows": lambda client: client.hset(KEYS.lane("ghost"), "a", "b"),
    "{ghost}:prompts belongs to a lane": lambda client: client.xadd(KEYS.prompts("ghost"), {"a": "b"}),
    "is a string, not a hash": lambda client: client.set(KEYS.lane("default"), "x"),
    "uid8 outlives its batch": lambda client: client.hset(KEYS.fences("default"), "uid8", 1),
    "uid7 outlives its batch": lambda client: client.zadd(KEYS.unposted("default"), {"uid7": 1}),
    "default uid6 has a share of the queue": lambda client: client.hset(KEYS.in_flight, "default uid6", 1),
    "ghost is weighed": lambda client: client.hset(KEYS.waiting, "ghost", 1),
    "submit.XQ is nothing that knocks leave": lambda client: client.zadd(f"{KNOCKS}submit.XQ", {"m": 1}),
    "is of a worker that is gone": lambda client: client.sadd(f"{KNOCKS}__acks__.w2.poll", "m"),
    "knock m3 of drain will never be fetched": lambda client: client.hset(f"{KNOCKS}drain.msgs", "m3", ""),
}


@pytest.mark.parametrize("said", STRAYS)
def test_a_stray_is_named(client: Any, said: str) -> None:
    """What nobody owns and nothing ends."""
    STRAYS[said](client)
    strays = take(client).strays
    assert len(strays) == 1, strays
    assert said in strays.pop()


def test_what_is_gone_at_the_next_look_was_on_its_way(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A census is no snapshot: a batch may be settled between two of its questions."""
    client.set("elsewhere", "x")
    monkeypatch.setattr("census.time.sleep", lambda _: client.delete("elsewhere"))
    assert take(client).strays == set()


def test_every_constant_of_the_clockwork_is_still_there() -> None:
    """One that was renamed would run at its full length, and nothing would expire in a compressed day."""
    for name in CompressedDay(minutes=1).constants():
        module, _, constant = name.rpartition(".")
        assert hasattr(importlib.import_module(module), constant), name


@pytest.mark.parametrize("day", [CompressedDay(minutes=1, hours=8), CompressedDay(minutes=15), CompressedDay(1440)])
def test_the_settings_of_a_day_are_settings(day: CompressedDay, tmp_path: Path) -> None:
    """Also of one that is as long as a day; then nothing is shorter than in life but what is kept for days."""
    config = load_config(path=None, environ={}, cwd=tmp_path, overrides=day.settings())
    assert config.submit.horizon >= 3
    assert config.lane("bulk").max_count == 300
    assert day.minutes < 60 or (day.factor, config.lease, config.poll.interval) == (1, 60, 30)
