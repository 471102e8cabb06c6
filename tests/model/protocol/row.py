"""A row of the table, and the bounds that most rows begin with."""

from __future__ import annotations

from dataclasses import dataclass

from .promises import NB, OWN_FOREIGN, OWN_TWICE, ROW_TWICE
from .setting import Setting

PAID = (NB, ROW_TWICE)
OWN = (OWN_TWICE, OWN_FOREIGN)


@dataclass(frozen=True)
class Row:
    """One line of the table. `breaks` are the promises of which one must be broken; empty: all hold."""

    name: str
    says: str
    setting: Setting
    breaks: tuple[str, ...] = ()
    fast: bool = True


ONE = Setting(prompts=(1,))
TWO = Setting(prompts=(2,))
EQUAL = Setting(prompts=(1, 1), largest=1)
"""Two lanes with a lone prompt each: two batches with N = 1."""
