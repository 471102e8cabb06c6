import json
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from fuzzing import chance, many
from hostile_entries import PARAMS
from hostile_results import believe, cut, line, spelled, spoil
from mill import Mill

from worker import drainer
from worker.batches_api import Truncated
from worker.batches_api.lines import split_lines
from worker.core.model import State
from worker.core.rulings import UnreadableLineError, read_line
from worker.readings import MOST_MODELS
from worker.simulator import Simulator

PER_BATCH = 25
Rewrite = Callable[[list[bytes]], bytes]


def rewrite_results(mill: Mill, luck: random.Random, rewrite: Rewrite) -> None:
    """Give the daemon other results than the API's, in pieces."""
    assert mill.app.api is not None
    results: Callable[[str], AbstractContextManager[Iterator[bytes]]] = mill.app.api.results

    @contextmanager
    def rewritten(remote_id: str) -> Iterator[Iterator[bytes]]:
        with results(remote_id) as lines:
            stream = rewrite(list(lines))
        yield split_lines(cut(luck, stream))

    mill.app.api.results = rewritten  # type: ignore[method-assign]


def test_thousands_of_streams_are_believed_as_by_others() -> None:
    """The same, quickly: line by line, without a ledger."""
    luck = chance()
    names = {f"pbvrrv_4bgpw4vxmdz6hdtz_01_1795621797017-{number}" for number in range(PER_BATCH)}
    good = [line(name, b'{"type":"succeeded","message":{"model":"m","usage":{"input_tokens":1}}}') for name in names]
    believed = 0
    for _ in range(many(5000) // PER_BATCH * 5):
        stream = spoil(luck, good)
        expected = believe(stream, names)
        found = read_stream(cut(luck, stream), names)
        assert (found is None) == (expected is None), stream
        believed += found is not None
    assert believed


def read_stream(pieces: Iterable[bytes], names: set[str]) -> set[str] | None:
    """Return the names of the lines in a stream, None where batchmill would not believe it."""
    try:
        found = {read_line(raw).custom_id for raw in split_lines(pieces)}
    except (Truncated, UnreadableLineError):
        return None
    return found if names <= found else None


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_only_whole_results_are_delivered_and_each_as_it_came(
    connect: Callable[..., Mill], simulator: Simulator
) -> None:
    """A reading is believed where others would believe it, and a prompt's row is then its first line, as it came."""
    luck = chance()
    mill = connect(simulator.url, lanes__default__max_attempts="1")
    streams: list[bytes] = []
    left = 0

    def rewrite(lines: list[bytes]) -> bytes:
        nonlocal left
        left -= 1
        streams.append(spoil(luck, lines) if left >= 0 else b"\n".join(lines))
        return streams[-1]

    rewrite_results(mill, luck, rewrite)
    rounds, readings = many(2500) // PER_BATCH, 0
    for _ in range(rounds):
        streams.clear()
        left = luck.choice((1, 1, 2, 4))
        mill.add([[(b"params", PARAMS)]] * PER_BATCH)
        mill.drive(mill.idle)
        results = take_results(mill)
        assert len(results) == PER_BATCH
        verdicts = [believe(stream, set(results)) for stream in streams]
        assert [verdict for verdict in verdicts[:-1] if verdict is not None] == []
        assert verdicts[-1] == results
        readings += len(streams)
    assert simulator.control.ledger()["prompts_billed_twice"] == 0
    assert readings > rounds * 1.3, "a run in which nearly all is believed proves nothing"
    assert len(mill.dead()) > 0
    print(f"{rounds} batches of {PER_BATCH}, {readings} readings")


def take_results(mill: Mill) -> dict[str, bytes]:
    """Return the results in the only result file, by custom_id, and remove it."""
    (file,) = (mill.directory / "results").rglob("*.jsonl")
    rows = [json.loads(row, parse_int=str, parse_float=str) for row in file.read_bytes().splitlines()]
    file.unlink()
    assert len({row["custom_id"] for row in rows}) == len(rows)
    return {row["custom_id"]: spelled(row["result"]) for row in rows}


@pytest.mark.parametrize(
    ("rewrite", "reason"),
    [
        (lambda lines: b"\n".join([*lines[:-1], lines[-1][:-9]]) + b"\n", "garbled line"),
        (lambda lines: b"\n".join([*lines[:-1], lines[-1].replace(b"claude", b"\xff")]) + b"\n", "garbled line"),
        (lambda lines: b"\n".join(lines)[:-1], "within a line"),
        (lambda lines: b"\n".join([*lines, *[line("x", b"{}")] * 1010]), "lines without end"),
        (lambda lines: b"\n".join([*lines, *[lines[0]] * 1010]), "lines without end"),
        (lambda lines: b"\n" * 100_002 + b"\n".join(lines), "blank lines without end"),
    ],
)
def test_results_that_never_get_right_are_for_a_human(
    connect: Callable[..., Mill],
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    *,
    rewrite: Rewrite,
    reason: str,
) -> None:
    """They are read some times more, and nothing of them shows; read for ever, the batch would be lost in silence."""
    monkeypatch.setattr(drainer, "PATIENCE", 3)
    mill = connect(simulator.url)
    rewrite_results(mill, chance(), rewrite)
    mill.add([[(b"params", PARAMS)]] * 3)
    mill.drive(lambda: any(batch.state is State.HELD for batch in mill.batches()))
    (batch,) = mill.batches()
    assert reason in str(batch.reason)
    assert mill.lines() == []
    assert len(mill.bodies) == 1


def test_a_line_about_a_prompt_that_never_was_stands_in_for_none(
    connect: Callable[..., Mill], simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its id lies within the range and is no entry's: with it the count is right, and a prompt would be lost."""
    monkeypatch.setattr(drainer, "PATIENCE", 3)
    mill = connect(simulator.url, lanes__default__max_age="1h")
    for entry_id in ("1000-0", "1000-5", "1000-9"):
        mill.redis.execute_command("XADD", "batchmill:{default}:prompts", entry_id, "params", PARAMS)
    mill.app.ledger.deployment.register_lanes(["default"])
    rewrite_results(mill, chance(), lambda lines: b"\n".join(lines).replace(b"_1000-5", b"_1000-7"))
    mill.drive(lambda: any(batch.state is State.HELD for batch in mill.batches()))
    assert mill.lines() == []
    assert mill.app.ledger.lanes.length("default") == 3


def test_the_result_of_an_entry_that_somebody_deleted_is_delivered(
    connect: Callable[..., Mill], simulator: Simulator
) -> None:
    """It was paid for; what the entry said beside its params is lost, not the answer."""
    mill = connect(simulator.url)

    def rewrite(lines: list[bytes]) -> bytes:
        mill.redis.xdel("batchmill:{default}:prompts", ids[1])
        return b"\n".join(lines)

    rewrite_results(mill, chance(), rewrite)
    ids = mill.add([[(b"params", PARAMS), (b"id", b"mine")]] * 3)
    mill.drive(mill.idle)
    assert sorted(row["id"] for row in mill.rows()) == [ids[1], "mine", "mine"]


def test_results_that_get_right_in_time_are_delivered(connect: Callable[..., Mill], simulator: Simulator) -> None:
    """However a reading ended, the next one starts afresh."""
    mill = connect(simulator.url)
    endings = iter([b"{", b"\xff\n", b"", b"\n" * 100_002])
    rewrite_results(mill, chance(), lambda lines: next(endings, b"\n".join(lines)))
    mill.add([[(b"params", PARAMS)]] * 3)
    mill.drive(mill.idle)
    assert len(mill.rows()) == 3


def test_tokens_and_models_of_a_mad_api_are_counted_within_reason(
    connect: Callable[..., Mill], simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No number stops the telling of a settled batch, and no flood of names fills the memory."""
    mill = connect(simulator.url)
    names = [f"model-{number}" for number in range(200)] + ["m" * 5000]

    def rewrite(lines: list[bytes]) -> bytes:
        usage = ["-1", "1e3", "9" * 4000, "9007199254740992", *["1"] * len(names)]
        models = ["claude-haiku-4-5"] * 4 + names
        return b"\n".join(
            line(
                json.loads(raw)["custom_id"],
                b'{"type":"succeeded","message":{"model":"%b","usage":{"input_tokens":%b}}}'
                % (model.encode(), count.encode()),
            )
            for raw, model, count in zip(lines, models, usage, strict=True)
        )

    rewrite_results(mill, chance(), rewrite)
    told: list[str] = []
    usage = mill.app.telemetry.usage

    def listen(lane: str, model: str, **counts: Any) -> None:
        told.append(model)
        usage(lane, model, **counts)

    monkeypatch.setattr(mill.app.telemetry, "usage", listen)
    mill.add([[(b"params", PARAMS)]] * (4 + len(names)))
    mill.drive(mill.idle)
    assert mill.metric("batchmill_prompts_settled_total", lane="default", result="succeeded") == 4 + len(names)
    tokens = {"lane": "default", "kind": "input"}
    assert mill.metric("batchmill_tokens_total", model="claude-haiku-4-5", **tokens) == 2**53
    assert mill.metric("batchmill_tokens_total", model="other", **tokens) > 100
    assert len(told) <= MOST_MODELS + 1
