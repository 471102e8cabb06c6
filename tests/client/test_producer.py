import datetime as dt
import math
from typing import Any

import pytest
from client_rig import PARAMS

from worker.client import Fate, Outcome, Producer, QueueFull, Summary
from worker.client import producer as module
from worker.clock import Clock
from worker.config.model import NAME
from worker.core.names import LANE_NAME

STREAM = "batchmill:{default}:prompts"


class StandingClock(Clock):
    """Time that passes only by sleeping, and what was done meanwhile."""

    def __init__(self, while_asleep: Any = None) -> None:
        self.seconds = 1000.0
        self.sleeps = 0
        self._while_asleep = while_asleep

    def monotonic(self) -> float:
        """Return the time."""
        return self.seconds

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds
        self.sleeps += 1
        if self._while_asleep:
            self._while_asleep(self.sleeps)


def test_a_prompt_arrives_with_all_its_fields(producer: Producer, redis: Any) -> None:
    """What the contract names is in the stream entry, JSON where it says JSON, and the lane is registered."""
    entry_id = producer.enqueue(
        PARAMS, "order-42", {"a": "ü"}, deadline=1_800_000_000.5, reply_to="svc", traceparent="00-ab"
    )
    [(found_id, fields)] = redis.xrange(STREAM)
    assert found_id.decode() == entry_id
    assert fields[b"id"] == b"order-42"
    assert fields[b"params"].startswith(b'{"model":"claude-haiku-4-5",')
    assert fields[b"metadata"] == '{"a":"ü"}'.encode()
    assert fields[b"deadline"] == b"1800000000.500"
    assert (fields[b"reply_to"], fields[b"traceparent"]) == (b"svc", b"00-ab")
    assert redis.smembers("batchmill:lanes") == {b"default"}


def test_json_text_goes_in_byte_for_byte(producer: Producer, redis: Any) -> None:
    """Params and metadata that are JSON already are not written anew."""
    text = b'{ "model":"m", "max_tokens" : 1, "messages":[1e2]}'
    producer.enqueue(text, metadata=b"[1.0]")
    producer.enqueue(text.decode())
    assert [fields[b"params"] for _, fields in redis.xrange(STREAM)] == [text, text]
    assert redis.xrange(STREAM)[0][1][b"metadata"] == b"[1.0]"


def test_an_id_goes_in_once(producer: Producer, redis: Any) -> None:
    """The second call answers with the first entry; without ids two calls are two prompts."""
    assert producer.enqueue(PARAMS, "a") == producer.enqueue(PARAMS, "a")
    assert producer.enqueue(PARAMS) != producer.enqueue(PARAMS)
    assert redis.xlen(STREAM) == 3


def test_lanes_and_prefixes_keep_apart(server: str, redis: Any) -> None:
    """A producer fills its own lane below its own prefix."""
    with Producer(server, "bulk", prefix="other:") as producer:
        producer.enqueue(PARAMS, "a")
    assert redis.xlen("other:{bulk}:prompts") == 1
    assert redis.smembers("other:lanes") == {b"bulk"}


@pytest.mark.parametrize("name", ["", "Bulk", "-a", "a b", "a" * 64, "ü", "a\n"])
def test_an_impossible_lane_is_refused_at_once(name: str) -> None:
    """Nobody finds out from a stream that no batcher reads."""
    with pytest.raises(ValueError, match="not the name of a lane"):
        Producer("redis://127.0.0.1:1/0", name)


def test_producers_and_settings_agree_on_names() -> None:
    """A lane that can be configured can be enqueued into, and the other way round."""
    assert LANE_NAME == NAME


UNUSABLE: list[tuple[dict[str, Any], str]] = [
    ({"params": {"max_tokens": 1, "messages": []}}, "no model"),
    ({"params": PARAMS | {"stream": True}}, "stream"),
    ({"params": PARAMS | {"temperature": math.nan}}, "params cannot be written as JSON"),
    ({"params": PARAMS | {"system": "\ud800"}}, "half a surrogate"),
    ({"params": PARAMS | {"system": dt.UTC}}, "params cannot be written as JSON: TypeError"),
    ({"params": "nope"}, "not valid JSON"),
    ({"params": b"\xff"}, "not"),
    ({"params": [1]}, "not a JSON object"),
    ({"params": PARAMS, "id": ""}, "id is not 1-256 bytes"),
    ({"params": PARAMS, "id": "x" * 257}, "id is not 1-256 bytes"),
    ({"params": PARAMS, "id": 7}, "id is not a string"),
    ({"params": PARAMS, "metadata": "x" * 65_536}, "metadata"),
    ({"params": PARAMS, "metadata": b"{"}, "metadata"),
    ({"params": PARAMS, "deadline": math.inf}, "deadline"),
    ({"params": PARAMS, "deadline": 10**400}, "deadline"),
    ({"params": PARAMS, "deadline": "tomorrow"}, "deadline is not a Unix time"),
    ({"params": PARAMS, "deadline": True}, "deadline"),
    ({"params": PARAMS, "reply_to": "a b"}, "reply_to"),
    ({"params": PARAMS, "traceparent": "ü"}, "traceparent"),
]


@pytest.mark.parametrize(("prompt", "reason"), UNUSABLE)
def test_what_could_never_be_used_is_refused_here(
    producer: Producer, redis: Any, prompt: dict[str, Any], reason: str
) -> None:
    """The producer hears at once and in words what the daemon would bury, and nothing is sent."""
    with pytest.raises(ValueError, match=reason):
        producer.enqueue(**prompt)
    assert producer.enqueue_many([prompt]) == Summary(refused=1)
    assert redis.xlen(STREAM) == 0


