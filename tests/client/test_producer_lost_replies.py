import subprocess
import sys
from typing import Any

import pytest
from client_rig import PARAMS, Wire

from worker.client import Producer, Summary, Unreachable
from worker.client import producer as module
from worker.ledger.store import LedgerRefusedError

STREAM = "batchmill:{default}:prompts"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of milliseconds."""
    monkeypatch.setattr(module, "PAUSES", (0.001, 0.001))


def test_a_lost_reply_to_a_prompt_with_an_id_is_asked_for_again(wire: Wire, redis: Any) -> None:
    """The producer notices nothing, and the prompt is in once."""
    with Producer(wire.url) as producer:
        producer.enqueue(PARAMS, "warm-up")
        wire.lose = 2
        entry_id = producer.enqueue(PARAMS, "a")
    assert wire.lost == 2
    assert [found.decode() for found, _ in redis.xrange(STREAM)][1:] == [entry_id]


def test_a_lost_reply_to_a_prompt_without_an_id_is_the_producers_to_judge(wire: Wire, redis: Any) -> None:
    """Nothing is sent a second time: the error says that the prompt may be in, and here it is."""
    with Producer(wire.url) as producer:
        producer.enqueue(PARAMS, "warm-up")
        wire.lose = 1
        with pytest.raises(Unreachable) as caught:
            producer.enqueue(PARAMS)
        assert caught.value.in_doubt
    assert redis.xlen(STREAM) == 2


def test_the_very_first_call_is_no_exception(wire: Wire, redis: Any) -> None:
    """Also while the script is not loaded yet, a prompt without an id is never in twice."""
    wire.trigger, wire.lose = b"params", 1  # not the lane's registration, which goes first and may be repeated
    with Producer(wire.url) as producer, pytest.raises(Unreachable):
        producer.enqueue(PARAMS)
    assert redis.xlen(STREAM) <= 1


def test_of_many_only_those_with_an_id_are_repeated(wire: Wire, redis: Any) -> None:
    """After a lost reply to a pipeline the named are in once, the nameless at most once and told as in doubt."""
    prompts: list[dict[str, Any]] = [
        {"params": PARAMS, "id": "a"},
        {"params": PARAMS},
        {"params": PARAMS, "id": "b"},
        {"params": PARAMS},
    ]
    with Producer(wire.url) as producer:
        producer.enqueue(PARAMS, "warm-up")
        wire.lose = 1
        with pytest.raises(Unreachable) as caught:
            producer.enqueue_many(prompts)
    summary = caught.value.summary
    assert (summary.in_doubt, summary.enqueued + summary.duplicate) == (2, 2)
    names = [fields.get(b"id") for _, fields in redis.xrange(STREAM)]
    assert names.count(b"a") == names.count(b"b") == 1
    assert names.count(None) <= 2


def test_many_with_ids_survive_lost_replies(wire: Wire, redis: Any) -> None:
    """A file whose prompts all have ids goes in as if nothing had happened."""
    with Producer(wire.url) as producer:
        wire.lose = 2
        summary = producer.enqueue_many({"params": PARAMS, "id": str(number)} for number in range(500))
    assert wire.lost == 2
    assert (summary.enqueued + summary.duplicate, summary.in_doubt) == (500, 0)
    assert redis.xlen(STREAM) == 500


def test_a_redis_that_stays_away_is_told(wire: Wire) -> None:
    """After the repeats the error says that the prompt may be in."""
    with Producer(wire.url) as producer:
        wire.trigger, wire.lose = b"params", 3
        with pytest.raises(Unreachable) as caught:
            producer.enqueue(PARAMS, "a")
    assert caught.value.in_doubt


def test_a_redis_that_stays_away_before_the_prompt_was_sent_leaves_no_doubt(wire: Wire, redis: Any) -> None:
    """The lane is registered first; where that gets no answer the prompt is still the producer's."""
    with Producer(wire.url) as producer:
        wire.trigger, wire.lose = b"batchmill:lanes", 3
        with pytest.raises(Unreachable) as caught:
            producer.enqueue(PARAMS, "a")
    assert not caught.value.in_doubt
    assert redis.xlen(STREAM) == 0


def test_a_redis_that_was_never_there_leaves_no_doubt() -> None:
    """Nothing was sent, and the error says so; it does not show the password."""
    with Producer("redis://user:hunter2@127.0.0.1:1/0") as producer:
        for call in (lambda: producer.enqueue(PARAMS), lambda: producer.enqueue_many([{"params": PARAMS}])):
            with pytest.raises(Unreachable) as caught:
                call()
            assert not caught.value.in_doubt
            assert caught.value.summary == Summary()
            assert "hunter2" not in str(caught.value)


def test_a_server_that_forgot_the_script_is_reminded(wire: Wire, redis: Any) -> None:
    """A restart forgets scripts; the same producer goes on."""
    with Producer(wire.url) as producer:
        producer.enqueue(PARAMS)
        redis.script_flush()
        producer.enqueue(PARAMS)
        redis.script_flush()
        assert producer.enqueue_many([{"params": PARAMS}] * 3).enqueued == 3
    assert redis.xlen(STREAM) == 5


def test_a_key_of_another_type_is_refused_not_in_doubt(wire: Wire, redis: Any) -> None:
    """What Redis refuses for good is told as that."""
    redis.set(STREAM, "x")
    with Producer(wire.url) as producer, pytest.raises(LedgerRefusedError):
        producer.enqueue(PARAMS)


def test_a_producer_costs_neither_the_sdk_nor_dramatiq() -> None:
    """Whoever only enqueues does not load what only a daemon needs."""
    code = "import sys, worker.client; print(*{name.partition('.')[0] for name in sys.modules})"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"anthropic", "httpx2", "dramatiq", "rich", "structlog", "prometheus_client", "pydantic"}
    assert {"worker", "redis"} <= set(told)
    assert not heavy & set(told)
    code = "import sys, worker.client; print(*(name for name in sys.modules if name.startswith('worker.')))"
    ours = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {name for name in ours if name.startswith(("worker.config", "worker.sinks", "worker.telemetry"))}
