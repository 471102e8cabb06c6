from bench import Bench, params


def test_a_prompt_becomes_a_row(bench: Bench) -> None:
    """What goes in by XADD comes out once, with its id and metadata."""
    bench.enqueue("hello", id="order-42", metadata='{"a": [1, 2]}')
    bench.drive(bench.start())
    [row] = bench.rows()
    assert row["id"] == "order-42"
    assert row["metadata"] == {"a": [1, 2]}
    assert row["attempt"] == 1
    assert row["result"]["type"] == "succeeded"


def test_settled_prompts_leave_nothing_behind_but_records_that_expire(bench: Bench) -> None:
    """After the work every key has a date of death or is permanent by design."""
    bench.enqueue(*"abc")
    bench.drive(bench.start())
    immortal = {key.decode() for key in bench.redis.keys("*") if bench.redis.ttl(key) == -1}
    permanent = {"batchmill:deployment", "batchmill:lanes", "batchmill:waiting"}
    lane = {f"batchmill:{{default}}:{name}" for name in ("prompts", "lane", "settled")}
    assert immortal == permanent | lane


def test_an_expired_prompt_is_retried_and_has_one_row(bench: Bench) -> None:
    """Expired rows cost nothing and come back in a later batch; only the last attempt makes a row."""
    bench.simulator.control.inject({"kind": "rows", "result": "expired", "fraction": 1.0, "times": 1})
    bench.enqueue("a", "b", id="same")
    bench.drive(bench.start())
    rows = bench.rows()
    assert [row["attempt"] for row in rows] == [2, 2]
    assert {row["result"]["type"] for row in rows} == {"succeeded"}
    assert bench.verdict()["prompts_billed_twice"] == 0


def test_a_prompt_that_always_fails_is_buried_after_its_last_attempt(bench: Bench) -> None:
    """max_attempts ends in an errored row and a dead letter, not in an endless loop."""
    fault = {"kind": "rows", "result": "errored", "error_type": "api_error", "fraction": 1.0, "times": None}
    bench.simulator.control.inject(fault)
    bench.enqueue("a")
    app = bench.start(lanes__default__max_attempts="3")
    bench.drive(app)
    [row] = bench.rows()
    assert row["attempt"] == 3
    assert row["result"]["error"]["error"]["type"] == "api_error"
    [letter] = app.ledger.dead_letters.list("default")
    assert (letter.reason, letter.attempt) == ("api_error", 3)


def test_a_redriven_dead_letter_is_a_prompt_again(bench: Bench) -> None:
    """Redriving gives fresh attempts under the same id."""
    bench.simulator.control.inject({"kind": "rows", "error_type": "invalid_request_error", "fraction": 1.0})
    bench.enqueue("a", id="x")
    app = bench.start()
    bench.drive(app)
    letters = [letter.letter_id for letter in app.ledger.dead_letters.list("default")]
    assert app.ledger.dead_letters.redrive("default", letters) == 1
    bench.drive(app)
    assert sorted((row["id"], row["attempt"], row["result"]["type"]) for row in bench.rows()) == [
        ("x", 1, "errored"),
        ("x", 1, "succeeded"),
    ]


def test_unusable_prompts_are_buried_with_a_row_and_block_nobody(bench: Bench) -> None:
    """Whatever is in a lane, its good prompts are answered and its bad ones explained."""
    stream = "batchmill:{default}:prompts"
    bench.redis.xadd(stream, {"nonsense": "1"})
    bench.redis.xadd(stream, {"params": b"\xff\xfe"})
    bench.redis.xadd(stream, {"params": '{"model":"m","max_tokens":1,"messages":[],"stream":true}', "id": "s"})
    bench.redis.xadd(stream, {"params": params(), "metadata": "not json", "id": "m"})
    bench.enqueue("good", id="g")
    app = bench.start()
    bench.drive(app)
    rows = {row["id"]: row for row in bench.rows()}
    assert len(rows) == 5
    assert rows["g"]["result"]["type"] == "succeeded"
    assert rows["s"]["batch_id"] is None
    assert rows["s"]["result"]["error"]["error"]["type"] == "invalid_request_error"
    reasons = sorted(letter.reason for letter in app.ledger.dead_letters.list("default"))
    assert reasons == ["bad_metadata", "no_params", "not_utf8", "stream"]


def test_a_lane_of_nothing_but_unusable_prompts_needs_no_api(bench: Bench) -> None:
    """A range without a usable prompt is delivered without a create."""
    for number in range(250):
        bench.redis.xadd("batchmill:{default}:prompts", {"params": "[]", "id": str(number)})
    bench.drive(bench.start())
    assert sorted(int(row["id"]) for row in bench.rows()) == list(range(250))
    assert bench.verdict()["prompts_committed"] == 0
