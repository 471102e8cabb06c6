"""Rows of the protocol as it is built: every promise holds."""

from __future__ import annotations

from dataclasses import replace

from .row import EQUAL, ONE, TWO, Row
from .setting import Rules
from .world import Faults

HOLDING = (
    Row(
        "H1",
        "one prompt, two workers: any kill, lost answer, refusal and vanished POST",
        replace(ONE, faults=Faults(kills=1, vanishings=1, refusals=1)),
    ),
    Row(
        "H2",
        "two lanes with equal counts: exclusive, sole holder",
        replace(EQUAL, workers=1, faults=Faults(kills=1, vanishings=1)),
    ),
    Row(
        "H3", "exclusive, sole holder, two prompts, two workers", replace(TWO, faults=Faults(vanishings=1)), fast=False
    ),
    Row("H4", "the same with a kill", replace(TWO, faults=Faults(kills=1, vanishings=1)), fast=False),
    Row("H5", "the same with two lanes", replace(EQUAL, faults=Faults(vanishings=1)), fast=False),
    Row("H6", "Redis goes back to its disk behind a barrier", replace(ONE, faults=Faults(restarts=1, vanishings=1))),
    Row(
        "H7",
        "the same with two lanes, exclusive, sole holder",
        replace(EQUAL, workers=1, faults=Faults(restarts=1, vanishings=1)),
        fast=False,
    ),
    Row(
        "H8",
        "the same with two prompts and two workers",
        replace(TWO, faults=Faults(restarts=1, vanishings=1)),
        fast=False,
    ),
    Row(
        "H9",
        "shared without reservation",
        replace(EQUAL, workers=1, exclusive=False, faults=Faults(kills=1, vanishings=1)),
    ),
    Row(
        "H10",
        "shared without reservation, two workers",
        replace(TWO, exclusive=False, faults=Faults(vanishings=1)),
        fast=False,
    ),
    Row(
        "H11",
        "shared with a stranger of any size",
        replace(ONE, exclusive=False, largest=1, faults=Faults(strangers=1, vanishings=1)),
    ),
    Row(
        "H12",
        "the same with two lanes",
        replace(EQUAL, workers=1, exclusive=False, faults=Faults(strangers=1, vanishings=1)),
        fast=False,
    ),
    Row(
        "H13",
        "the same with two prompts and two workers",
        replace(TWO, exclusive=False, faults=Faults(strangers=1, vanishings=1)),
        fast=False,
    ),
    Row(
        "H14",
        "overloaded answers whose POST goes on, within the short horizon",
        replace(ONE, faults=Faults(overloads=2, kills=1)),
    ),
    Row(
        "H15",
        "a refused batch is cut in two, or loses a prompt",
        replace(TWO, workers=1, after_refusal=("wait", "split", "eject"), faults=Faults(refusals=1, vanishings=1)),
    ),
    Row(
        "H16",
        "the same with two refusals and two workers",
        replace(TWO, after_refusal=("wait", "split", "eject"), faults=Faults(refusals=2)),
        fast=False,
    ),
    Row(
        "H17",
        "a batch that was cut in two, and Redis goes back to its disk behind a barrier",
        replace(TWO, workers=1, after_refusal=("wait", "split"), faults=Faults(refusals=1, restarts=1)),
        fast=False,
    ),
    Row(
        "H18",
        "a parked lane probes and goes on",
        replace(TWO, workers=1, after_refusal=("park",), faults=Faults(refusals=1, kills=1)),
    ),
    Row(
        "H19",
        "trouble that rows tell of parks the lane; its prompts go back into it",
        replace(ONE, workers=1, steps_of_drain=True, faults=Faults(troubles=1, kills=1)),
    ),
    Row(
        "H20",
        "expired prompts are sent again, drains are killed at any step",
        replace(ONE, steps_of_drain=True, faults=Faults(expiries=1, kills=1)),
    ),
    Row(
        "H21",
        "the same with two prompts of which one expires",
        replace(TWO, workers=1, steps_of_drain=True, faults=Faults(expiries=1, kills=1)),
        fast=False,
    ),
    Row(
        "H22",
        "expired prompts, and Redis goes back to its disk behind a barrier",
        replace(ONE, steps_of_drain=True, faults=Faults(expiries=1, restarts=1)),
    ),
    Row(
        "H23",
        "lost replies of Redis to the intent: recorded, late, or never there",
        replace(ONE, faults=Faults(lost_replies=2, vanishings=1)),
    ),
    Row(
        "H24",
        "the same with a kill and two lanes",
        replace(EQUAL, workers=1, faults=Faults(lost_replies=2, vanishings=1, kills=1)),
        fast=False,
    ),
    Row(
        "H25",
        "no barrier: recovery by token",
        replace(ONE, workers=1, barrier=False, faults=Faults(restarts=1, vanishings=1, kills=1)),
    ),
    Row(
        "H26",
        "no barrier, Redis restarts twice",
        replace(ONE, workers=1, barrier=False, faults=Faults(restarts=2, vanishings=1)),
    ),
    Row(
        "H27",
        "no barrier, an overloaded answer is read in the next life",
        replace(ONE, barrier=False, faults=Faults(restarts=1, overloads=1)),
        fast=False,
    ),
    Row(
        "H28",
        "no barrier, two lanes with equal counts",
        replace(EQUAL, workers=1, barrier=False, faults=Faults(restarts=1, vanishings=1)),
        fast=False,
    ),
    Row(
        "H29", "no barrier, two prompts", replace(TWO, workers=1, barrier=False, faults=Faults(restarts=1)), fast=False
    ),
    Row(
        "H30",
        "no barrier, shared, with a stranger",
        replace(ONE, workers=1, exclusive=False, largest=1, barrier=False, faults=Faults(restarts=1, strangers=1)),
    ),
    Row(
        "H31",
        "others delete ended batches that we have seen: held, never sent again",
        replace(ONE, exclusive=False, faults=Faults(deletions=1, vanishings=1)),
    ),
    Row(
        "H38",
        "the same with two lanes",
        replace(EQUAL, workers=1, exclusive=False, faults=Faults(deletions=1, vanishings=1)),
        fast=False,
    ),
    Row(
        "H32",
        "no fences: a stale decision fails by state and attempt",
        replace(ONE, faults=Faults(vanishings=1, refusals=1), rules=Rules(fences=False)),
    ),
    Row(
        "H33",
        "A1 broken once: one batch is paid twice, nothing is lost or taken from another",
        replace(ONE, faults=Faults(late=1)),
    ),
    Row(
        "H35",
        "no barrier, two workers",
        replace(ONE, barrier=False, faults=Faults(restarts=1, vanishings=1)),
        fast=False,
    ),
    Row(
        "H36",
        "a lone prompt that is refused by name: nothing is posted, it has its row",
        replace(
            ONE, workers=1, steps_of_drain=True, after_refusal=("wait", "eject"), faults=Faults(refusals=2, kills=1)
        ),
    ),
    Row(
        "H37",
        "exclusive is declared, the workspace is shared, one batch in doubt: the stranger's is given back",
        replace(ONE, largest=1, faults=Faults(strangers=1, vanishings=1)),
    ),
    Row("H34", "A1 broken once, with two lanes", replace(EQUAL, workers=1, faults=Faults(late=1)), fast=False),
)
