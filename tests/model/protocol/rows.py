"""The table."""

from __future__ import annotations

from .breaking import ASSUMPTIONS, MUTANTS
from .holding import HOLDING

ROWS = (*HOLDING, *MUTANTS, *ASSUMPTIONS)
