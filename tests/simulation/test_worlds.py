"""Some hundred worlds for every change; `make simulate SEEDS=10000` is for every release."""

from typing import Any

import pytest
from chance import Chance
from life import run
from mutations import MUTATIONS
from shrink import shrink

CHUNKS, CHUNK = 8, 15
BLIND = next(bug for bug in MUTATIONS if bug.name == "a lost answer is sent again at once")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_promise_is_broken(client: Any, chunk: int) -> None:
    """Whatever is killed, frozen, lost, late or rolled back: every prompt has its row, and was paid for once."""
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        outcome = run(client, seed)
        assert outcome.violations == (), f"python tests/simulation/simulate.py --seed {seed} --shrink"


def test_a_seed_repeats_its_world_exactly(client: Any) -> None:
    """The same choices, the same moments, the same words."""
    assert run(client, 7) == run(client, 7)


def test_choices_repeat_a_world_as_its_seed_does(client: Any) -> None:
    """What was drawn can be played."""
    drawn = run(client, 11)
    assert run(client, 11, drawn.choices).timeline == drawn.timeline


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_failing_world_becomes_simpler_and_still_fails(client: Any) -> None:
    """A timeline that a human can follow: few choices are not harmless, and the last line says what is wrong."""
    with BLIND.planted():
        failing = next(found for seed in range(50) if (found := run(client, seed)).violations)

        def fails(choices: Any) -> bool:
            return "paid twice" in " ".join(run(client, failing.seed, choices).violations)

        simpler = run(client, failing.seed, shrink(failing.choices, fails, tries=120))
    assert "paid twice" in simpler.violations[0]
    assert sum(map(bool, simpler.choices)) < sum(map(bool, failing.choices))
    assert any("VIOLATION" in line for line in simpler.timeline[-3:])


def test_shrinking_leaves_only_what_matters() -> None:
    """Of many choices the two that make it fail are left, and nothing behind them."""
    choices = [9] * 100
    assert shrink(choices, lambda tried: len(tried) > 60 and tried[40] == tried[60] == 9) == (
        *[0] * 40,
        9,
        *[0] * 19,
        9,
    )


def test_chance_plays_what_it_has_drawn() -> None:
    """Picks, strikes and spans come back; behind the end of a script everything is harmless."""
    drawn = Chance(3)
    first = [drawn.pick(10), drawn.strikes(0.5), drawn.between(1.0, 2.0), drawn.fault({"a": 0.5, "b": 0.4})]
    played = Chance(4, drawn.taken)
    again = [played.pick(10), played.strikes(0.5), played.between(1.0, 2.0), played.fault({"a": 0.5, "b": 0.4})]
    assert first == again
    assert [played.pick(10), played.strikes(1.0), played.between(1.0, 2.0), played.fault({"a": 1.0})] == [
        0,
        False,
        1.0,
        None,
    ]
