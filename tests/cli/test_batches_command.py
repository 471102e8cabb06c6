from typing import Any

import pytest
from cli_rig import UIDS, Shell, put_batch

from worker.core.intake import Flaw
from worker.core.model import State
from worker.drainer import ABANDONED
from worker.ledger.ledger import Ledger
from worker.simulator import Simulator

REMOTE = "msgbatch_01AAAAAAAAAAAAAAAAAAAAAA"


def test_the_list_is_filtered(shell: Shell, redis: Any, ledger: Ledger) -> None:
    """By lane, by state, the settled ones by themselves; newest first, and as many as asked for."""
    now = ledger.store.now()
    put_batch(ledger, redis, UIDS[0], state="in_progress", sealed_at=now - 60)
    put_batch(ledger, redis, UIDS[1], lane="bulk", sealed_at=now - 30)
    put_batch(ledger, redis, UIDS[2], state="settled", settled_at=now)
    ledger.deployment.register_lanes(["bulk"])

    def listed(*words: str) -> list[str]:
        return [batch["uid"] for batch in shell.json("batches", "list", *words)]

    assert listed() == [UIDS[1], UIDS[0]]
    assert listed("--lane", "bulk") == [UIDS[1]]
    assert listed("--state", "in_progress") == [UIDS[0]]
    assert listed("--settled") == listed("--state", "settled") == [UIDS[2]]
    assert listed("--limit", "1") == [UIDS[1]]
    assert "and more" in shell.run("batches", "list", "--limit", "1").out
    assert shell.run("batches", "list", "--state", "held").out == "no such batches\n"
    assert shell.run("batches", "list", "--state", "hold").status == 2
    assert shell.run("batches", "list", "--limit", "0").status == 2


def test_a_batch_is_shown_by_either_id(shell: Shell, redis: Any, ledger: Ledger) -> None:
    """Batchmill's and the API's name the same record."""
    put_batch(ledger, redis, UIDS[0], state="ended", remote_id=REMOTE, counts="0 1 1 0 0")
    redis.hset(ledger.store.keys.batch("default", UIDS[0]), "commit:results", "1800000000.0")
    facts = shell.json("batches", "show", UIDS[0])
    assert facts == shell.json("batches", "show", REMOTE)
    assert facts["counts"]["errored"] == 1
    told = shell.run("batches", "show", REMOTE).out
    for word in (UIDS[0], REMOTE, "1 succeeded, 1 errored", "results (2027-"):
        assert word in told


def test_cancel_asks_the_api_and_notes_what_it_said(
    shell: Shell, redis: Any, ledger: Ledger, simulator: Simulator
) -> None:
    """The remote batch is canceling, our record says so at once, and its next look is now."""
    remote = simulator.control.foreign(3)
    put_batch(ledger, redis, UIDS[0], state="in_progress", attempt=1, remote_id=remote["id"])
    assert shell.json("batches", "cancel", UIDS[0])["remote_status"] == "canceling"
    found = ledger.batches.get("default", UIDS[0])
    assert found is not None
    assert found.state is State.CANCELING
    assert redis.zscore(ledger.store.keys.due("default"), UIDS[0]) <= ledger.store.now() * 1000


def test_canceling_what_has_ended_meanwhile_is_no_failure(
    shell: Shell, redis: Any, ledger: Ledger, simulator: Simulator
) -> None:
    """The API refuses, and the reason is told: there is nothing left to cancel."""
    remote = str(simulator.control.foreign(1)["id"])
    simulator.control.end(remote)
    put_batch(ledger, redis, UIDS[0], state="in_progress", attempt=1, remote_id=remote)
    assert shell.json("batches", "cancel", UIDS[0])["remote_status"] == "ended"
    assert shell.json("batches", "show", UIDS[0])["state"] == "in_progress"


@pytest.mark.usefixtures("simulator")
@pytest.mark.parametrize("state", ["sealed", "submitting", "ended", "settled", "held"])
def test_only_what_is_in_progress_is_canceled(shell: Shell, redis: Any, ledger: Ledger, state: str) -> None:
    """Anything else has no remote batch that could be ended early."""
    put_batch(ledger, redis, UIDS[0], state=state, remote_id=REMOTE)
    ended = shell.run("batches", "cancel", UIDS[0])
    assert ended.status == 1
    assert f"is {state}" in ended.err


def test_delete_waits_until_a_batch_is_settled(shell: Shell, redis: Any, ledger: Ledger, simulator: Simulator) -> None:
    """Until then somebody may have to read the results again."""
    simulator.control.advance(1)
    remote = str(simulator.control.foreign(1)["id"])
    simulator.control.end(remote)
    for number, state in enumerate(("in_progress", "ended", "delivered")):
        put_batch(ledger, redis, UIDS[number], state=state, remote_id=f"{REMOTE}{number}")
        assert "needed until it is settled" in shell.run("batches", "delete", UIDS[number]).err
    put_batch(ledger, redis, "d" * 16, state="settled", remote_id=remote)
    assert shell.json("batches", "delete", remote)["deleted"] == remote
    assert shell.run("batches", "delete", remote).status == 1


