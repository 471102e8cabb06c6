"""The account behind the API: new in each process, or kept on disk and brought back at the next start."""

from dataclasses import dataclass
from typing import Self

import msgspec

from worker.simulator.audit import Audit
from worker.simulator.instants import Timeline
from worker.simulator.journal import Journal
from worker.simulator.keys import Keyring
from worker.simulator.notes import Attempt, Moved, Revoked, Started, forget
from worker.simulator.options import Options
from worker.simulator.remote import Remote


@dataclass(frozen=True, slots=True)
class Account:
    """What is remembered: batches, time, keys and the record of POSTs. `life` counts earlier processes."""

    timeline: Timeline
    audit: Audit
    keyring: Keyring
    remote: Remote
    life: int
    journal: Journal | None

    @classmethod
    def open(cls, options: Options) -> Self:
        """Open a new account, or the kept one. Raises OSError, and ValueError for a record that cannot be read."""
        if options.keep is None:
            return cls._of(options, None, life=0)
        journal = Journal(options.keep)
        try:
            past = list(journal.read())
            account = cls._of(options, journal, life=sum(isinstance(record, Started) for record in past))
            for record in past:
                match record:
                    case Started():
                        pass
                    case Moved():
                        account.timeline.recall(record)
                    case Revoked():
                        account.keyring.recall(record)
                    case Attempt():
                        account.audit.recall(record)
                    case _:
                        account.remote.recall(record)
        except (msgspec.MsgspecError, KeyError) as error:
            journal.close()
            raise ValueError(f"the account kept in {options.keep} cannot be read: {error}") from error
        journal.note(Started(account.timeline.now()))
        return account

    @classmethod
    def _of(cls, options: Options, journal: Journal | None, *, life: int) -> Self:
        note = forget if journal is None else journal.note
        timeline = Timeline(options.clock, note=note)
        return cls(
            timeline=timeline,
            audit=Audit(note=note),
            keyring=Keyring(options.workspaces, note=note),
            remote=Remote(options, timeline, note=note, life=life),
            life=life,
            journal=journal,
        )

    def close(self) -> None:
        """Let the files go."""
        self.remote.close()
        if self.journal is not None:
            self.journal.close()
