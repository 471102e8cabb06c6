"""What is read back from the API when Redis has forgotten: batches that can be known again, and those that cannot."""

from worker.recovery.orphans import Orphans
from worker.recovery.recovery import Recovery

__all__ = ["Orphans", "Recovery"]
