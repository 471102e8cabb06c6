import fakeredis
import pytest
import redis
from ledger_rig import LANE, PREFIX, Rig

from worker.ledger.keys import Keys
from worker.ledger.ledger import Ledger
from worker.ledger.store import ONE_SLOT, LedgerFullError, LedgerRefusedError, LedgerUnavailableError, Store


def test_a_server_that_is_not_there_is_unavailable() -> None:
    """Nothing is lost: the step is taken again. The error names no address, which may hold a password."""
    store = Store.connect("redis://:secret@127.0.0.1:1/0", PREFIX, timeout=0.2)
    with pytest.raises(LedgerUnavailableError) as caught:
        store.now()
    assert "secret" not in repr(caught.value)
    assert caught.value.__cause__ is None
    store.close()


def test_a_connection_of_its_own_is_as_unavailable() -> None:
    """It is connected when it is asked for: that may fail in the midst of a POST, in a word of ours like all else."""
    store = Store.connect("redis://127.0.0.1:1/0", PREFIX, timeout=0.2)
    with pytest.raises(LedgerUnavailableError):
        store.write_connection()
    store.close()


def test_an_address_that_is_none_is_refused() -> None:
    """An operator has to change it; what was given is not repeated."""
    with pytest.raises(LedgerRefusedError) as caught:
        Store.connect("http://:secret@redis", PREFIX)
    assert "secret" not in str(caught.value)


def test_a_wrong_password_is_refused(real_store: Store, server_url: str) -> None:
    """Trying again would not help."""
    real_store.write("acl_setuser", "tenant", enabled=True, passwords=["+right"], keys=["*"], commands=["+@all"])
    tenant = Store.connect(f"{server_url}?username=tenant&password=wrong", PREFIX)
    try:
        with pytest.raises(LedgerRefusedError) as caught:
            tenant.now()
        assert "wrong" not in str(caught.value)
    finally:
        tenant.close()
        real_store.write("acl_deluser", "tenant")


def test_a_command_that_makes_no_sense_is_refused(store: Store) -> None:
    """A bug of ours or a stranger's key; the error names the word, not the data."""
    store.write("set", "batchmill:stranger", "secret prompt", ex=60)
    with pytest.raises(LedgerRefusedError, match="WRONGTYPE") as caught:
        store.read("hgetall", "batchmill:stranger")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("word", ["BUSY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"])
def test_a_server_that_cannot_answer_now_is_unavailable(real_store: Store, word: str) -> None:
    """It loads its data, or runs somebody's long script: later it can."""
    with pytest.raises(LedgerUnavailableError):
        real_store.write("eval", f"return redis.error_reply('{word} not now')", 0)


def test_an_error_for_want_of_memory_is_told_apart(real_store: Store) -> None:
    """From a script or from a command."""
    with pytest.raises(LedgerFullError):
        real_store.write("eval", "return redis.error_reply('OOM command not allowed')", 0)


def test_memory_that_a_nested_call_wanted_is_memory_too(real_store: Store) -> None:
    """Some servers put an error of a script's call into one of the script."""
    with pytest.raises(LedgerFullError):
        real_store.write("eval", "return redis.error_reply('ERR script: -OOM command not allowed')", 0)


def test_several_reads_make_one_round_trip(store: Store) -> None:
    """A reply that is an error stands in its place; the others are good."""
    store.write("set", "batchmill:stranger", "x", ex=60)
    answers = store.read_all([("get", "batchmill:stranger"), ("hget", "batchmill:stranger", "a"), ("time",)])
    assert answers[0] == b"x"
    assert isinstance(answers[1], Exception)
    assert len(answers) == 3


def test_many_calls_of_a_script_make_one_round_trip(store: Store) -> None:
    """Each answer in its place, even when the server has forgotten the script."""
    store.write("script_flush")
    calls = [({"hash": f"batchmill:h{number}", "unless": "a"}, ["a", "1"]) for number in (1, 2, 1)]
    assert store.run_many("mark", calls) == [b"OK", b"OK", b"STALE"]
    store.write("delete", "batchmill:h1", "batchmill:h2")


def test_a_call_that_fails_does_not_take_the_others_with_it(real_store: Store) -> None:
    """Its error stands in its place, in the ledger's words."""
    real_store.write("set", "batchmill:stranger", "x", ex=60)
    calls = [({"hash": key, "unless": ""}, ["a", "1"]) for key in ("batchmill:stranger", "batchmill:h1")]
    refused, answer = real_store.run_many("mark", calls)
    assert isinstance(refused, LedgerRefusedError)
    assert answer == b"OK"
    real_store.write("delete", "batchmill:h1")


def test_the_clock_is_the_servers(real_store: Store) -> None:
    """Replicas disagree about the time; decisions do not."""
    seconds, micros = real_store.read("time")
    assert real_store.now() == pytest.approx(float(seconds) + float(micros) / 1e6, abs=5)


def test_an_old_server_is_refused(real_rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would not know allow-oom, and fail at the worst of times."""
    facts = real_rig.ledger.deployment.check_server()
    assert facts.version >= (7, 0)
    monkeypatch.setattr("worker.ledger.deployment.MIN_VERSION", (99, 0))
    with pytest.raises(LedgerRefusedError, match="is too old"):
        real_rig.ledger.deployment.check_server()


def test_two_deployments_share_a_server_under_different_prefixes() -> None:
    """Neither sees the other's lanes."""
    server = fakeredis.FakeServer()
    stores = []
    for prefix in ("one:", "other:"):
        client = fakeredis.FakeRedis(protocol=2, server=server)
        stores.append(Store(once=client, again=client, keys=Keys(prefix), flags=False))
    rigs = [Rig(Ledger.over(store)) for store in stores]
    rigs[0].recover()
    rigs[0].sealed(2)
    assert rigs[1].ledger.batches.live(LANE) == []
    assert rigs[1].ledger.lanes.length(LANE) == 0
    for store in stores:
        store.close()


@pytest.mark.parametrize(
    ("error", "told", "hint"),
    [
        (redis.exceptions.AskError("7000 127.0.0.1:7001"), LedgerUnavailableError, ""),
        (redis.exceptions.TryAgainError("TRYAGAIN"), LedgerUnavailableError, ""),
        (redis.exceptions.MovedError("7000 127.0.0.1:7001"), LedgerRefusedError, ONE_SLOT),
    ],
)
def test_keys_that_change_hands_are_waited_for_and_keys_elsewhere_are_not(
    error: Exception, told: type[Exception], hint: str
) -> None:
    """While a slot moves its keys are back in seconds; a plain address of the wrong node is an operator's to change."""

    def fail() -> None:
        raise error

    with pytest.raises(told) as caught:
        Store._reach(fail)
    assert getattr(caught.value, "hint", "") == hint
