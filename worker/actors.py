"""The actors: what happens on a knock. They look at the ledger, do the next legal thing, and end quietly."""

from collections.abc import Callable, Sequence
from enum import StrEnum

import dramatiq

from worker.batches_api import ApiError
from worker.broker import KnockBroker
from worker.core.model import Claim, State
from worker.ledger.store import LedgerFullError, LedgerRefusedError, LedgerUnavailableError
from worker.telemetry import Telemetry


class Queue(StrEnum):
    """The queues of knocks, one for each kind of step."""

    SUBMIT = "submit"
    POLL = "poll"
    DRAIN = "drain"


QUEUE_OF: dict[State, Queue] = {
    State.SEALED: Queue.SUBMIT,
    State.SUBMITTING: Queue.SUBMIT,
    State.IN_PROGRESS: Queue.POLL,
    State.CANCELING: Queue.POLL,
    State.ENDED: Queue.DRAIN,
    State.DELIVERED: Queue.DRAIN,
}

ROLE_OF = {Queue.SUBMIT: "submitter", Queue.POLL: "poller", Queue.DRAIN: "drainer"}
"""Who answers knocks of a queue, as logs and metrics name it."""

_PRIORITY = {Queue.POLL: 0, Queue.SUBMIT: 1, Queue.DRAIN: 2}
"""Lower goes first: a poll is short, and a batch that is not submitted earns nothing."""

Step = Callable[[Sequence[Claim]], None]
Actor = dramatiq.Actor[[list[list[str]]], None]


class Knocks:
    """Declares one actor per queue and sends knocks to them."""

    def __init__(self, *, broker: KnockBroker, steps: dict[Queue, Step], telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self.followed: Callable[[], None] = _nobody
        """Called after every step: what it changed may be another step's turn already."""
        self._actors = {queue: self._declare(broker, queue, steps.get(queue)) for queue in Queue}

    def knock(self, queue: Queue, claims: Sequence[Claim]) -> None:
        """Ask any replica to take the next step of these batches."""
        words = [[claim.lane, claim.uid, claim.fence, claim.state.value] for claim in claims]
        self._actors[queue].send(words)

    def _declare(
        self, broker: KnockBroker, queue: Queue, step: Step | None
    ) -> "dramatiq.Actor[[list[list[str]]], None]":
        def follow(words: list[list[str]]) -> None:
            if step is None:
                return  # a role that this process does not play; its queue is not consumed here
            claims = [Claim(lane, uid, fence, State(state)) for lane, uid, fence, state in words]
            self._follow(queue, step, claims)

        declare = dramatiq.actor(
            actor_name=queue.value, queue_name=queue.value, broker=broker, priority=_PRIORITY[queue]
        )
        return declare(follow)

    def _follow(self, queue: Queue, step: Step, claims: Sequence[Claim]) -> None:
        role = ROLE_OF[queue]
        try:
            step(claims)
        except LedgerUnavailableError as error:
            self._telemetry.redis_lost(role, type(error).__name__)
        except (LedgerFullError, LedgerRefusedError, ApiError) as error:
            self._telemetry.warning("step.failed", role=role, error=str(error))
        except Exception as error:  # noqa: BLE001 - the batch comes due again; the error is counted and logged
            self._telemetry.role_failed(role, error)
        else:
            self._telemetry.redis_back(role)
            self._telemetry.role_ticked(role)
            self.followed()


def _nobody() -> None:
    """Nobody waits for steps in a process without loops."""
