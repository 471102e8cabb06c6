"""What happens when several replicas do the same at the same time, on the real server."""

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from ledger_rig import LANE, PREFIX, Rig, remote, settlement

from worker.core.grouping import Limits, Seal, decide
from worker.core.lifecycle import Event
from worker.core.model import Batch, State
from worker.ledger.ledger import Ledger
from worker.ledger.store import Store

THREADS = 8
Answer = TypeVar("Answer")


def together(*calls: Callable[[], Answer]) -> list[Answer]:
    """Make calls at the same time, each in a thread of its own; returns their answers."""
    barrier = threading.Barrier(len(calls))
    answers: dict[int, Answer] = {}
    errors: list[BaseException] = []

    def run(number: int, call: Callable[[], Answer]) -> None:
        barrier.wait()
        try:
            answers[number] = call()
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [answers[number] for number in range(len(calls))]


def replicas(server_url: str) -> list[Rig]:
    """Open a ledger for each of several replicas."""
    return [Rig(Ledger.over(Store.connect(server_url, PREFIX))) for _ in range(THREADS)]


def close(rigs: Sequence[Rig]) -> None:
    """Close what `replicas` opened."""
    for rig in rigs:
        rig.store.close()


def test_replicas_that_seal_the_same_lane_partition_it(real_rig: Rig, server_url: str) -> None:
    """Every entry in exactly one batch, in order, none skipped: whoever decided on an old look sealed nothing."""
    entries = real_rig.fill(600)
    limits = Limits(max_count=7, max_bytes=1_000_000, max_age=300.0)
    answers: Counter[str] = Counter()

    def seal_all(rig: Rig, replica: int) -> None:
        for number in itertools.count():
            window = rig.window(limits)
            decision = decide(window, now=0.0, flush=True)
            if not isinstance(decision, Seal):
                return
            uid = f"uid-{replica}-{number}"
            answers[rig.ledger.lanes.seal(LANE, uid, window, decision, max_unposted=10_000)] += 1

    rigs = replicas(server_url)
    together(*(partial(seal_all, rig, replica) for replica, rig in enumerate(rigs)))
    close(rigs)
    batches = [real_rig.batch(uid) for uid in real_rig.ledger.batches.live(LANE)]
    batches.sort(key=lambda batch: entries.index(batch.first))
    read = [[entry.decode() for entry, _ in real_rig.ledger.prompts.entries(batch)] for batch in batches]
    assert [entry for part in read for entry in part] == entries
    assert [len(part) for part in read] == [batch.entries for batch in batches]
    assert set(answers) <= {"SEALED", "STALE"}
    assert answers["SEALED"] == len(batches) == 86
    assert int(real_rig.store.read("hget", real_rig.keys.lane(LANE), "sealed_entries")) == 600


def test_replicas_that_claim_share_what_is_due(real_rig: Rig, server_url: str) -> None:
    """Nobody gets what another has."""
    for number in range(40):
        real_rig.sealed(1, f"uid{number}")
    rigs = replicas(server_url)
    claimed = together(*(partial(rig.ledger.batches.claim, LANE, limit=100, lease=60.0) for rig in rigs))
    close(rigs)
    uids = [claim.uid for claims in claimed for claim in claims]
    assert sorted(uids) == sorted(f"uid{number}" for number in range(40))


def race(server_url: str, *steps: Callable[[Rig], Any]) -> list[Any]:
    """Let replicas take different steps at the same time."""
    rigs = replicas(server_url)[: len(steps)]
    answers = together(*(partial(step, rig) for rig, step in zip(rigs, steps, strict=True)))
    close(rigs)
    return answers


def test_two_knocks_with_one_claim_record_one_intent(real_rig: Rig, server_url: str) -> None:
    """A doubled dramatiq message must not become a second POST."""
    for number in range(10):
        uid = f"uid{number}"
        batch = real_rig.sealed(1, uid)
        fence = real_rig.claim(uid).fence
        steps = [partial(Rig.submit, batch=batch, fence=fence)] * 4
        assert Counter(race(server_url, *steps)) == Counter({"OK": 1, "STALE": 3})
        assert real_rig.batch(uid).attempt == 1


def send_again(rig: Rig, *, batch: Batch, fence: str) -> str:
    """Give a POST up for lost."""
    return rig.ledger.batches.advance(batch, Event.ABSENT, fence=fence, recovered=True)


def reserve(rig: Rig, *, uid: str) -> bool:
    """Reserve twenty of a hundred."""
    return rig.ledger.deployment.reserve(LANE, uid, 20, 100)


def test_an_answer_and_a_proof_of_absence_exclude_each_other(real_rig: Rig, server_url: str) -> None:
    """Either the id is recorded or the batch may be sent again, never both."""
    for number in range(10):
        uid = f"uid{number}"
        batch = real_rig.submitting(1, uid)
        fence = real_rig.claim(uid).fence

        made = remote(f"msgbatch_{uid}", count=1)
        answers = race(
            server_url, partial(send_again, batch=batch, fence=fence), partial(Rig.accept, batch=batch, answer=made)
        )
        assert sorted(answers) == ["OK", "STALE"]
        assert (real_rig.batch(uid).state is State.SEALED) is (answers[0] == "OK")


def test_replicas_that_settle_the_same_prompts_settle_each_once(real_rig: Rig, server_url: str) -> None:
    """A zombie with the same claim repeats chunks; no prompt comes back twice."""
    entries = real_rig.fill(300)
    real_rig.seal()
    batch, claim = real_rig.deliver()
    chunk = [settlement(entry, "retry", 2, "expired") for entry in entries]

    def settle(rig: Rig) -> bool:
        return rig.ledger.prompts.settle(batch, chunk, fence=claim.fence, now=1.0)

    assert race(server_url, settle, settle, settle) == [True, True, True]
    names = [fields[b"id"].decode() for _, fields in real_rig.store.read("xrange", real_rig.keys.prompts(LANE))]
    assert names == entries
    assert int(real_rig.store.read("hget", real_rig.keys.lane(LANE), "sealed_entries")) == 0


def test_replicas_that_reserve_do_not_overfill_the_accounts_queue(real_rig: Rig, server_url: str) -> None:
    """Five fit, whoever comes first."""
    steps = [partial(reserve, uid=f"uid{number}") for number in range(THREADS)]
    assert Counter(race(server_url, *steps)) == Counter({True: 5, False: 3})
    assert real_rig.ledger.deployment.in_flight() == 100
