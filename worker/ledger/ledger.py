"""The ledger: all that batchmill knows, in one bundle over one store."""

from dataclasses import dataclass
from typing import Self

from worker.ledger.batches import Batches
from worker.ledger.dead_letters import DeadLetters
from worker.ledger.deployment import Deployment
from worker.ledger.lanes import Lanes
from worker.ledger.prompts import Prompts
from worker.ledger.reads import Reads
from worker.ledger.store import Store


@dataclass(frozen=True, slots=True)
class Ledger:
    """One part for each noun."""

    store: Store
    deployment: Deployment
    lanes: Lanes
    batches: Batches
    prompts: Prompts
    dead_letters: DeadLetters
    reads: Reads

    @classmethod
    def over(cls, store: Store) -> Self:
        """Build all parts over one store."""
        batches, deployment = Batches(store), Deployment(store)
        return cls(
            store=store,
            deployment=deployment,
            lanes=Lanes(store),
            batches=batches,
            prompts=Prompts(store),
            dead_letters=DeadLetters(store),
            reads=Reads(store, batches, deployment),
        )
