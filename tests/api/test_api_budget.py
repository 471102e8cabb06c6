import threading
from collections.abc import Callable

import pytest
from api_fakes import FakeClock, Heard
from scripted_server import Server, answers, batch, failure

from worker.batches_api import BatchesApi, Unavailable
from worker.batches_api.budget import Budget
from worker.batches_api.wire import Allowance, Answer


@pytest.fixture
def budget(clock: FakeClock, heard: Heard) -> Budget:
    """Allow one request a second, ten at once."""
    return Budget(requests_per_minute=60, clock=clock, waited=heard.waits.append)


def test_a_burst_is_free_and_then_the_rate_holds(budget: Budget, clock: FakeClock, heard: Heard) -> None:
    """Ten seconds' worth at once, from then on one a second."""
    for _ in range(10):
        budget.take()
    assert heard.waits == []
    for _ in range(60):
        budget.take()
    assert clock.at == pytest.approx(1060, abs=0.2)
    assert sum(heard.waits) == pytest.approx(60, abs=0.2)


def test_time_saves_up_no_more_than_a_burst(budget: Budget, clock: FakeClock, heard: Heard) -> None:
    """An hour of silence does not allow an hour's worth of requests at once."""
    clock.at += 3600
    for _ in range(10):
        budget.take()
    assert heard.waits == []
    budget.take()
    assert len(heard.waits) == 1


def test_a_pause_stops_everybody_and_forfeits_what_was_saved(budget: Budget, clock: FakeClock) -> None:
    """When the account is out of requests, tokens of ours are worth nothing."""
    budget.pause(30)
    budget.take()
    assert clock.at == pytest.approx(1031, abs=0.1)


def test_a_pause_is_a_minute_at_most_and_never_shortens_another(budget: Budget, clock: FakeClock) -> None:
    """A wild retry-after must not stop polling for an hour."""
    budget.pause(86_400)
    budget.pause(1)
    budget.take()
    assert clock.at == pytest.approx(1061, abs=0.1)


def test_an_account_that_others_use_up_is_left_alone_until_it_is_full_again(budget: Budget, clock: FakeClock) -> None:
    """The API's own count wins over ours when it is nothing; anything left changes nothing."""
    budget.heed(Allowance(1000, 1, 30))
    budget.take()
    assert clock.at == pytest.approx(1000)
    budget.heed(Allowance(1000, 0, 30))
    budget.take()
    assert clock.at == pytest.approx(1031, abs=0.1)
    assert budget.allowance == Allowance(1000, 0, 30)


def test_what_is_left_is_read_from_the_headers_by_the_clock_of_the_api() -> None:
    """Our own clock may be wrong by hours; headers that make no sense say nothing."""
    stem = "anthropic-ratelimit-requests-"
    headers = {
        "date": "Sun, 22 Nov 2026 10:00:00 GMT",
        stem + "limit": "1000",
        stem + "remaining": "0",
        stem + "reset": "2026-11-22T10:00:20Z",
    }
    assert Answer(200, headers, b"").allowance == Allowance(1000, 0, 20.0)
    assert Answer(200, headers | {stem + "reset": "soon"}, b"").allowance is None
    assert Answer(200, {}, b"").allowance is None


def test_the_rate_can_be_changed_while_it_runs(budget: Budget, clock: FakeClock) -> None:
    """A reload takes effect with the next request."""
    for _ in range(10):
        budget.take()
    budget.set_requests_per_minute(6)
    budget.take()
    assert clock.at == pytest.approx(1010, abs=0.1)
    with pytest.raises(ValueError, match="at least 1"):
        budget.set_requests_per_minute(0)


def test_a_rate_below_one_a_burst_still_lets_one_through(clock: FakeClock, heard: Heard) -> None:
    """One request a minute is one at once, then one a minute."""
    slow = Budget(requests_per_minute=1, clock=clock, waited=heard.waits.append)
    slow.take()
    slow.take()
    assert clock.at == pytest.approx(1060, abs=0.1)


def test_threads_share_one_budget(heard: Heard) -> None:
    """Of twenty threads ten get a token at once and ten wait; none is given out twice."""
    got, held, go_on = threading.Semaphore(0), threading.Semaphore(0), threading.Event()

    class Standing(FakeClock):
        def sleep(self, seconds: float) -> None:
            held.release()
            assert go_on.wait(10)
            super().sleep(seconds)

    shared = Budget(requests_per_minute=60, clock=Standing(), waited=heard.waits.append)

    def take() -> None:
        shared.take()
        got.release()

    threads = [threading.Thread(target=take) for _ in range(20)]
    for thread in threads:
        thread.start()
    assert all(semaphore.acquire(timeout=10) for semaphore in (got, held) for _ in range(10))
    assert not got.acquire(blocking=False)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert all(got.acquire(blocking=False) for _ in range(10))


def test_a_429_makes_every_other_call_wait(
    connect: Callable[..., BatchesApi], server: Server, clock: FakeClock, heard: Heard
) -> None:
    """The rate limit is the account's: one refused call speaks for all."""
    api = connect(server.url, requests_per_minute=600)
    server.plays(answers(429, failure("rate_limit_error"), retry_after="20"), answers(200, batch()))
    with pytest.raises(Unavailable):
        api.newest()
    assert clock.slept == []
    api.retrieve("msgbatch_1")
    assert clock.at == pytest.approx(1020, abs=0.2)
    assert sum(heard.waits) == pytest.approx(20, abs=0.2)


def test_the_wait_for_the_budget_is_no_part_of_the_call(
    connect: Callable[..., BatchesApi], server: Server, clock: FakeClock
) -> None:
    """A call's seconds are the API's, not ours."""
    api = connect(server.url)
    seconds: list[float] = []
    api._observe = lambda _operation, _outcome, spent: seconds.append(spent)
    api._budget.pause(30)
    server.plays(answers(200, batch()))
    api.retrieve("msgbatch_1")
    assert clock.at > 1030
    assert seconds == [0]


def test_a_raised_rate_frees_those_who_wait(budget: Budget, clock: FakeClock, heard: Heard) -> None:
    """Nobody sleeps through a reload: at one request a minute the next would be sixty seconds away."""
    slept = clock.sleep

    def sleep(seconds: float) -> None:
        budget.set_requests_per_minute(6000)
        slept(seconds)

    for _ in range(10):
        budget.take()
    budget.set_requests_per_minute(1)
    clock.sleep = sleep  # type: ignore[method-assign]
    budget.take()
    assert clock.at < 1002
    assert len(heard.waits) == 1
