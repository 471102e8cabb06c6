"""Rows without one rule of `worker/`, and rows without one assumption: each breaks a promise."""

from __future__ import annotations

from dataclasses import replace

from .promises import NL, NL_STUCK
from .row import EQUAL, ONE, OWN, PAID, TWO, Row
from .setting import Rules, Setting
from .world import Faults


def _without(rule: str, setting: Setting) -> Setting:
    return replace(setting, rules=replace(setting.rules, **{rule: False}))


def _mutant(
    name: str, rule: str, says: str, setting: Setting, breaks: tuple[str, ...] = PAID, *, fast: bool = True
) -> Row:
    return Row(name, says, _without(rule, setting), breaks, fast)


MUTANTS = (
    _mutant("M1", "doubt_is_reconciled", "a lost answer is sent again at once", ONE),
    _mutant("M2", "write_ahead", "no record before the last byte", ONE),
    _mutant("M3", "absent_after_horizon", "absence without a horizon", ONE),
    _mutant(
        "M4",
        "token_when_shared",
        "shared workspace, adopted by count, nobody looks at tokens",
        replace(ONE, exclusive=False, largest=1, faults=Faults(strangers=1), rules=Rules(tokens_at_delivery=False)),
        OWN,
    ),
    _mutant(
        "M5",
        "token_when_shared",
        "shared workspace, adopted by count, tokens only at delivery",
        replace(EQUAL, workers=1, exclusive=False, faults=Faults(strangers=1)),
        (*PAID, *OWN),
        fast=False,
    ),
    _mutant(
        "M6",
        "sole_holder",
        "adopted by count although another batch has it",
        replace(EQUAL, workers=1, faults=Faults(vanishings=1)),
    ),
    Row(
        "M7",
        "no barrier and no recovery",
        replace(ONE, workers=1, barrier=False, faults=Faults(restarts=1), rules=Rules(asks_for_life=False)),
        PAID,
    ),
    _mutant(
        "M8",
        "asks_for_life",
        "adopted by count before the lane is recovered",
        replace(EQUAL, workers=1, barrier=False, disk_catches_up=False, faults=Faults(restarts=1)),
        PAID,
    ),
    _mutant(
        "M9",
        "delivered_before_settled",
        "prompts are settled before the sink has their rows",
        replace(ONE, workers=1, steps_of_drain=True, faults=Faults(kills=1)),
        (NL,),
    ),
    Row(
        "M10",
        "nobody asks who owns a remote batch, nor who else has the count",
        replace(EQUAL, workers=1, rules=Rules(owned_is_owned=False, sole_holder=False)),
        OWN,
    ),
    _mutant("M11", "head_is_an_id", "the listing begins at a time by our own clock", ONE),
    _mutant("M12", "no_repeats", "a library repeats the POST", ONE),
    _mutant("M13", "stale_intent_is_not_sent", "a frozen process sends its last byte behind the horizon", ONE),
    _mutant("M16", "long_horizon_for_lost", "the short horizon for a lost answer", ONE),
    _mutant(
        "M17",
        "counts_of_all_lanes",
        "only the lane's own counts are compared",
        replace(EQUAL, workers=1, faults=Faults(vanishings=1)),
    ),
    _mutant(
        "M18",
        "intent_is_named",
        "an intent is taken back by its attempt's number",
        replace(ONE, faults=Faults(lost_replies=1)),
    ),
    _mutant(
        "M19",
        "tail_is_new",
        "the tail of a split batch keeps the uid in its custom_ids",
        replace(TWO, workers=1, exclusive=False, after_refusal=("split",), faults=Faults(refusals=1, vanishings=1)),
        (*PAID, *OWN, NL_STUCK),
    ),
    _mutant(
        "M20",
        "split_ends_claims",
        "a split leaves older claims in force",
        replace(TWO, after_refusal=("split",), faults=Faults(refusals=1), rules=Rules(fences=False)),
    ),
    _mutant(
        "M21",
        "settled_at_once",
        "put back first, removed later",
        replace(ONE, workers=1, steps_of_drain=True, faults=Faults(expiries=1, kills=1)),
    ),
    _mutant(
        "M22", "only_free_again", "answered prompts are put back as well", replace(ONE, workers=1, steps_of_drain=True)
    ),
    _mutant(
        "M23",
        "parked_lanes_probe",
        "a parked lane waits for a human",
        replace(ONE, workers=1, after_refusal=("park",), faults=Faults(refusals=1)),
        (NL_STUCK,),
    ),
    _mutant(
        "M24",
        "recovery_waits",
        "recovery lists at once",
        replace(ONE, workers=1, barrier=False, faults=Faults(restarts=1)),
    ),
    _mutant(
        "M25",
        "recovery_needs_ends",
        "recovery takes only what has ended",
        replace(ONE, workers=1, barrier=False, faults=Faults(restarts=1)),
    ),
    _mutant(
        "M26",
        "recovery_is_of_one_life",
        "a recovery's date outlives the next restart",
        replace(ONE, workers=1, barrier=False, faults=Faults(restarts=2)),
    ),
    _mutant(
        "M27",
        "lost_past_is_no_new_lane",
        "a lane without a past is always taken for a new one",
        replace(ONE, workers=1, barrier=False, faults=Faults(restarts=1)),
    ),
    _mutant(
        "M28",
        "all_lanes_recovered",
        "adopted by count while another lane is not recovered",
        replace(EQUAL, workers=1, barrier=False, faults=Faults(restarts=1, vanishings=1)),
        fast=False,
    ),
    _mutant(
        "M29",
        "doubt_is_named",
        "a late 529 of an earlier life shortens the doubt",
        replace(ONE, barrier=False, disk_catches_up=False, faults=Faults(restarts=1, overloads=1)),
    ),
    _mutant(
        "M30",
        "fences_outlive_restarts",
        "Redis gives out a fence twice",
        replace(ONE, barrier=False, disk_catches_up=False, faults=Faults(restarts=1, vanishings=1)),
    ),
    _mutant(
        "M31",
        "missed_is_held",
        "a candidate that was deleted is forgotten",
        replace(ONE, exclusive=False, faults=Faults(deletions=1, vanishings=1)),
    ),
)

