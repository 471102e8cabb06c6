"""A power cut in the middle of a script's writes: what Redis then does with the half must not reach any prompt."""

from pathlib import Path

import pytest
from bench import Bench, wait_until
from endings import ends_right, enqueue
from mortal import Mortal

from worker.simulator import Simulator

INTERRUPTED = b"*1\r\n$5\r\nMULTI\r\n"


def lose_the_end(directory: Path, behind: bytes) -> None:
    """Cut the append-only file in the middle of the transaction in which `behind` was written last."""
    file = max((directory / "appendonlydir").glob("*.incr.aof"))
    written = file.read_bytes()
    at = written.rindex(behind)
    assert INTERRUPTED in written[:at]
    assert written.index(b"EXEC", at) > at
    file.write_bytes(written[: at + len(behind) + 4])


def rewrites(bench: Bench) -> int:
    """Return how many seconds the last rewrite of the append-only file took; -1 as long as there was none."""
    return int(bench.redis.info("persistence")["aof_last_rewrite_time_sec"])


@pytest.fixture
def careful(tmp_path: Path, simulator: Simulator) -> Mortal:
    """A Redis with an append-only file."""
    return Mortal(tmp_path, simulator, appendonly=True)


def test_the_half_of_a_script_is_not_carried_out_at_a_later_start(careful: Mortal, tmp_path: Path) -> None:
    """A prompt whose enqueueing was cut off is enqueued again by its producer: the first half must not come back."""
    bench = careful.bench
    bench.start().close()
    wait_until(lambda: rewrites(bench) >= 0, description="the file of this life is a new one")
    add = bench.redis.register_script(
        'redis.call("XADD", KEYS[1], ARGV[1], "params", "[]", "id", "x") redis.call("SET", "mark", 1)'
    )
    names = enqueue(bench, 1)
    add(keys=["batchmill:{default}:prompts"], args=[f"{10**13}-0"])
    careful.dies_and_comes_back(meanwhile=lambda: lose_the_end(tmp_path, b"$2\r\n[]\r\n$2\r\nid\r\n$1\r\nx\r\n"))
    assert bench.redis.xlen("batchmill:{default}:prompts") == 1
    app = bench.start()
    wait_until(lambda: rewrites(bench) >= 0, description="the half is out of the file")
    ends_right(bench, app, names)
    app.close()
    careful.dies_and_comes_back()
    assert bench.redis.xlen("batchmill:{default}:prompts") == 0
    careful.end()


def test_a_life_of_redis_needs_one_rewrite(careful: Mortal) -> None:
    """Every start of a daemon would otherwise cost a copy of all that Redis holds."""
    bench = careful.bench
    app = bench.start()
    wait_until(lambda: rewrites(bench) >= 0, description="the file is rewritten")
    assert app.ledger.store.facts().rewritten
    before = bench.redis.info("stats")["total_forks"]
    bench.start()
    assert bench.redis.info("stats")["total_forks"] == before
    careful.end()
