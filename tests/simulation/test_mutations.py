"""A simulation that finds nothing proves nothing: here it has to find mistakes that were made on purpose."""

from typing import Any

import pytest
from life import run
from mutations import MUTATIONS, Mutation

WITHIN = 300


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("bug", MUTATIONS, ids=lambda bug: bug.name.replace(" ", "-"))
def test_a_planted_bug_is_found(client: Any, bug: Mutation) -> None:
    """Some world among a few hundred shows it."""
    with bug.planted():
        found = any(run(client, seed).violations for seed in range(bug.first, bug.first + WITHIN))
    assert found, f"no world shows that {bug.name}"
