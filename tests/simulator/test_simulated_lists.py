from collections.abc import Callable
from typing import Any

import pytest

from worker.simulator import Simulator

Any_ = Callable[..., Any]


def _ids(page: Any) -> list[str]:
    return [batch["id"] for batch in page.json["data"]]


def test_a_list_is_newest_first_and_twenty_long(simulator: Simulator, call: Any_, create: Any_) -> None:
    """Without parameters the twenty newest come, and there is more."""
    made = [create(simulator) for _ in range(25)]
    page = call(simulator)
    assert _ids(page) == made[:4:-1]
    assert (page.json["has_more"], page.json["first_id"], page.json["last_id"]) == (True, made[-1], made[5])


def test_an_empty_list_has_no_ids(simulator: Simulator, call: Any_) -> None:
    """A workspace without batches lists nothing and says there is no more."""
    assert call(simulator).json == {"data": [], "has_more": False, "first_id": None, "last_id": None}


def test_after_walks_to_the_oldest(simulator: Simulator, call: Any_, create: Any_) -> None:
    """Following `last_id` with `after_id` visits every batch once."""
    made = [create(simulator) for _ in range(7)]
    seen: list[str] = []
    query = "?limit=3"
    while True:
        page = call(simulator, "GET", query)
        seen += _ids(page)
        if not page.json["has_more"]:
            break
        query = f"?limit=3&after_id={page.json['last_id']}"
    assert seen == made[::-1]


def test_before_walks_to_the_newest_next_to_the_cursor(simulator: Simulator, call: Any_, create: Any_) -> None:
    """`before_id` gives the batches just newer than the cursor, newest first, and `has_more` looks that way."""
    made = [create(simulator) for _ in range(7)]
    page = call(simulator, "GET", f"?limit=3&before_id={made[1]}")
    assert _ids(page) == [made[4], made[3], made[2]]
    assert page.json["has_more"] is True
    page = call(simulator, "GET", f"?limit=3&before_id={page.json['first_id']}")
    assert (_ids(page), page.json["has_more"]) == ([made[6], made[5]], False)


def test_creation_times_grow_strictly_even_if_time_stands_still(simulator: Simulator, call: Any_, create: Any_) -> None:
    """No two batches share a `created_at`: the list has one order."""
    for _ in range(20):
        create(simulator)
    times = [batch["created_at"] for batch in call(simulator).json["data"]]
    assert times == sorted(set(times), reverse=True)


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "many", ""])
def test_a_limit_out_of_range_is_refused(simulator: Simulator, call: Any_, limit: str) -> None:
    """`limit` is 1 to 1000."""
    answer = call(simulator, "GET", f"?limit={limit}")
    assert answer.status == 400
    assert answer.json["error"]["message"].startswith("limit: ")


def test_a_list_holds_a_thousand(simulator: Simulator, call: Any_) -> None:
    """`limit=1000` brings a thousand of more than a thousand batches."""
    for _ in range(1_001):
        simulator.control.foreign(1)
    page = call(simulator, "GET", "?limit=1000")
    assert (len(page.json["data"]), page.json["has_more"]) == (1000, True)


def test_two_cursors_are_refused(simulator: Simulator, call: Any_, create: Any_) -> None:
    """`after_id` and `before_id` exclude each other."""
    batch_id = create(simulator)
    assert call(simulator, "GET", f"?after_id={batch_id}&before_id={batch_id}").status == 400


def test_a_deleted_cursor_is_refused_or_finds_nothing(simulate: Any_, call: Any_, create: Any_) -> None:
    """Both guesses at the real API's behaviour can be tried: 400 by default, an empty page on request."""
    for choice, status in (("refuse", 400), ("empty", 200)):
        simulator = simulate(unknown_cursor=choice)
        batch_id = create(simulator)
        create(simulator)
        simulator.control.end()
        simulator.control.delete(batch_id)
        answer = call(simulator, "GET", f"?before_id={batch_id}")
        assert answer.status == status
        assert answer.json.get("data", []) == []


def test_a_workspace_sees_its_own_batches_alone(simulate: Any_, call: Any_, create: Any_) -> None:
    """A key of another workspace lists nothing of ours and gets 404 for it; the header names the workspace."""
    simulator = simulate(workspaces={"sk-ant-canary": "wrkspc_a", "sk-ant-other": "wrkspc_b"})
    batch_id = create(simulator)
    ours, theirs = call(simulator), call(simulator, headers={"authorization": "Bearer sk-ant-other"})
    assert (_ids(ours), ours.headers["anthropic-workspace-id"]) == ([batch_id], "wrkspc_a")
    assert (_ids(theirs), theirs.headers["anthropic-workspace-id"]) == ([], "wrkspc_b")
    other = {"authorization": "Bearer sk-ant-other"}
    assert call(simulator, "GET", f"/v1/messages/batches/{batch_id}", headers=other).status == 404
    assert call(simulator, "GET", f"?before_id={batch_id}", headers=other).status == 400
