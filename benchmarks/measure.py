"""One process, from its start to its end: how long it took, what it used."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEGABYTE = 1_000_000
RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds (user and system, its own children included) and the most memory that was resident, in bytes."""

    cpu: float
    rss: int


class Child:
    """A Python command of ours as a process of its own; `cost` is there once it has ended."""

    def __init__(self, words: Sequence[str], *, env: Mapping[str, str], log: Any) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BATCHMILL_", "ANTHROPIC_"))}
        kept.pop("PORT", None)
        self._words = " ".join(words)
        self.process = subprocess.Popen(
            [sys.executable, "-m", *words], env=kept | dict(env), stdout=subprocess.PIPE, stderr=log, text=True
        )
        self._cost: Cost | None = None

    def first_line(self) -> str:
        """Wait for the first line it prints, "" if it ends without one."""
        return self.process.stdout.readline().strip() if self.process.stdout is not None else ""

    def cost(self) -> Cost:
        """Wait for its end; raises SystemExit if that was no good one."""
        if self._cost is None:
            _, status, used = os.wait4(self.process.pid, 0)
            self.process.returncode = os.waitstatus_to_exitcode(status)
            if self.process.stdout is not None:
                self.process.stdout.close()
            self._cost = Cost(cpu=used.ru_utime + used.ru_stime, rss=used.ru_maxrss * RSS_UNIT)
        if self.process.returncode:
            raise SystemExit(f"{self._words}: exit status {self.process.returncode}")
        return self._cost

    def look(self) -> Cost:
        """Return what it has used by now, and what is resident now. Linux only."""
        status = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks = int(status[11]) + int(status[12])
        return Cost(cpu=ticks / os.sysconf("SC_CLK_TCK"), rss=int(status[21]) * os.sysconf("SC_PAGE_SIZE"))

    def peak(self) -> int:
        """Return the most that was resident so far, in bytes. Linux only.

        What `cost` says of a short-lived child may be its parent's peak: a process inherits that with its first breath.
        """
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    def stop(self) -> Cost:
        """Ask it to end, and wait."""
        self.process.send_signal(signal.SIGTERM)
        return self.cost()


@contextlib.contextmanager
def running(words: Sequence[str], *, env: Mapping[str, str], log: Path) -> Iterator[Child]:
    """Run a command; one that still runs at the end is killed."""
    with log.open("a") as errors:
        child = Child(words, env=env, log=errors)
        try:
            yield child
        finally:
            with contextlib.suppress(ProcessLookupError):
                if child.process.returncode is None:
                    child.process.kill()
                    child.process.wait()


def wait_until_idle(seconds: float = 0.2) -> None:
    """Let what the last run left to the kernel end before the next one begins."""
    os.sync()
    time.sleep(seconds)
