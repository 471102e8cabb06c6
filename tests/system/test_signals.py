import signal
import time
from functools import partial
from pathlib import Path

import pytest
from rig import Rig, Worker, deployment, params, wait_until

LIMIT = 15.0
"""`shutdown_timeout` of the rig, and a little for the end of a Python process on a busy machine."""
MARGIN = 8.0


def end_in_order(worker: Worker, *, within: float = LIMIT) -> None:
    """SIGTERM ends it with status 0 within `shutdown_timeout`, and without a complaint."""
    began = time.monotonic()
    assert worker.stop() == 0, worker.err[-2000:]
    assert time.monotonic() - began < within + MARGIN
    assert "Traceback" not in worker.err


def test_an_idle_worker_ends_in_order(rig: Rig) -> None:
    """SIGTERM and SIGINT end a worker that has nothing to do at once, with status 0."""
    for number in (signal.SIGTERM, signal.SIGINT):
        worker = rig.start()
        began = time.monotonic()
        worker.signal(number)
        assert worker.wait() == 0
        assert time.monotonic() - began < MARGIN
        assert "Traceback" not in worker.err


def test_a_worker_that_seals_hands_over(rig: Rig) -> None:
    """What is sealed stays sealed, what waits goes on waiting; the next worker finishes both."""
    names = rig.enqueue(2000)
    first = rig.start(lanes__default__max_count="50")
    wait_until(rig.created, description="the first of forty batches is there")
    end_in_order(first)
    assert len(rig.row_lines()) < 2000, "it was too fast for this test"
    rig.start()
    rig.await_rows(2000)
    rig.assert_exact(names)


def test_a_worker_that_uploads_gives_the_batch_back(rig: Rig) -> None:
    """A body that is not complete creates nothing: the socket is closed and the next worker sends it."""
    rig.inject("delay", on="create", early=True, seconds=60)
    rig.add({"params": params("x" * 1_000_000), "id": f"n{number}"} for number in range(40))
    first = rig.start(shutdown_timeout="5s")
    wait_until(lambda: rig.simulator.control.state()["attempts"], description="the upload has begun")
    end_in_order(first, within=5)
    assert rig.created() == []
    rig.start()
    rig.await_rows(40)
    rig.assert_exact(f"n{number}" for number in range(40))


def test_a_worker_that_waits_for_an_answer_takes_it_along(rig: Rig) -> None:
    """An answer that comes within `shutdown_timeout` is recorded: nothing is in doubt afterwards."""
    rig.inject("hold", on="create", seconds=3)
    names = rig.enqueue(20)
    first = rig.start()
    wait_until(rig.created, description="the batch is created, its answer is not")
    end_in_order(first)
    second = rig.start()
    rig.await_rows(20)
    rig.assert_exact(names)
    assert second.metric("batchmill_submissions_in_doubt_total") == 0
    assert len(rig.created()) == 1


def test_an_answer_that_takes_too_long_is_found_again(rig: Rig) -> None:
    """Beyond `shutdown_timeout` the batch stays in doubt; the next worker recognises it by its token."""
    rig.inject("hold", on="create", seconds=90)
    names = rig.enqueue(20)
    first = rig.start(shutdown_timeout="3s")
    wait_until(rig.created, description="the batch is created, its answer is not")
    end_in_order(first, within=3)
    second = rig.start()
    rig.await_rows(20)
    rig.assert_exact(names)
    assert second.metric("batchmill_submissions_in_doubt_total", resolution="adopted") == 1
    assert len(rig.created()) == 1


def test_batches_in_progress_need_no_worker(tmp_path: Path) -> None:
    """A worker that only waits for the API ends at once; the next one fetches the results."""
    with deployment(tmp_path, ends_after=2.0) as rig:
        names = rig.enqueue(100)
        first = rig.start()
        wait_until(
            lambda: first.status()["lanes"]["default"]["batches"]["in_progress"], description="a batch is in progress"
        )
        end_in_order(first, within=2)
        rig.start()
        rig.await_rows(100)
        rig.assert_exact(names)


def test_a_worker_that_drains_a_large_batch_stops_in_the_middle(tmp_path: Path) -> None:
    """Half a delivery is thrown away, never shown; the next worker reads the results again."""
    with deployment(tmp_path, answer_bytes=4000) as rig:
        names = rig.enqueue(20_000)
        first = rig.start(lanes__default__max_count="20000")
        wait_until(lambda: any(rig.directory.glob("results/default/.*")), description="a delivery is being written")
        end_in_order(first)
        assert rig.row_lines() == [], "it was too fast for this test"
        rig.start()
        rig.await_rows(20_000)
        rig.assert_exact(names)
        assert [file.name for file in rig.directory.glob("results/default/.*")] == []


def test_a_second_signal_ends_it_at_once(rig: Rig) -> None:
    """Whoever cannot wait says so twice, and nothing is lost or paid for twice by it."""
    rig.inject("hold", on="create", seconds=90)
    names = rig.enqueue(5)
    worker = rig.start(shutdown_timeout="60s")
    wait_until(rig.created, description="the worker waits for an answer")
    worker.signal(signal.SIGTERM)
    wait_until(lambda: worker.get("/readyz")[0] == 503, description="it is draining")
    began = time.monotonic()
    worker.signal(signal.SIGTERM)
    assert worker.wait() != 0
    assert time.monotonic() - began < MARGIN
    rig.start()
    rig.await_rows(5)
    rig.assert_exact(names)


