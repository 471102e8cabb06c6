"""The mutators make the mutants that they promise; whether tests notice them is asked by `run.py`, not here."""

import subprocess
import sys
from pathlib import Path

import pytest
from lua_mutants import mutate_lua
from python_mutants import mutate_python
from run import ROOT, mutants_of

PYTHON = '''
LIMIT = 3


def admit(ages, host=None):
    """Say who may come in: age < 18 is a word here."""
    if not ages or host is None:
        raise ValueError("ünbekannt")
    return [age for age in ages if age >= 18]
'''

LUA = """-- Take one away, if it is there: 1 is one.
local key = KEYS[1]

if redis.call("EXISTS", key) == 0 then return "STALE" end
redis.call("HINCRBY", key, "left", -1)
local left = redis.call("HDEL", key, "first")
return "OK"
"""


def test_python_is_changed_in_one_place_at_a_time() -> None:
    """Operators, constants, conditions, returns and statements; never a word in a text."""
    told = {mutant.tell(PYTHON) for mutant in mutate_python(PYTHON, "door.py")}
    assert told == {
        "door.py:2: 3 -> 4",
        "door.py:7: not ages or host is None -> False",
        "door.py:7: not ages or host is None -> True",
        "door.py:7: or -> and",
        "door.py:7: not ages -> ages",
        "door.py:7: is -> is not",
        'door.py:8: raise ValueError("ünbekannt") -> pass',
        "door.py:9: [age for age in ages if age >= 18] -> None",
        "door.py:9: age >= 18 -> True",
        "door.py:9: age >= 18 -> False",
        "door.py:9: >= -> >",
        "door.py:9: 18 -> 19",
    }


def test_lua_is_changed_behind_its_header() -> None:
    """Guards, writes, comparisons and numbers; never what is said, nor a call whose answer is used."""
    told = {mutant.tell(LUA) for mutant in mutate_lua(LUA, "take.lua")}
    assert told == {
        'take.lua:4: redis.call("EXISTS", key) == 0 -> true',
        'take.lua:4: redis.call("EXISTS", key) == 0 -> false',
        "take.lua:4: == -> ~=",
        "take.lua:4: 0 -> 1",
        'take.lua:5: redis.call("HINCRBY", key, "left", -1) -> nothing',
    }


def test_every_mutant_of_ours_is_another_program(tmp_path: Path) -> None:
    """Python that compiles, and no two alike."""
    files = [*(ROOT / "worker/core").glob("*.py"), ROOT / "worker/submitter.py"]
    for path in files:
        text = path.read_text(encoding="utf-8")
        changed = [mutant.apply(text) for mutant in mutants_of(path, path.name)]
        assert len({text, *changed}) == len(changed) + 1
        for program in changed:
            compile(program, str(tmp_path / path.name), "exec", dont_inherit=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("test", "status", "verdict"),
    [("test_lane_names_are_short_and_plain", 0, "2 killed"), ("test_a_tier_may_end_at_one_token", 1, "2 unseen")],
)
def test_what_lives_is_told(test: str, status: int, verdict: str) -> None:
    """A test that notices everything leaves nothing to say; one that looks elsewhere does."""
    words = ["worker/core/names.py", "--tests", f"tests/core/test_edges.py::{test}", "--processes", "1"]
    # A process of its own: what this one has imported of the tree, every fork of it would have as well.
    ran = subprocess.run(
        [sys.executable, "tests/mutation/run.py", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (status, "")
    assert ran.stdout.endswith(f"{verdict}\n")
