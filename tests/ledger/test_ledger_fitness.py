"""What of a server endangers a promise: said once for the check and for every daemon."""

from dataclasses import replace
from typing import Any

import pytest
from ledger_rig import Rig

from worker.ledger.fitness import EVICTS, LAZY, NO_FILE, NO_FSYNC, SNAPSHOTS, Weakness, weaknesses
from worker.ledger.store import LedgerRefusedError, ServerFacts, Store

FIT = ServerFacts(
    name="redis",
    version=(7, 2, 0),
    run_id="a" * 40,
    was_replica=False,
    appendonly=True,
    appendfsync="everysec",
    evicting=False,
    max_memory=0,
)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"appendfsync": "always"}, []),
        ({"evicting": True}, [EVICTS]),
        ({"appendonly": False}, [NO_FILE]),
        ({"appendonly": False, "snapshots": True}, [SNAPSHOTS]),
        ({"snapshots": True}, []),
        ({"appendfsync": "no"}, [NO_FSYNC]),
        ({"appendfsync": "no", "appendonly": False}, [NO_FILE]),
        ({"lazy_on_rewrite": True}, [LAZY]),
        ({"lazy_on_rewrite": True, "appendonly": False}, [NO_FILE]),
        ({"evicting": True, "appendfsync": "no", "lazy_on_rewrite": True}, [EVICTS, NO_FSYNC, LAZY]),
    ],
)
def test_each_weakness_is_told_and_no_other(changes: dict[str, Any], expected: list[Weakness]) -> None:
    """Of a file that is not kept nobody wants to know how it is synced."""
    assert weaknesses(replace(FIT, **changes)) == expected


def test_what_may_cost_prompts_is_grave() -> None:
    """A late fsync costs seconds, no file costs all; only eviction is nobody's wish."""
    every = (EVICTS, SNAPSHOTS, NO_FILE, NO_FSYNC, LAZY)
    assert [weakness for weakness in every if weakness.grave] == [EVICTS, SNAPSHOTS, NO_FILE]
    assert [weakness for weakness in every if weakness.fails] == [EVICTS]


def test_facts_that_may_not_be_asked_for_are_taken_for_usual(real_store: Store, server_url: str) -> None:
    """A managed Redis forbids CONFIG: that is no reason to stay away, nor to warn of what nobody saw."""
    real_store.write("config_set", "appendfsync", "no")
    real_store.write("acl_setuser", "tenant", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-config"])
    tenant = Store.connect(f"{server_url}?username=tenant&password=x", real_store.keys.prefix)
    try:
        assert real_store.facts().appendfsync == "no"
        facts = tenant.facts()
        assert (facts.appendfsync, facts.snapshots, facts.lazy_on_rewrite) == ("unknown", False, False)
        assert weaknesses(facts) == []
    finally:
        tenant.close()
        real_store.write("acl_deluser", "tenant")


@pytest.mark.parametrize(("change", "told"), [({"cluster": True}, "cluster mode"), ({"replica": True}, "read-only")])
def test_a_server_that_cannot_hold_all_keys_is_refused(
    real_rig: Rig, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], told: str
) -> None:
    """A cluster splits them, a replica takes none; the hint says where `redis.url` should lead."""
    facts = replace(real_rig.store.facts(), **change)
    monkeypatch.setattr(Store, "facts", lambda _store: facts)
    with pytest.raises(LedgerRefusedError, match=told) as caught:
        real_rig.ledger.deployment.check_server()
    assert "redis.url" in caught.value.hint
