import pytest
from ledger_rig import GOOD, LANE, Rig, dump, settlement

from worker.core.intake import read_prompt
from worker.core.model import Prompt
from worker.ledger.store import Value


def enqueue(rig: Rig, name: str = "", *, limit: Value = "", seconds: int = 60, params: bytes = GOOD) -> list[str]:
    """Put one prompt in by the script that producers use."""
    fields: list[Value] = ["params", params, *(("id", name) if name else ())]
    named: dict[str, Value] = {
        "prompts": rig.keys.prompts(LANE),
        "dedupe": rig.keys.dedupe(LANE, name),
        "waiting": rig.keys.waiting,
        "lane": LANE,
        "name": name,
        "dedupe_seconds": seconds,
        "limit_bytes": limit,
    }
    (words,) = rig.store.run_many("enqueue", [(named, fields)])
    return [word.decode() for word in words]


def lane_length(rig: Rig) -> int:
    """Return how many entries the lane's stream has."""
    return rig.ledger.lanes.length(LANE)


def test_a_prompt_is_put_in_as_it_came(rig: Rig) -> None:
    """The answer is its entry id."""
    answer, entry_id = enqueue(rig, "order-42")
    assert answer == "ENQUEUED"
    ((found, fields),) = rig.store.read("xrange", rig.keys.prompts(LANE))
    assert found.decode() == entry_id
    prompt = read_prompt(entry_id, fields, 1000)
    assert isinstance(prompt, Prompt)
    assert (prompt.id, prompt.params) == ("order-42", GOOD)


def test_the_same_name_is_put_in_once(rig: Rig) -> None:
    """Asked again it answers with the entry of the first, and changes nothing."""
    _, first = enqueue(rig, "order-42")
    before = dump(rig.store)
    assert enqueue(rig, "order-42", params=b"{}") == ["DUPLICATE", first]
    assert dump(rig.store) == before
    assert enqueue(rig, "order-43")[0] == "ENQUEUED"
    assert 0 < rig.store.read("ttl", rig.keys.dedupe(LANE, "order-42")) <= 60


def test_a_name_is_free_again_after_its_time(rig: Rig) -> None:
    """Deduplication has an end, or Redis would remember every prompt there ever was."""
    enqueue(rig, "order-42")
    rig.store.write("delete", rig.keys.dedupe(LANE, "order-42"))
    assert enqueue(rig, "order-42")[0] == "ENQUEUED"
    assert lane_length(rig) == 2


def test_a_prompt_without_a_name_is_always_new(rig: Rig) -> None:
    """Nothing is remembered of it."""
    assert [enqueue(rig)[0] for _ in range(3)] == ["ENQUEUED"] * 3
    assert rig.store.read("exists", rig.keys.dedupe(LANE, "")) == 0


def test_a_full_queue_refuses_new_prompts(rig: Rig) -> None:
    """What waits in other lanes counts; of this lane the present size does, not the one recorded."""
    rig.ledger.deployment.record_waiting({LANE: 900, "reports": 100})
    before = dump(rig.store)
    assert enqueue(rig, "order-42", limit=100) == ["QFULL"]
    assert dump(rig.store) == before
    assert enqueue(rig, "order-42", limit=101)[0] == "ENQUEUED"


def test_a_lane_that_fills_up_is_noticed_at_once(real_rig: Rig) -> None:
    """Its size is asked of the server, not taken from what the batchers last saw."""
    limit = 5000
    answers = [enqueue(real_rig, limit=limit)[0] for _ in range(200)]
    assert set(answers) == {"ENQUEUED", "QFULL"}
    assert answers.index("QFULL") > 3
    assert set(answers[answers.index("QFULL") :]) == {"QFULL"}


def test_a_duplicate_is_answered_even_when_the_queue_is_full(rig: Rig) -> None:
    """It takes no room, and its producer must learn that it is in."""
    _, first = enqueue(rig, "order-42")
    rig.ledger.deployment.record_waiting({"reports": 10_000})
    assert enqueue(rig, "order-42", limit=100) == ["DUPLICATE", first]


def buried(rig: Rig, count: int, reason: str = "not_found_error", *, at: float = 1000.0, uid: str = "uid1") -> None:
    """Bury prompts named after their reason."""
    entries = [rig.add(id=f"{reason}-{number}", metadata=b"[1]") for number in range(count)]
    rig.seal(uid)
    batch, claim = rig.deliver(uid)
    chunk = [settlement(entry, "bury", 3, reason) for entry in entries]
    assert rig.ledger.prompts.settle(batch, chunk, fence=claim.fence, now=at)
    assert rig.finish(batch, claim.fence, retention=60, dead_before=0) == "OK"


