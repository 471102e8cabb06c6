from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rig import Rig, deployment, params, wait_until

PATIENCE_SECONDS = 8.0
"""What a busy machine may add to a wait that is promised."""


def waits(rig: Rig) -> list[tuple[float, float]]:
    """Return for each remote batch how long its oldest and its youngest prompt waited for it, in seconds."""
    ids: Any = rig.simulator.control.ledger(custom_ids=True)["custom_ids"]
    created = {batch["id"]: datetime.fromisoformat(batch["created_at"]).timestamp() for batch in rig.created()}
    found = []
    for batch, custom_ids in ids.items():
        instants = [int(custom_id.split("_", 3)[3].split("-")[0]) / 1000 for custom_id in custom_ids]
        found.append((created[batch] - min(instants), created[batch] - max(instants)))
    return found


def test_twenty_thousand_prompts_come_back_once_each(rig: Rig) -> None:
    """Plain XADD in, one row each out, and no batch over its ceilings on the way."""
    worker = rig.start(lanes__default__max_count="1000", lanes__default__max_age="1s")
    names = rig.enqueue(20_000)
    rig.await_rows(20_000, timeout=90)
    rig.assert_exact(names)
    assert all(row["metadata"] == {"of": row["id"]} for row in rig.rows())
    assert all(batch["count"] <= 1000 for batch in rig.created())
    counted = partial(worker.metric, "batchmill_prompts_settled_total", result="succeeded")
    wait_until(lambda: counted() >= 20_000, description="every prompt is counted as settled")
    assert counted() == 20_000
    assert worker.metric("batchmill_prompts_settled_total") == 20_000
    assert worker.metric("batchmill_batches_sealed_total") == len(rig.created())
    wait_until(lambda: not any(worker.status()["lanes"]["default"]["batches"].values()), description="no batch is open")
    assert worker.stop() == 0


def test_a_prompt_waits_for_company_but_never_longer_than_max_age(rig: Rig) -> None:
    """The window closes when its oldest prompt is `max_age` old: not earlier, and about a tick later at most."""
    rig.start(lanes__default__max_age="2s")
    total = 0
    for number in range(3):
        total += len(rig.enqueue(3, name=f"round{number}"))
        rig.await_rows(total)
    found = waits(rig)
    assert len(found) == 3
    assert all(2.0 <= oldest < 2.0 + PATIENCE_SECONDS for oldest, _ in found), found


def test_a_window_that_is_full_waits_for_nothing(rig: Rig) -> None:
    """`max_count` seals at once, however long the window might stay open."""
    rig.start(lanes__default__max_age="1h", lanes__default__max_count="50")
    rig.enqueue(120)
    rig.await_rows(100)
    assert [batch["count"] for batch in rig.created()] == [50, 50]
    assert len(rig.row_lines()) == 100


def test_no_body_is_larger_than_max_bytes(rig: Rig) -> None:
    """Prompts of very different sizes are packed below the ceiling, the body's envelope included."""
    rig.start(lanes__default__max_bytes="100kB", lanes__default__max_age="300ms")
    sizes = [10, 40_000, 95_000, 60_000, 200, 99_000, 30_000, 30_000, 30_000, 30_000]
    rig.add({"params": params("x" * size), "id": f"n{number}"} for number, size in enumerate(sizes))
    rig.await_rows(len(sizes))
    rig.assert_exact(f"n{number}" for number in range(len(sizes)))
    assert max(batch["body_bytes"] for batch in rig.created()) <= 100_000


def test_prompts_of_ten_megabytes_come_back(rig: Rig) -> None:
    """Size alone is no reason to refuse a prompt: six of ten megabytes make batches below 25 MB."""
    rig.start(lanes__default__max_bytes="25MB")
    rig.add({"params": params(str(number) * 10_000_000), "id": f"n{number}"} for number in range(6))
    rig.await_rows(6)
    rig.assert_exact(f"n{number}" for number in range(6))
    bodies = [batch["body_bytes"] for batch in rig.created()]
    assert sum(bodies) > 60_000_000
    assert max(bodies) <= 25_000_000


def test_a_lane_nobody_configured_is_found_at_the_start(rig: Rig) -> None:
    """A plain XADD makes a lane; whoever starts next serves it."""
    names = rig.enqueue(5, lane="found.by-scan")
    rig.start()
    rig.await_rows(5)
    rig.assert_exact(names)
    assert {row["lane"] for row in rig.rows()} == {"found.by-scan"}


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_lane_nobody_configured_is_found_while_running(tmp_path: Path) -> None:
    """A worker looks for new lanes once a minute."""
    with deployment(tmp_path) as rig:
        rig.start()
        names = rig.enqueue(5, lane="newcomer")
        rig.await_rows(5, timeout=90)
        rig.assert_exact(names)
