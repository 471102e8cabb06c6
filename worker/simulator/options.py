"""Every knob of the simulator, with the real API's value as default wherever there is one."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the simulated account and its batches behave. Times are seconds, sizes bytes. Raises ValueError.

    `ends_after` is how long a batch is processed, `lifetime` when what is left of it expires, `retention` when its
    results are archived; all are counted from its creation. `cancel_takes` is the time spent in `canceling`.
    `workspaces` maps API keys to workspace ids; without it every key that starts with `sk-ant-` opens `wrkspc_sim`.
    `requests_per_minute` and `queue_limit` (prompts not yet processed, over all workspaces) refuse nothing while None.
    `poll_hint` is the `retry-after` of a batch in progress: None means 10 or `ends_after` if that is less, 0 leaves it
    out. `framing` is how results travel, `unknown_cursor` what a list answers to a cursor it does not know; the real
    API's choice is undocumented in both. `clock` gives Unix seconds, and `Control.advance` adds to it.
    `answer_bytes` is the length of an answer's text; a result line has some 500 bytes more. `models` replaces the
    built-in rule of which model names are known. `keep` is a directory in which the account outlives its process.
    """

    bind: str = "127.0.0.1"
    seed: int = 0
    ends_after: float = 1.0
    cancel_takes: float = 0.1
    lifetime: float = 86_400.0
    retention: float = 29 * 86_400.0
    body_timeout: float = 60.0
    idle_timeout: float = 300.0
    max_requests: int = 100_000
    max_body_bytes: int = 256_000_000
    requests_per_minute: int | None = None
    queue_limit: int | None = None
    workspaces: Mapping[str, str] | None = None
    organization: str = "5eed0000-0000-4000-8000-000000000000"
    models: Collection[str] | None = None
    max_output_tokens: int = 128_000
    answer_bytes: int = 220
    framing: Literal["chunked", "length", "close"] = "chunked"
    moving_counts: bool = False
    poll_hint: int | None = None
    unknown_cursor: Literal["refuse", "empty"] = "refuse"
    clock: Callable[[], float] = time.time
    keep: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what could only puzzle later."""
        for name in ("ends_after", "cancel_takes", "answer_bytes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        for name in ("lifetime", "retention", "body_timeout", "idle_timeout", "max_requests", "max_body_bytes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive")
        for name in ("requests_per_minute", "queue_limit"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, or None for no limit")
        if self.framing not in ("chunked", "length", "close"):
            raise ValueError("framing must be chunked, length or close")

    def hint(self) -> int | None:
        """`retry-after` in whole seconds for a batch in progress."""
        if self.poll_hint is not None:
            return self.poll_hint or None
        return max(1, min(10, int(self.ends_after)))
