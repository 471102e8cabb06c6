"""Orphans: remote batches of ours whose prompts are gone, because somebody emptied Redis.

Nothing can be done with their results: what the prompts were called, and where their lane delivers, went with them.
They are named and counted once, so that an operator can fetch what was paid for while the API keeps it.
"""

from worker.batches_api import ApiError, BatchesApi
from worker.clock import Clock
from worker.config import Config
from worker.core.custom_id import Token, is_of_lane
from worker.core.model import RemoteBatch
from worker.ledger.ledger import Ledger
from worker.recovery.strays import Strays
from worker.telemetry import Telemetry


class Orphans:
    """Counts them, when all of them must have ended."""

    def __init__(
        self,
        *,
        config: Config,
        ledger: Ledger,
        api: BatchesApi,
        telemetry: Telemetry,
        clock: Clock,
        deployment: str,
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._telemetry = telemetry
        self._clock = clock
        self._strays = Strays(config=config, ledger=ledger, api=api, clock=clock, deployment=deployment)
        self._asked_at = float("-inf")

    def step(self, emptied_at: float) -> None:
        """Look once; a replica that counts them after another one says nothing."""
        submit = self._config.submit
        if self._ledger.store.now() < emptied_at + submit.horizon:
            return  # a POST that was under way may still become a batch
        if self._clock.monotonic() < self._asked_at + submit.reconcile_interval:
            return
        self._asked_at = self._clock.monotonic()
        try:
            strays = self._strays.look(emptied_at)
        except ApiError:
            return
        if strays is None:
            return
        orphans = [(token, remote) for token, remote in strays if not self._is_known(token)]
        if self._ledger.deployment.count_orphans(len(orphans)):
            self._tell(orphans)

    def _is_known(self, token: Token) -> bool:
        lanes = [lane for lane in self._ledger.deployment.lanes() if is_of_lane(token.uid, lane)]
        return any(self._ledger.batches.get(lane, token.uid) is not None for lane in lanes)

    def _tell(self, orphans: list[tuple[Token, RemoteBatch]]) -> None:
        for token, remote in orphans:
            self._telemetry.remote_orphaned(token.uid, remote)
