import re
from pathlib import Path

import pytest
from rig import deployment, params, wait_until

MB = 1_000_000
LIMIT = 150 * MB


def peak(pid: int) -> int:
    """Return the most memory a process has had so far, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak of a process")
def test_the_largest_batch_needs_little_memory(tmp_path: Path) -> None:
    """100,000 prompts of 2.4 KB go out as one body of 245 MB and come back, and the worker stays below 150 MB."""
    with deployment(tmp_path, answer_bytes=1000) as rig:
        names = [f"n{number}" for number in range(100_000)]
        rig.add({"params": params("x" * 2250), "id": name} for name in names)
        worker = rig.start(
            lanes__default__max_count="100000", lanes__default__max_bytes="250MB", lanes__default__max_age="1s"
        )
        idle = peak(worker.pid)
        rig.await_rows(100_000, timeout=300)
        wait_until(
            lambda: worker.metric("batchmill_prompts_settled_total") == 100_000,
            description="all is settled",
            timeout=90,
        )
        assert [batch["count"] for batch in rig.created()] == [100_000]
        assert rig.created()[0]["body_bytes"] > 240 * MB
        assert peak(worker.pid) < LIMIT, f"{peak(worker.pid) / MB:.0f} MB, {idle / MB:.0f} MB of them while idle"
        rig.assert_exact(names)
        assert worker.stop() == 0