def test_a_quiet_worker_seals_nothing_and_lives_on(rig: Rig) -> None:
    """SIGTSTP: no new work is taken, the process stays and still ends in order."""
    worker = rig.start()
    names = rig.enqueue(5, name="before")
    rig.await_rows(5)
    worker.signal(signal.SIGTSTP)
    wait_until(lambda: worker.get("/readyz")[0] == 503, description="it is quiet")
    names += rig.enqueue(5, name="after")
    age = partial(worker.metric, "batchmill_lane_oldest_prompt_age_seconds", lane="default")
    wait_until(lambda: age() > 2, description="the prompts have waited twenty times as long as max_age")
    assert worker.get("/livez")[0] == 200
    assert len(rig.created()) == 1
    end_in_order(worker, within=2)
    rig.start()
    rig.await_rows(10)
    rig.assert_exact(names)


def test_a_reload_takes_over_limits_and_the_log_level(rig: Rig, tmp_path: Path) -> None:
    """SIGHUP reads the file again: what waited for an hour goes now, and the log says less."""
    file = tmp_path / "settings.toml"
    file.write_text('[lanes.default]\nmax_age = "1h"\n[log]\nlevel = "info"\n')
    unset = {"BATCHMILL_LANES__DEFAULT__MAX_AGE": None, "BATCHMILL_LOG__LEVEL": None}
    worker = rig.start("--config", str(file), env=unset)
    names = rig.enqueue(5)
    wait_until(
        lambda: worker.metric("batchmill_lane_oldest_prompt_age_seconds", lane="default") > 1,
        description="the prompts wait",
    )
    assert rig.created() == []
    file.write_text('[lanes.default]\nmax_age = "100ms"\n[log]\nlevel = "error"\n')
    worker.signal(signal.SIGHUP)
    rig.await_rows(5)
    rig.assert_exact(names)
    assert "batch.sealed" not in worker.err
    file.write_text("nonsense = 1\n")
    worker.signal(signal.SIGHUP)
    wait_until(lambda: "nonsense" in worker.err, description="a bad file is told of")
    rig.enqueue(1, name="later")
    rig.await_rows(6)
    assert worker.alive


def test_a_reload_takes_over_the_requests_per_minute(rig: Rig, tmp_path: Path) -> None:
    """SIGHUP with a higher rate frees a worker that crawls."""
    file = tmp_path / "settings.toml"
    file.write_text("[anthropic]\nrequests_per_minute = 1\n")
    worker = rig.start("--config", str(file))
    rig.enqueue(5)
    wait_until(lambda: worker.metric("batchmill_api_requests_total") >= 1, description="the first request is spent")
    file.write_text("[anthropic]\nrequests_per_minute = 6000\n")
    worker.signal(signal.SIGHUP)
    rig.await_rows(5, timeout=40)


def await_stacks(worker: Worker, dumps: int) -> None:
    """Wait for so many dumps, or for the worker's end."""
    wait_until(
        lambda: worker.err.count("\nCurrent thread") >= dumps or not worker.alive,
        description="the main thread's stack, which comes last",
    )


def test_stacks_are_written_on_demand_however_busy_it_is(rig: Rig) -> None:
    """SIGUSR2 writes all threads' stacks to standard error and changes nothing else, again and again."""
    worker = rig.start(lanes__default__max_count="50")
    names = rig.enqueue(1500)
    for dumps in range(1, 16):
        worker.signal(signal.SIGUSR2)
        await_stacks(worker, dumps)
        assert worker.alive, worker.process.returncode
    assert worker.err.count("most recent call first") > 15 * 5
    rig.await_rows(1500)
    rig.assert_exact(names)


def test_a_worker_without_a_key_refuses_to_start(rig: Rig) -> None:
    """Status 78, and a hint where a key may come from."""
    worker = rig.spawn(env={"ANTHROPIC_API_KEY": None})
    assert worker.wait() == 78
    assert "ANTHROPIC_API_KEY" in worker.err


def test_a_worker_without_redis_refuses_to_start(rig: Rig) -> None:
    """Status 69: whoever started it may try again."""
    rig.server.stop()
    worker = rig.spawn()
    assert worker.wait() == 69
    assert "Redis" in worker.err
    assert "Traceback" not in worker.err


def test_every_problem_of_the_configuration_is_told_at_once(rig: Rig) -> None:
    """Status 78, and three lines for three mistakes."""
    worker = rig.spawn(lanes__default__max_count="many", poll__interval="soon", poll__intervall="1s")
    assert worker.wait() == 78
    for word in ("LANES__DEFAULT__MAX_COUNT", "POLL__INTERVAL ", "POLL__INTERVALL"):
        assert word in worker.err
    assert worker.err.count("batchmill: ") == 3


@pytest.mark.parametrize("flags", [["--roles", "cook"], ["--set", "nonsense"]])
def test_wrong_flags_are_told_before_anything_is_touched(rig: Rig, flags: list[str]) -> None:
    """Wrong usage is 2, a wrong setting 78."""
    worker = rig.spawn(*flags)
    assert worker.wait() == (2 if flags[0] == "--roles" else 78)
    assert flags[1] in worker.err or "roles are" in worker.err