ASSUMPTIONS = (
    Row(
        "A1",
        "a 529 whose POST is committed behind the short horizon",
        replace(ONE, faults=Faults(overloads=1, late_overloads=1)),
        PAID,
    ),
    Row(
        "A2",
        "exclusive is declared, the workspace is shared, two batches in doubt",
        replace(EQUAL, workers=1, faults=Faults(strangers=1)),
        PAID,
        fast=False,
    ),
    Row(
        "A3",
        "somebody deletes a batch before our first listing",
        replace(ONE, known_deletions=False, faults=Faults(deletions=1)),
        PAID,
    ),
    Row(
        "A4",
        "no barrier, and our own deletion of settled batches",
        replace(ONE, workers=1, barrier=False, deletes_settled=True, faults=Faults(restarts=1)),
        PAID,
    ),
    Row(
        "A5",
        "no barrier, and a batch that was cut in two",
        replace(
            TWO,
            workers=1,
            barrier=False,
            disk_catches_up=False,
            after_refusal=("split",),
            faults=Faults(restarts=1, refusals=1),
        ),
        PAID,
    ),
    Row(
        "A6",
        "no barrier, and a prompt that was put back",
        replace(ONE, workers=1, barrier=False, steps_of_drain=True, faults=Faults(restarts=1, expiries=1)),
        PAID,
    ),
    Row(
        "A7",
        "own deletion of settled batches within the second that everysec may lose",
        replace(ONE, workers=1, deletes_settled=True, faults=Faults(restarts=1)),
        PAID,
    ),
)
