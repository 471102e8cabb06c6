"""Scripted faults: what may go wrong, when, and how often.

`BEFORE` faults strike an admitted request before anything is done, `AFTER` faults one that succeeded, once it is
done; of each only the oldest that matches strikes, besides those that merely wait. `SHAPE` faults change what is
created or sent, and all that match apply. `AT_ONCE` kinds need no request: without `on` they act when posted.
"""

import random
import threading
from typing import Annotated, Literal

import msgspec

Kind = Literal[
    "status", "delay", "reset_before", "not_found", "revoke_key", "restore_key",
    "commit_then_status", "drop_reply", "hold", "garbage", "late_commit",
    "rows", "hide_from_list", "stuck", "end_now",
    "cut_results", "duplicate_line", "missing_line", "foreign_line",
]  # fmt: skip
On = Literal["create", "retrieve", "list", "results", "cancel", "delete", "any"]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]

BEFORE = frozenset({"status", "delay", "reset_before", "not_found", "revoke_key"})
AFTER = frozenset({"commit_then_status", "drop_reply", "hold", "garbage", "late_commit"})
SHAPE_BATCH = frozenset({"rows", "hide_from_list", "stuck", "end_now"})
SHAPE_RESULTS = frozenset({"cut_results", "duplicate_line", "missing_line", "foreign_line"})
AT_ONCE = frozenset({"revoke_key", "restore_key", "stuck", "end_now"})
WAITS = frozenset({"delay", "hold"})  # these let another fault strike the same request


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One scripted fault, as posted.

    It skips the first `after` matching requests, then strikes `times` times (null: for ever), each time with
    `probability`; `not_found` counts these for each batch apart. `batch` narrows it to one batch id. `early` strikes
    a create before its body is read. `fraction` is a share of rows or result lines, `lines` a number of result lines.
    """

    kind: Kind
    on: On | None = None
    times: Count | None = 1
    after: Count = 0
    probability: Share = 1.0
    batch: str | None = None
    early: bool = False
    status: Annotated[int, msgspec.Meta(ge=400, le=599)] = 500
    error_type: str | None = None
    message: str = ""
    error_code: str | None = None
    retry_after: Seconds | None = None
    seconds: Seconds = 1.0
    fraction: Share = 0.5
    mode: Literal["reset", "clean"] = "reset"
    mid_line: bool = False
    lines: Count = 1
    result: Literal["succeeded", "errored", "canceled", "expired"] = "errored"
    stop_reason: str = ""
    body: str = '{"id": "msgbatch_'
    key: str | None = None

    def __post_init__(self) -> None:
        """Fill in or refuse the operation; msgspec turns the ValueError into its own."""
        only = "create" if self.kind in SHAPE_BATCH | {"late_commit"} else None
        only = "results" if self.kind in SHAPE_RESULTS else only
        if self.on is None and self.kind not in AT_ONCE and only is None:
            raise ValueError("`on` says which operation it strikes")
        if self.on is not None and only is not None and self.on != only:
            raise ValueError(f"`{self.kind}` strikes only `{only}`")
        if self.kind == "restore_key" and self.on is not None:
            raise ValueError("`restore_key` acts at once and takes no `on`")
        if self.early and (self.kind not in BEFORE or self.on != "create"):
            raise ValueError("only what strikes a create before it is done can be `early`")

    @property
    def at_once(self) -> bool:
        """Whether it acts when posted instead of waiting for a request."""
        return self.kind in AT_ONCE and self.on is None

    @property
    def operation(self) -> str:
        """The operation it waits for, or `any`."""
        return self.on or ("results" if self.kind in SHAPE_RESULTS else "create")


class Scripted:
    """A fault in force, and how often it has been met and has struck."""

    def __init__(self, number: int, fault: Fault) -> None:
        self.number = number
        self.fault = fault
        self.struck = 0
        self._seen: dict[str, int] = {}
        self._left: dict[str, int | None] = {}

    def strikes(self, operation: str, batch_id: str | None, chance: random.Random) -> bool:
        """Count this request and say whether it is hit."""
        fault = self.fault
        if fault.operation not in (operation, "any") or (fault.batch and fault.batch != batch_id):
            return False
        key = batch_id or "" if fault.kind == "not_found" else ""
        left = self._left.setdefault(key, fault.times)
        self._seen[key] = self._seen.get(key, 0) + 1
        if self._seen[key] <= fault.after or left == 0:
            return False
        if fault.probability < 1 and chance.random() >= fault.probability:
            return False
        self._left[key] = None if left is None else left - 1
        self.struck += 1
        return True

    def describe(self) -> dict[str, object]:
        """The fault as JSON, with `number` and `struck`; its key, if any, is left out."""
        return {**msgspec.to_builtins(self.fault), "number": self.number, "struck": self.struck, "key": None}


class FaultBook:
    """The faults in force, oldest first. Thread-safe. Each `life` of a kept account has chances of its own."""

    def __init__(self, seed: int, *, life: int = 0) -> None:
        self._chance = random.Random(f"faults {seed}" + (f" life {life}" if life else ""))  # noqa: S311  # repeatable
        self._scripted: list[Scripted] = []
        self._number = 0
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> int:
        """Put a fault in force; returns its number."""
        with self._lock:
            self._number += 1
            self._scripted.append(Scripted(self._number, fault))
            return self._number

    def draw(self, operation: str, batch_id: str | None, kinds: frozenset[str], *, early: bool = False) -> list[Fault]:
        """Return what strikes this request, oldest first: every shape and wait, and at most one of the others."""
        hits: list[Fault] = []
        with self._lock:
            for scripted in self._scripted:
                fault = scripted.fault
                if fault.kind not in kinds or fault.early != early:
                    continue
                if scripted.strikes(operation, batch_id, self._chance):
                    hits.append(fault)
                    if fault.kind in (BEFORE | AFTER) - WAITS:
                        kinds = kinds - BEFORE - AFTER
        return hits

    def clear(self) -> int:
        """Forget all; returns how many there were."""
        with self._lock:
            count = len(self._scripted)
            self._scripted.clear()
            return count

    def describe(self) -> list[dict[str, object]]:
        """All faults in force as JSON."""
        with self._lock:
            return [scripted.describe() for scripted in self._scripted]


def parse(tree: object) -> list[Fault]:
    """One fault or a list of them from decoded JSON; raises msgspec.ValidationError."""
    return msgspec.convert(tree if isinstance(tree, list) else [tree], list[Fault])