def test_dead_letters_are_listed_oldest_first(rig: Rig) -> None:
    """By reason, by age, and no more than asked for; more than a page is read in pages."""
    buried(rig, 3, "canceled", at=1000.0, uid="uid1")
    buried(rig, 120, "refused", at=2000.0, uid="uid2")
    letters = rig.ledger.dead_letters
    everything = list(letters.list(LANE))
    assert len(everything) == 123
    assert [letter.reason for letter in everything[:4]] == ["canceled"] * 3 + ["refused"]
    assert [letter.prompt_id for letter in letters.list(LANE, reason="canceled")] == [
        f"canceled-{number}" for number in range(3)
    ]
    assert len(list(letters.list(LANE, before=1000.0))) == 3
    assert list(letters.list(LANE, before=999.9)) == []
    assert list(letters.list(LANE, limit=2)) == everything[:2]
    first = everything[0]
    assert (first.lane, first.batch, first.attempt, first.buried_at) == (LANE, "uid1", 3, 1000.0)
    assert first.nbytes == len(GOOD)


def test_a_dead_letter_is_shown_with_its_prompt(rig: Rig) -> None:
    """For the operator's own eyes; one that is gone is None."""
    buried(rig, 1)
    (letter,) = rig.ledger.dead_letters.list(LANE)
    shown = rig.ledger.dead_letters.show(LANE, letter.letter_id)
    assert shown is not None
    assert (shown["params"], shown["batchmill.reason"]) == (GOOD.decode(), "not_found_error")
    assert rig.ledger.dead_letters.show(LANE, "1-1") is None


def test_a_redriven_prompt_starts_anew(rig: Rig) -> None:
    """Its own fields come back, ours do not: the count of attempts and the time begin again."""
    buried(rig, 2)
    letters = [letter.letter_id for letter in rig.ledger.dead_letters.list(LANE)]
    requeued = int(rig.store.read("hget", rig.keys.lane(LANE), "requeued") or 0)
    assert rig.ledger.dead_letters.redrive(LANE, letters) == 2
    assert list(rig.ledger.dead_letters.list(LANE)) == []
    entries = rig.store.read("xrange", rig.keys.prompts(LANE))
    assert [fields for _, fields in entries] == [
        {b"params": GOOD, b"id": f"not_found_error-{number}".encode(), b"metadata": b"[1]"} for number in range(2)
    ]
    assert int(rig.store.read("hget", rig.keys.lane(LANE), "requeued")) == requeued + 2


def test_a_letter_is_redriven_once(rig: Rig) -> None:
    """Two operators, one prompt."""
    buried(rig, 1)
    letters = [letter.letter_id for letter in rig.ledger.dead_letters.list(LANE)]
    assert rig.ledger.dead_letters.redrive(LANE, letters) == 1
    before = dump(rig.store)
    assert rig.ledger.dead_letters.redrive(LANE, letters) == 0
    assert dump(rig.store) == before


def test_a_dropped_letter_is_gone(rig: Rig) -> None:
    """Only those named; the answer counts what was there."""
    buried(rig, 3)
    letters = [letter.letter_id for letter in rig.ledger.dead_letters.list(LANE)]
    assert rig.ledger.dead_letters.drop(LANE, [*letters[:2], "1-1"]) == 2
    assert [letter.letter_id for letter in rig.ledger.dead_letters.list(LANE)] == letters[2:]


def test_many_letters_are_redriven_and_dropped_in_pieces(rig: Rig) -> None:
    """No single script or command is handed hundreds of them."""
    buried(rig, 450)
    letters = [letter.letter_id for letter in rig.ledger.dead_letters.list(LANE)]
    assert rig.ledger.dead_letters.redrive(LANE, letters[:220]) == 220
    assert rig.ledger.dead_letters.drop(LANE, letters) == 230
    assert lane_length(rig) == 220


@pytest.mark.parametrize(("ahead", "kept"), [(-3600.0, 120), (3600.0, 0)])
def test_letters_too_old_are_dropped_when_a_batch_is_finished(real_rig: Rig, ahead: float, kept: int) -> None:
    """In whole nodes of the stream, which costs nothing: a hundred entries each."""
    buried(real_rig, 120)
    real_rig.store.write("xadd", real_rig.keys.dead(LANE), {"id": "the newest node"})
    batch, claim = real_rig.delivered(1, "uid2")
    trimmed = real_rig.store.now() + ahead
    assert real_rig.finish(batch, claim.fence, retention=60, dead_before=trimmed) == "OK"
    left = real_rig.store.read("xlen", real_rig.keys.dead(LANE))
    assert left >= kept
    assert (left > 100) is (kept > 0)
