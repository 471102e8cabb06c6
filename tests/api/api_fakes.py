"""What the api is given in these tests: a key, a clock and somebody who listens."""

from collections.abc import Iterator
from dataclasses import dataclass, field

KEY = "sk-ant-canary-key"


@dataclass
class FakeClock:
    """Time that passes when somebody sleeps, or when a test says so."""

    at: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        """Tell the time."""
        return self.at

    def sleep(self, seconds: float) -> None:
        """Pass it."""
        self.slept.append(seconds)
        self.at += seconds


@dataclass
class Heard:
    """What an api reported."""

    calls: list[tuple[str, str]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def observe(self, operation: str, outcome: str, seconds: float) -> None:
        """Hear of a call."""
        assert seconds >= 0
        self.calls.append((operation, outcome))


class WholeBody:
    """The smallest body there is."""

    nbytes = len(b'{"requests":[]}')

    def __iter__(self) -> Iterator[bytes]:
        """Start over."""
        yield b'{"requests":[]}'


def nothing() -> None:
    """Record nothing before the last byte."""
