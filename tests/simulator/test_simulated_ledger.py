from collections.abc import Callable
from typing import Any

from worker.core.custom_id import spell_uid
from worker.simulator import Simulator
from worker.simulator.audit import prompt_of

Any_ = Callable[..., Any]
UIDS = (
    (spell_uid("default", b"0123456789"), "01"),
    (spell_uid("default", b"9876543210"), "02"),
    (spell_uid("bulk", b"0123456789"), "01"),
)
"""Two submissions of one lane, and one of another."""


def test_the_ledger_counts_prompts_paid_for_twice(simulator: Simulator, call: Any_, create: Any_) -> None:
    """A prompt is what follows the third underscore: the same one in two batches is paid for twice."""
    create(simulator, ids=["ns_uid1_aa_p1", "ns_uid1_aa_p2"])
    create(simulator, ids=["ns_uid2_ab_p2", "ns_uid2_ab_p3"])
    assert simulator.control.ledger()["prompts_billed"] == 0
    simulator.control.advance(1)
    ledger = call(simulator, "GET", "/simulator/ledger").json
    assert ledger == {
        "batches": 2,
        "open_batches": 0,
        "prompts_committed": 4,
        "prompts_distinct": 3,
        "prompts_committed_twice": 1,
        "prompts_billed": 4,
        "prompts_billed_distinct": 3,
        "prompts_billed_twice": 1,
        "times_billed": {"1": 2, "2": 1},
        "billed_twice_examples": ["p2"],
    }


def test_an_errored_row_is_retried_for_free(simulator: Simulator, create: Any_) -> None:
    """A prompt that failed once and succeeded once was committed twice and billed once."""
    simulator.control.inject({"kind": "rows", "fraction": 1.0})
    for attempt in ("aa", "ab"):
        create(simulator, ids=[f"ns_uid_{attempt}_p1"])
    simulator.control.advance(1)
    ledger = simulator.control.ledger()
    assert (ledger["prompts_committed_twice"], ledger["prompts_billed"], ledger["prompts_billed_twice"]) == (1, 1, 0)


def test_the_ledger_lists_custom_ids_on_request(simulator: Simulator, call: Any_, create: Any_) -> None:
    """`custom_ids=1` lists them by batch, `batch=` narrows that to one."""
    first, second = create(simulator, ids=["a", "b"]), create(simulator, ids=["c"])
    ledger = call(simulator, "GET", "/simulator/ledger?custom_ids=1").json
    assert ledger["custom_ids"] == {first: ["a", "b"], second: ["c"]}
    narrowed = call(simulator, "GET", f"/simulator/ledger?custom_ids=1&batch={second}").json
    assert narrowed["custom_ids"] == {second: ["c"]}


def test_a_deleted_batch_stays_in_the_ledger(simulator: Simulator, call: Any_, create: Any_) -> None:
    """What was paid for stays paid for."""
    batch_id = create(simulator, 3)
    simulator.control.advance(1)
    assert call(simulator, "POST", f"/simulator/batches/{batch_id}/delete").status == 200
    assert call(simulator).json["data"] == []
    assert simulator.control.ledger()["prompts_billed"] == 3


def test_a_foreign_batch_is_in_the_list_and_not_in_the_ledger(simulator: Simulator, call: Any_, rows: Any_) -> None:
    """Somebody else's batch has a count like ours and custom_ids that are not."""
    foreign = call(simulator, "POST", "/simulator/batches", body={"count": 7}).json
    (listed,) = call(simulator).json["data"]
    assert (listed["id"], listed["request_counts"]["processing"]) == (foreign["id"], 7)
    simulator.control.advance(1)
    assert sorted(row["custom_id"] for row in rows(simulator, foreign["id"])) == [f"stranger-{n}" for n in range(7)]
    assert simulator.control.ledger()["batches"] == 0


def test_another_user_can_end_and_cancel_a_batch(simulate: Any_, call: Any_, create: Any_) -> None:
    """The simulator's routes do to a batch what other users of the workspace do."""
    simulator = simulate(ends_after=3600)
    ended, canceled = create(simulator), create(simulator)
    for batch_id, verb in ((ended, "end"), (canceled, "cancel")):
        assert call(simulator, "POST", f"/simulator/batches/{batch_id}/{verb}").status == 200
    assert call(simulator, "POST", f"/simulator/batches/{canceled}/delete").status == 400
    status = {batch["id"]: batch["processing_status"] for batch in call(simulator).json["data"]}
    assert status == {ended: "ended", canceled: "canceling"}


def test_the_state_shows_every_post_and_every_batch(simulator: Simulator, call: Any_, requests: Any_) -> None:
    """Refused and accepted POSTs are on record with their sizes, and requests are counted by operation."""
    call(simulator, "POST", body=requests(2))
    call(simulator, "POST", body={"requests": []})
    call(simulator, "POST", body=requests(2), headers={"authorization": "Bearer nonsense"})
    call(simulator)
    state = call(simulator, "GET", "/simulator/state").json
    assert [attempt["outcome"] for attempt in state["attempts"]] == ["created", "refused 400", "refused 401"]
    first = state["attempts"][0]
    assert first["batch"] == state["batches"][0]["id"]
    assert (first["count"], first["complete"]) == (2, True)
    assert first["received"] == first["content_length"] == state["batches"][0]["body_bytes"]
    assert state["requests"] == {"create 200": 1, "create 400": 1, "create 401": 1, "list 200": 1}


def test_time_moves_forward_over_http_and_never_back(simulator: Simulator, call: Any_, create: Any_) -> None:
    """A day passes in one request; a negative step is refused."""
    create(simulator)
    before = call(simulator, "GET", "/simulator/state").json["now"]
    assert call(simulator, "POST", "/simulator/clock", body={"advance": 86_400}).json == {"now": before + 86_400}
    assert call(simulator).json["data"][0]["processing_status"] == "ended"
    assert call(simulator, "POST", "/simulator/clock", body={"advance": -1}).status == 400


def test_the_simulators_own_routes_need_no_key_and_refuse_nonsense(simulator: Simulator, call: Any_) -> None:
    """They are open on loopback; a body that is no JSON or of another shape is 400."""
    assert call(simulator, "GET", "/simulator/state", headers={"authorization": None}).status == 200
    assert call(simulator, "POST", "/simulator/faults", raw=b"{").status == 400
    assert call(simulator, "POST", "/simulator/batches", body={"count": 0}).status == 400
    assert call(simulator, "POST", "/simulator/batches", body={"size": 1}).status == 400
    assert call(simulator, "POST", "/simulator/faults", raw=b" " * (1 << 21)).status == 400


def test_entries_of_two_lanes_are_two_prompts() -> None:
    """Redis numbers the entries of each stream by the clock: lanes that are filled together have the same ids."""
    first, again, other = (f"abcdef_{uid}_{attempt}_1700000000000-0" for uid, attempt in UIDS)
    assert prompt_of(first) == prompt_of(again)
    assert prompt_of(first) != prompt_of(other)
    assert prompt_of("a_b_c_d_e") == "d_e"
    assert prompt_of("bare") == "bare"
