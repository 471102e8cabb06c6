"""An exception that nobody foresaw, in each role: told with its place, and without what it met."""

import io
import json
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import redis
import structlog
from canaries import CONTENT, KEY, METADATA, PROMPT, seen_in
from dramatiq.errors import DecodeError
from security_rig import guarded_redis, params

from worker.actors import ROLE_OF, Knocks, Queue
from worker.broker import KnockBroker
from worker.client import Producer, RedisAccess
from worker.clock import Clock
from worker.core.model import Claim, State
from worker.ledger.store import LedgerFullError, LedgerRefusedError
from worker.loops import Loop
from worker.telemetry import Telemetry, configure_logging
from worker.telemetry.log import _CHATTY

CLAIM = Claim("default", "k7m2q9x4t8w1z3b5", "1", State.SEALED)
LOOPS = ("batcher", "ticker", "rescuer", "sink-checks")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """The whole process' log at DEBUG, with the key known as a secret."""
    root = logging.getLogger()
    handlers, level, show = root.handlers[:], root.level, warnings.showwarning
    written = io.StringIO()
    configure_logging(format="json", level="debug", stream=written, secrets=[KEY])
    yield written
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.NOTSET)
    logging.captureWarnings(capture=False)
    warnings.showwarning = show
    structlog.reset_defaults()


def _fail(error: Callable[[], BaseException]) -> None:
    """Raise in a frame whose variables hold everything."""
    prompt = {"params": PROMPT, "metadata": METADATA, "key": KEY}
    try:
        json.loads(f"{prompt}")
    except ValueError as cause:
        raise error() from cause


def noted() -> BaseException:
    """An exception with a note, which Python prints behind its message."""
    error = OSError(2, "No such file")
    error.add_note(PROMPT)
    return error


def named() -> BaseException:
    """An exception of a class that was made of data."""
    made: type[Exception] = type("Odd", (Exception,), {"__str__": lambda _: f"{PROMPT} {KEY}"})
    return made()


ERRORS: dict[str, Callable[[], BaseException]] = {
    "a key": lambda: KeyError(PROMPT),
    "a value": lambda: ValueError(f"invalid literal: {METADATA}"),
    "bytes": lambda: UnicodeDecodeError("utf-8", PROMPT.encode() + b"\xff", 20, 21, PROMPT),
    "a runtime error": lambda: RuntimeError(PROMPT, {"x": METADATA}),
    "a note": noted,
    "a group": lambda: ExceptionGroup(PROMPT, [ValueError(METADATA), KeyError(PROMPT)]),
    "an odd one": named,
    "a knock that is none": lambda: DecodeError(f"failed to decode {PROMPT!r}", PROMPT.encode(), ValueError(PROMPT)),  # type: ignore[no-untyped-call]
    "the HTTP library's": lambda: OSError(5, f"header 'Bearer {KEY}'"),
    "one of a pipeline": lambda: redis.ResponseError(
        f"Command # 1 (XADD x * params {PROMPT}) of pipeline caused error: no"
    ),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("role", [*LOOPS, *ROLE_OF.values()])
def test_an_unforeseen_exception_is_told_without_what_it_met(
    role: str, error: Callable[[], BaseException], log: io.StringIO
) -> None:
    """Where and of what kind, in the log and in the metrics; the chain, notes and variables are not quoted."""
    telemetry = Telemetry(version="1")
    if role in LOOPS:
        loop = Loop(name=role, step=lambda: _raise(error), clock=Clock(), telemetry=telemetry, stop=threading.Event())
        loop._turn()
    else:
        broker = KnockBroker(url="redis://127.0.0.1:1/0", prefix="b:")
        queue = next(queue for queue, name in ROLE_OF.items() if name == role)
        steps: dict[Queue, Any] = {queue: lambda _: _raise(error)}
        knocks = Knocks(broker=broker, steps=steps, telemetry=telemetry)
        knocks._follow(queue, steps[queue], [CLAIM])
        broker.close()
    told = log.getvalue()
    assert seen_in([told]) == set()
    assert '"event":"role.failed"' in told
    assert f'"role":"{role}"' in told
    assert "test_exceptions.py" in told
    assert all(json.loads(line) for line in told.splitlines())


def _raise(error: Callable[[], BaseException]) -> float:
    _fail(error)
    return 0.0


def test_a_thread_that_dies_outside_of_any_step_is_told_the_same(log: io.StringIO) -> None:
    """Dramatiq's own lines take the same way."""
    try:
        _fail(ERRORS["a knock that is none"])
    except DecodeError:
        logging.getLogger("dramatiq.worker").critical("Consumer encountered an unexpected error.", exc_info=True)
    assert "Consumer encountered" in log.getvalue()
    assert seen_in([log.getvalue()]) == set()


@pytest.mark.parametrize("broken", ["a full Redis", "a stranger's key", "no right"])
def test_a_producers_exceptions_quote_no_prompt(tmp_path: Any, broken: str) -> None:
    """Neither they nor what led to them: their own log is not ours to redact."""
    acl = "user mill on >mill-pass ~* &* +@all\n"
    with guarded_redis(tmp_path / "redis", acl=acl) as server:
        if broken == "a full Redis":
            server.admin.config_set("maxmemory", 1)
        elif broken == "no right":
            server.admin.execute_command("ACL", "SETUSER", "mill", "-xadd")
        else:
            server.admin.set("batchmill:{default}:prompts", PROMPT)
        with (
            Producer(server.url, access=RedisAccess("mill", "mill-pass")) as producer,
            pytest.raises((LedgerFullError, LedgerRefusedError)) as caught,
        ):
            producer.enqueue(params(PROMPT), id=PROMPT, metadata=METADATA)
        assert seen_in(_chain(caught.value)) == set()


def test_a_prompt_that_cannot_be_used_is_not_quoted_to_its_producer() -> None:
    """The exception says what is wrong; its owner knows what it wrote."""
    wrong: Sequence[dict[str, Any]] = (
        {"params": PROMPT},
        {"params": {"messages": [PROMPT]}},
        {"params": json.loads(params(PROMPT)) | {"stream": True}},
        {"params": params(PROMPT), "id": PROMPT * 99},
        {"params": params(PROMPT), "metadata": {PROMPT: {1, 2}}},
        {"params": params(PROMPT), "metadata": METADATA.encode()},
        {"params": params(PROMPT), "deadline": METADATA},
        {"params": params(PROMPT), "reply_to": f"{METADATA} /"},
    )
    with Producer("redis://127.0.0.1:1/0") as producer:
        for prompt in wrong:
            with pytest.raises(ValueError) as caught:  # noqa: PT011 - whatever it says
                producer.enqueue(**prompt)
            assert seen_in(_chain(caught.value)) & set(CONTENT) == set(), prompt


def _chain(error: BaseException | None) -> Iterator[str]:
    """Yield what a traceback would print of an exception and of what led to it."""
    while error is not None:
        yield f"{error!r} {error}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_a_refusal_of_redis_keeps_its_words_to_itself(tmp_path: Any) -> None:
    """Its text may quote the command: ours names the kind."""
    with guarded_redis(tmp_path / "redis", acl="user mill on >mill-pass ~* &* +@all\n") as server:
        server.admin.set("batchmill:{default}:prompts", "x")
        access = RedisAccess("mill", "mill-pass")
        with Producer(server.url, access=access) as producer, pytest.raises(LedgerRefusedError) as caught:
            producer.enqueue(params())
        assert caught.value.__cause__ is None
