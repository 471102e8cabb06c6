"""What a process holds, as Linux tells it: memory, threads, open files; and what it says about itself."""

import re
import time
from dataclasses import dataclass
from pathlib import Path

LOOKS, PAUSE = 5, 0.1


@dataclass(frozen=True, slots=True)
class Vitals:
    """Bytes of memory, threads and open files. The least of a few looks: a step that is under way ends."""

    rss: int
    threads: int
    fds: int


def read_vitals(pid: int) -> Vitals:
    """Look at a process a few times."""
    looks = []
    for look in range(LOOKS):
        if look:
            time.sleep(PAUSE)
        status = Path(f"/proc/{pid}/status").read_text()
        numbers = {
            name: int(re.findall(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[0]) for name in ("VmRSS", "Threads")
        }
        looks.append((numbers["VmRSS"] * 1024, numbers["Threads"], sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())))
    return Vitals(*map(min, zip(*looks, strict=True)))


def count_series(exposition: str) -> int:
    """Count the time series of a scrape."""
    return sum(bool(line) and not line.startswith("#") for line in exposition.splitlines())