def test_the_apis_no_has_a_status_of_its_own(shell: Shell, redis: Any, ledger: Ledger, simulator: Simulator) -> None:
    """A refused key is 77, an API that is away 69, a remote batch that is gone 1, no key at all 78."""
    put_batch(ledger, redis, UIDS[0], state="in_progress", attempt=1, remote_id=REMOTE)
    cancel = ("batches", "cancel", UIDS[0])
    assert shell.run(*cancel).status == 1
    assert shell.run(*cancel, "--set", "anthropic.base_url=http://127.0.0.1:1").status == 69
    simulator.control.inject([{"kind": "revoke_key", "key": "sk-ant-canary"}])
    ended = shell.run(*cancel)
    assert ended.status == 77
    assert "canary" not in ended.err


def test_without_a_key_the_api_is_not_asked(shell: Shell, redis: Any, ledger: Ledger) -> None:
    """It is a matter of configuration, and said so."""
    put_batch(ledger, redis, UIDS[0], state="in_progress", attempt=1, remote_id=REMOTE)
    ended = shell.run("batches", "cancel", UIDS[0])
    assert ended.status == 78
    assert "ANTHROPIC_API_KEY" in ended.err


def test_resubmitting_a_held_batch_makes_it_new(shell: Shell, redis: Any, ledger: Ledger) -> None:
    """It is sealed again, counts as unposted, is due now, and forgets the remote batch that it had."""
    put_batch(
        ledger,
        redis,
        UIDS[0],
        state="held",
        attempt=2,
        remote_id=REMOTE,
        created_at="1.0",
        ended_at="2.0",
        judged_at="2.0",
        counts="0 2 0 0 0",
        reason="gone",
        failures=9,
    )
    assert shell.json("batches", "resolve", REMOTE, "--resubmit")["resolved"] == "resubmit"
    batch = ledger.batches.get("default", UIDS[0])
    assert batch is not None
    assert (batch.state, batch.attempt, batch.remote_id, batch.failures) == (State.SEALED, 2, None, 0)
    assert (batch.created_at, batch.judged_at, batch.counts, batch.reason) == (None, None, None, None)
    assert redis.zscore(ledger.store.keys.unposted("default"), UIDS[0]) == 2
    assert redis.zscore(ledger.store.keys.due("default"), UIDS[0]) <= ledger.store.now() * 1000
    assert redis.hget(ledger.store.keys.fences("default"), UIDS[0]) == b"8"


def test_burying_a_held_batch_ends_it(shell: Shell, redis: Any, ledger: Ledger) -> None:
    """The drainer finds it ended and given up, by the word it knows."""
    put_batch(ledger, redis, UIDS[0], state="held", attempt=1, reason="gone")
    redis.zadd(ledger.store.keys.unposted("default"), {UIDS[0]: 2})
    told = shell.run("batches", "resolve", UIDS[0], "--bury")
    assert (told.status, "2 prompts become dead letters" in told.out) == (0, True)
    batch = ledger.batches.get("default", UIDS[0])
    assert batch is not None
    assert (batch.state, batch.reason) == (State.ENDED, ABANDONED)
    assert redis.zscore(ledger.store.keys.unposted("default"), UIDS[0]) is None


def test_the_word_for_given_up_is_the_drainers() -> None:
    """It is spelled in two places."""
    assert Flaw.ABANDONED.value == ABANDONED


@pytest.mark.parametrize("verb", ["--resubmit", "--bury"])
@pytest.mark.parametrize("state", ["sealed", "submitting", "in_progress", "ended", "settled"])
def test_only_a_held_batch_is_resolved(shell: Shell, redis: Any, ledger: Ledger, state: str, verb: str) -> None:
    """What a rule can decide is not decided by hand."""
    put_batch(ledger, redis, UIDS[0], state=state)
    ended = shell.run("batches", "resolve", UIDS[0], verb)
    assert ended.status == 1
    assert "only a held batch" in ended.err
    found = ledger.batches.get("default", UIDS[0])
    assert found is not None
    assert found.state == state


def test_resolve_wants_one_decision(shell: Shell) -> None:
    """Neither and both are wrong usage."""
    assert shell.run("batches", "resolve", "x").status == 2
    assert shell.run("batches", "resolve", "x", "--bury", "--resubmit").status == 2


def test_two_decisions_at_once_are_one(
    shell: Shell, redis: Any, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is second hears that the batch has moved on, and changes nothing."""
    seen = put_batch(ledger, redis, UIDS[0], state="held", attempt=1)
    assert shell.run("batches", "resolve", UIDS[0], "--bury").status == 0
    monkeypatch.setattr("worker.ledger.batches.Batches.find", lambda *_: seen)
    ended = shell.run("batches", "resolve", UIDS[0], "--resubmit")
    assert ended.status == 1
    assert "moved on" in ended.err
    assert shell.json("batches", "list", "--state", "ended")[0]["uid"] == UIDS[0]
