"""Keeping a claim alive while a long step runs."""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from worker.core.model import Claim
from worker.ledger.batches import Batches
from worker.ledger.store import LedgerFullError, LedgerRefusedError, LedgerUnavailableError


class LostLeaseError(Exception):
    """Somebody else has claimed the batch; what was done here since is thrown away."""


class StoppingError(Exception):
    """This process is stopping; the step hands its batch over instead of finishing it."""


@dataclass(frozen=True, slots=True)
class Leases:
    """Makes keepers of leases that last `seconds`; once `stopping` is set, every `check` interrupts its step."""

    batches: Batches
    seconds: float
    stopping: threading.Event

    def fresh(self, claims: Iterable[Claim]) -> Iterator[Claim]:
        """Yield the claims that still stand, each renewed: a knock may have waited for longer than a lease."""
        for claim in claims:
            if self.batches.renew(claim, self.seconds):
                yield claim

    def keep(self, claim: Claim) -> "LeaseKeeper":
        """Return a context manager that renews a claim."""
        return LeaseKeeper(batches=self.batches, claim=claim, lease=self.seconds, stopping=self.stopping)


class LeaseKeeper:
    """Renews one claim every third of the lease from a thread of its own, until the `with` block ends.

    Losing the lease is no danger, since every commit carries the fence, only wasted work: long steps call `check`.
    """

    def __init__(self, *, batches: Batches, claim: Claim, lease: float, stopping: threading.Event) -> None:
        self._batches = batches
        self._claim = claim
        self._lease = lease
        self._stopping = stopping
        self._done = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._keep, name=f"lease-{claim.uid}", daemon=True)

    def __enter__(self) -> Self:
        """Start renewing."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop renewing; the claim itself is ended by whatever commit follows, or by time."""
        self._done.set()
        self._thread.join()

    def check(self) -> None:
        """Raise LostLeaseError or StoppingError when going on makes no sense."""
        if self._lost:
            raise LostLeaseError
        if self._stopping.is_set():
            raise StoppingError

    def _keep(self) -> None:
        while not self._done.wait(self._lease / 3):
            try:
                if not self._batches.renew(self._claim, self._lease):
                    self._lost = True
                    return
            except (LedgerUnavailableError, LedgerFullError, LedgerRefusedError):
                continue  # the step itself will meet the same trouble and report it
