"""The ticker: claims what is due in every lane and knocks. Every replica has one; none is elected."""

from collections import defaultdict

from worker.actors import QUEUE_OF, Knocks, Queue
from worker.broker import KnockBroker
from worker.clock import Clock
from worker.config import Config
from worker.core.model import Claim
from worker.ledger.claims import claim_due
from worker.ledger.ledger import Ledger

CLAIMS_PER_LANE = 200
BACKLOG = 500
"""With so many knocks unanswered in a queue more would help nobody: those who play its role are busy or gone."""


class Ticker:
    """Turns due batches into knocks."""

    def __init__(self, *, config: Config, ledger: Ledger, broker: KnockBroker, knocks: Knocks, clock: Clock) -> None:
        self._config = config
        self._ledger = ledger
        self._broker = broker
        self._knocks = knocks
        self._clock = clock
        self._knocked = False

    def step(self) -> float:
        """Claim and knock once; returns seconds until the next tick."""
        full = {queue for queue in Queue if self._broker.backlog(queue) >= BACKLOG} if self._knocked else set()
        waiting = [state for state, queue in QUEUE_OF.items() if queue in full]
        claimed: dict[Queue, list[Claim]] = defaultdict(list)
        troubles: list[Exception] = []
        for claims in claim_due(
            self._ledger.store,
            self._ledger.deployment.lanes(),
            limit=CLAIMS_PER_LANE,
            lease=self._config.lease,
            passing_over=waiting,
        ).values():
            if isinstance(claims, Exception):
                troubles.append(claims)
                continue
            for claim in claims:
                if claim.state in QUEUE_OF:
                    claimed[QUEUE_OF[claim.state]].append(claim)
        self._send(claimed)
        self._knocked = bool(claimed or full)
        for trouble in troubles:  # a lane in trouble keeps no other waiting
            raise trouble
        return self._config.tick * (0.75 + self._clock.jitter() / 2)

    def _send(self, claimed: dict[Queue, list[Claim]]) -> None:
        """Send all polls as one knock, which one list call may answer, and each other claim as its own."""
        for queue, claims in claimed.items():
            if queue is Queue.POLL:
                self._knocks.knock(queue, claims)
            else:
                for claim in claims:
                    self._knocks.knock(queue, [claim])
