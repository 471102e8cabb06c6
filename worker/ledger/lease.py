"""Keeping a claim alive while a long step runs."""

import threading
from types import TracebackType
from typing import Self

from worker.core.model import Claim
from worker.ledger.batches import Batches
from worker.ledger.store import LedgerFullError, LedgerRefusedError, LedgerUnavailableError


class LeaseKeeper:
    """Renews one claim every third of the lease from a thread of its own, until the `with` block ends.

    Losing the lease is no danger, since every commit carries the fence, only wasted work: long steps ask `lost`.
    """

    def __init__(self, *, batches: Batches, claim: Claim, lease: float) -> None:
        self._batches = batches
        self._claim = claim
        self._lease = lease
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease-{claim.uid}", daemon=True)
        self.lost = False

    def __enter__(self) -> Self:
        """Start renewing."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop renewing; the claim itself is ended by whatever commit follows, or by time."""
        self._stop.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._stop.wait(self._lease / 3):
            try:
                if not self._batches.renew(self._claim, self._lease):
                    self.lost = True
                    return
            except (LedgerUnavailableError, LedgerFullError, LedgerRefusedError):
                continue  # the step itself will meet the same trouble and report it