def test_one_bad_prompt_of_many_costs_no_other(producer: Producer, redis: Any) -> None:
    """Every prompt has its own fate, told in order; whatever is given, the rest goes in."""
    told: list[Outcome] = []
    prompts: list[Any] = [
        {"params": PARAMS, "id": "a"},
        (PARAMS, "b", {"n": 1}),
        {"params": PARAMS, "id": "a"},
        {"params": {}},
        {"params": PARAMS, "metdata": 1},
        {},
        "a string",
        (PARAMS,) * 7,
        [PARAMS],
    ]
    summary = producer.enqueue_many(prompts, tell=told.append)
    assert summary == Summary(enqueued=3, duplicate=1, refused=5)
    assert [outcome.position for outcome in told] == list(range(9))
    assert [outcome.fate for outcome in told][:4] == [Fate.ENQUEUED, Fate.ENQUEUED, Fate.DUPLICATE, Fate.REFUSED]
    assert told[0].entry_id == told[2].entry_id
    assert "'metdata'" in told[4].reason
    assert redis.xlen(STREAM) == 3


def test_many_are_sent_in_few_round_trips_and_never_all_held(producer: Producer, redis: Any) -> None:
    """A thousand prompts need a handful of pipelines, and the first is in before the last is made."""
    before = int(redis.info("stats")["total_reads_processed"])
    seen = []

    def prompts() -> Any:
        for number in range(1000):
            seen.append(redis.xlen(STREAM) if number % 300 == 299 else None)
            yield {"params": PARAMS}

    assert producer.enqueue_many(prompts()).enqueued == 1000
    assert int(redis.info("stats")["total_reads_processed"]) - before < 60
    assert [n for n in seen if n is not None] == [200, 400, 800]


def test_large_prompts_make_small_pipelines(producer: Producer, redis: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline ends at so many bytes too: prompts of a megabyte are not held by hundreds."""
    monkeypatch.setattr(module, "CHUNK_BYTES", 1000)
    lengths = []

    def prompts() -> Any:
        for _ in range(3):
            lengths.append(redis.xlen(STREAM))
            yield {"params": PARAMS | {"system": "x" * 2000}}

    producer.enqueue_many(prompts())
    assert lengths == [0, 1, 2]


def test_a_full_intake_is_told_and_ends_by_itself(server: str, redis: Any) -> None:
    """Above the limit that the daemons have left in Redis nothing goes in; the limit is read anew now and then."""
    redis.hset("batchmill:deployment", mapping={"intake_max_bytes": "1000", "dedupe_ttl": "60"})
    clock = StandingClock()
    with Producer(server, clock=clock) as producer:
        producer.enqueue(PARAMS | {"system": "x" * 2000}, "a")
        assert 0 < redis.ttl("batchmill:{default}:id:a") <= 60
        with pytest.raises(QueueFull):
            producer.enqueue(PARAMS, "b")
        redis.hset("batchmill:deployment", mapping={"intake_max_bytes": "100000"})
        with pytest.raises(QueueFull):
            producer.enqueue(PARAMS, "b")
        clock.seconds += module.REFRESH_SECONDS
        assert producer.enqueue(PARAMS, "b")
    assert redis.xlen(STREAM) == 2


def test_many_stop_where_the_intake_is_full(server: str, redis: Any) -> None:
    """The error counts what went in; what comes behind is not even read."""
    redis.hset("batchmill:deployment", mapping={"intake_max_bytes": "20000"})
    prompts = iter([{"params": PARAMS | {"system": "x" * 1000}}] * 1000)
    with Producer(server) as producer, pytest.raises(QueueFull) as caught:
        producer.enqueue_many(prompts)
    assert caught.value.summary.enqueued == redis.xlen(STREAM)
    assert caught.value.summary.full == 200 - redis.xlen(STREAM)
    assert len(list(prompts)) == 800


def test_patience_waits_for_room(server: str, redis: Any) -> None:
    """What found no room is tried again until it is in, and nothing goes in twice."""
    redis.hset("batchmill:deployment", mapping={"intake_max_bytes": "20000"})
    clock = StandingClock(lambda _: redis.xtrim(STREAM, maxlen=0, approximate=False))
    prompts = [{"params": PARAMS | {"system": "x" * 1000}, "id": str(n)} for n in range(100)]
    with Producer(server, clock=clock) as producer:
        assert producer.enqueue_many(prompts, patience=math.inf) == Summary(enqueued=100)
    assert redis.xinfo_stream(STREAM)["entries-added"] == 100
    assert clock.sleeps > 2


def test_patience_ends(server: str, redis: Any) -> None:
    """With nothing done for so long it gives up."""
    redis.hset("batchmill:deployment", mapping={"intake_max_bytes": "1"})
    redis.xadd(STREAM, {"params": "x"})
    clock = StandingClock()
    with Producer(server, clock=clock) as producer, pytest.raises(QueueFull):
        producer.enqueue_many([{"params": PARAMS}], patience=5)
    assert 5 <= clock.seconds - 1000 < 7


def test_redis_at_maxmemory_is_a_full_queue(producer: Producer, redis: Any) -> None:
    """Redis' own refusal is told by the same name, for one and for many, and nothing of it is in."""
    producer.enqueue(PARAMS)
    redis.config_set("maxmemory", 1)
    with pytest.raises(QueueFull):
        producer.enqueue(PARAMS, "a")
    with pytest.raises(QueueFull) as caught:
        producer.enqueue_many([{"params": PARAMS}] * 3)
    assert caught.value.summary == Summary(full=3)
    redis.config_set("maxmemory", 0)
    assert redis.xlen(STREAM) == 1
