"""Workspaces: a key that was moved to another workspace sees none of our batches, so nothing may be concluded."""

from worker.core.model import State
from worker.ledger.ledger import Ledger
from worker.parking import Parking

REASON = "workspace"
_THERE = frozenset({State.IN_PROGRESS, State.CANCELING, State.ENDED, State.DELIVERED})


class Workspaces:
    """Compares the workspace that answers with the one our batches are in."""

    def __init__(self, *, ledger: Ledger, parking: Parking) -> None:
        self._ledger = ledger
        self._parking = parking

    def admits(self, lane: str, workspace_id: str | None) -> bool:
        """Say whether this workspace is ours; if not, the lane is parked until the old key or `resume`.

        With nothing open in the old workspace there is nothing to protect, and the new one becomes ours.
        """
        if workspace_id is None:
            return True
        known = self._ledger.deployment.recall("workspace_id")
        if known == workspace_id:
            return True
        if known is None or not self._open_batches():
            self._ledger.deployment.note(workspace_id=workspace_id)
            return True
        self._parking.park(lane, REASON)
        return False

    def _open_batches(self) -> bool:
        lanes = self._ledger.deployment.lanes()
        live = [(lane, uid) for lane in lanes for uid in self._ledger.batches.live(lane)]
        batches = self._ledger.batches.get_many(live)
        return any(batch.state is State.SUBMITTING or (batch.remote_id and batch.state in _THERE) for batch in batches)
