"""What a row of the table explores: its bounds, its faults, and the rules of `worker/` that it takes away."""

from __future__ import annotations

from dataclasses import dataclass

from .world import Faults

NONE = Faults()


@dataclass(frozen=True)
class Rules:
    """The rules of the protocol. A mutation takes one away; the names are sentences about `worker/`."""

    write_ahead: bool = True
    """The intent is recorded before the last byte leaves."""
    doubt_is_reconciled: bool = True
    """A lost answer is never followed by sending again at once."""
    absent_after_horizon: bool = True
    """Absence is concluded only from a listing that began behind the horizon."""
    long_horizon_for_lost: bool = True
    """The short horizon is for a well-formed 529 or 503 only."""
    stale_intent_is_not_sent: bool = True
    """A process that was frozen behind its intent for longer than the horizon withholds the last byte."""
    no_repeats: bool = True
    """Nothing repeats a POST by itself."""
    head_is_an_id: bool = True
    """The listing begins at the newest remote batch before the POST, not at a time by our own clock."""
    token_when_shared: bool = True
    """In a shared workspace only a token proves a remote batch ours."""
    sole_holder: bool = True
    """Adopted by count only while no other batch that may still create a remote one has the count."""
    counts_of_all_lanes: bool = True
    """The counts of all lanes are compared, not only of one's own."""
    owned_is_owned: bool = True
    """A remote batch that a record owns is nobody's candidate."""
    missed_is_held: bool = True
    """A candidate that was deleted before its token was read is not absent, unless another proves to be ours."""
    tokens_at_delivery: bool = True
    """Results are delivered only to the batch that their token names."""
    intent_is_named: bool = True
    """An intent is taken back by its random name, not by the attempt's number."""
    doubt_is_named: bool = True
    """An overloaded answer shortens the doubt about its own intent only."""
    tail_is_new: bool = True
    """The tail of a split batch gets a uid of its own."""
    split_ends_claims: bool = True
    """A split asks for the newest fence and makes a newer one."""
    delivered_before_settled: bool = True
    """Prompts are settled only when the sink has committed."""
    settled_at_once: bool = True
    """A prompt is put back and its old entry removed in one script."""
    only_free_again: bool = True
    """Put back are only prompts whose result cost nothing."""
    parked_lanes_probe: bool = True
    """A parked lane sends one prompt from time to time."""
    fences: bool = True
    """A decision needs the newest fence."""
    fences_outlive_restarts: bool = True
    """A fence is never given out twice, not even when Redis forgets that it was."""
    asks_for_life: bool = True
    """Nothing is sealed, posted, adopted or sent again in a lane that was not recovered since Redis restarted."""
    all_lanes_recovered: bool = True
    """Adopted by count only when every lane was recovered since Redis restarted."""
    recovery_waits: bool = True
    """Recovery lists only behind the horizon."""
    recovery_is_of_one_life: bool = True
    """A recovery that an earlier restart began does not count for a later one."""
    recovery_needs_ends: bool = True
    """Recovery waits until every unknown remote batch has ended and shown its token."""
    lost_past_is_no_new_lane: bool = True
    """A lane without a past is a new one only in a Redis that was never restarted."""


ALL = Rules()


@dataclass(frozen=True)
class Setting:
    """A row's bounds. All interleavings within them are explored."""

    prompts: tuple[int, ...] = (2,)
    """Prompts that wait in each lane at the start."""
    largest: int = 2
    """Most prompts in one batch."""
    workers: int = 2
    exclusive: bool = True
    """What `anthropic.exclusive_workspace` says."""
    barrier: bool = True
    """Whether the intent is on disk before the last byte leaves; if not, recovery is by token."""
    disk_catches_up: bool = True
    """Whether Redis' disk may catch up by itself at any moment; if not, it has the seals and nothing later."""
    steps_of_drain: bool = False
    """Whether a drain is taken step by step; if not, from the end of the remote batch to settled at once."""
    after_refusal: tuple[str, ...] = ("wait",)
    """What may follow a refusal: wait, park, split, eject."""
    known_deletions: bool = True
    """Whether others delete only what its own batch has listed or owns (assumption A5)."""
    deletes_settled: bool = False
    """What `poll.delete_when_settled` says."""
    faults: Faults = NONE
    rules: Rules = ALL
