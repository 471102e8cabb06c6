import ast
import re
from importlib.resources import files
from pathlib import Path

import pytest

from worker.ledger.keys import Keys
from worker.ledger.scripts import MAX_TAIL, parse, read_scripts
from worker.ledger.store import REPEATABLE, Store

WORKER = Path(__file__).parents[2] / "worker"
TEXTS = {
    entry.name.removesuffix(".lua"): entry.read_text("utf-8") for entry in (files("worker.ledger") / "lua").iterdir()
}
NAMED = re.compile(r"local (?P<names>\w+(, \w+)*) = (?P<slots>(KEYS|ARGV)\[\d+\](, (KEYS|ARGV)\[\d+\])*)")
TAIL = re.compile(r"local \w+ = \{unpack\((?P<table>KEYS|ARGV), (?P<first>\d+)\)\}")
BOUNDED = {"enqueue"}
"""Scripts that a full Redis refuses: they take new prompts in."""


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_a_script_is_a_comment_a_header_and_a_body(name: str) -> None:
    """What it does and answers, one name for each slot, a blank line, and a body that speaks in those names."""
    lines = TEXTS[name].splitlines()
    while lines[0].startswith(("#!", "--")):
        comment = lines.pop(0)
    assert comment.startswith("--")
    header, body = lines[: lines.index("")], lines[lines.index("") :]
    slots = {"KEYS": 0, "ARGV": 0}
    for line in header:
        if named := NAMED.fullmatch(line):
            table = named["slots"][:4]
            numbers = [int(number) for number in re.findall(table + r"\[(\d+)\]", named["slots"])]
            assert numbers == list(range(1, len(named["names"].split(", ")) + 1))
            slots[table] = len(numbers)
        else:
            tail = TAIL.fullmatch(line)
            assert tail, line
            assert int(tail["first"]) == slots[tail["table"]] + 1
    assert slots["KEYS"] > 0
    assert not [line for line in body if re.search(r"\b(KEYS|ARGV)\b", line)]


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_what_the_parser_reads_is_the_header(name: str) -> None:
    """Calls are checked against these names, so none may be missed and none be used twice."""
    script = read_scripts()[name]
    found = {match["slots"][:4]: match["names"].split(", ") for match in NAMED.finditer(TEXTS[name])}
    assert (list(script.keys), list(script.args)) == (found["KEYS"], found.get("ARGV", []))
    assert len({*script.keys, *script.args}) == len(script.keys) + len(script.args)


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_a_full_redis_can_still_finish_what_it_has(name: str) -> None:
    """Every script but the one that takes prompts in runs under allow-oom."""
    assert TEXTS[name].startswith("#!lua flags=allow-oom\n") is (name not in BOUNDED)


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_a_script_makes_its_own_names_local(name: str) -> None:
    """Redis refuses to write a global, a fake is poisoned by it for ever."""
    assigned = re.findall(r"^\s*(\w+) = ", TEXTS[name], re.MULTILINE)
    declared = {word for names in re.findall(r"local ([\w, ]+)", TEXTS[name]) for word in names.strip().split(", ")}
    assert {name for name in assigned if name not in declared} == set()


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_no_script_walks_the_keyspace_or_encodes(name: str) -> None:
    """KEYS and SCAN stop the world; cjson and cmsgpack differ from server to server."""
    assert not re.search(r'"(KEYS|SCAN|FLUSHALL|EVAL)"|cjson|cmsgpack', TEXTS[name])


def calls() -> list[tuple[str, str, set[str]]]:
    """Return (where, script, named slots) of every call of `run` or `say` in the sources."""
    found = []
    for source in sorted(WORKER.rglob("*.py")):
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            name = node.args[0]
            if node.func.attr in {"run", "say"} and isinstance(name, ast.Constant) and name.value in TEXTS:
                named = {keyword.arg or "**" for keyword in node.keywords} - {"tail", "tail_keys", "on"}
                found.append((f"{source.relative_to(WORKER)}:{node.lineno}", str(name.value), named))
    return found


@pytest.mark.parametrize(("where", "name", "named"), calls(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_call_names_exactly_the_slots_of_the_header(where: str, name: str, named: set[str]) -> None:
    """Read from the sources, so that a call no test makes is checked as well."""
    script = read_scripts()[name]
    assert named == {*script.keys, *script.args}, where


def test_every_script_is_used() -> None:
    """By name: one at a time, or in bulk."""
    sources = "".join(source.read_text("utf-8") for source in WORKER.rglob("*.py"))
    in_bulk = set(re.findall(r'run_many\(\s*"(\w+)"', sources))
    assert set(TEXTS) == in_bulk | {name for _, name, _ in calls()}
    assert set(TEXTS) >= REPEATABLE


def test_a_call_that_misses_or_invents_a_slot_is_a_bug_of_the_caller(fake_store: Store) -> None:
    """It fails at once and names the slots, before anything is sent."""
    with pytest.raises(TypeError, match=r"script renew: lease, lease_ms missing or unknown"):
        fake_store.run("renew", due="d", fences="f", uid="u", fence="1", lease=3)


def test_a_tail_too_long_for_lua_is_not_sent(fake_store: Store) -> None:
    """Lua's unpack fails near 8,000 values, in the middle of a script."""
    with pytest.raises(ValueError, match="too long for Lua"):
        fake_store.run("mark", hash="h", unless="", tail=["x"] * (MAX_TAIL + 1))


def test_a_header_is_read_without_its_body() -> None:
    """A local of the body is no slot."""
    text = "#!lua flags=allow-oom\n-- What.\nlocal a, b = KEYS[1], KEYS[2]\nlocal c = ARGV[1]\n\nlocal d = a\n"
    script = parse("try", text, flags=False)
    assert (script.keys, script.args, script.text.startswith("-- What.")) == (("a", "b"), ("c",), True)


def test_lanes_keep_their_keys_together_and_apart() -> None:
    """All keys of a lane share its hash tag; those of the deployment have none."""
    keys = Keys("mine:")
    of_lane = [
        *(getattr(keys, noun)("a.b") for noun in ("prompts", "lane", "due", "fences", "settled", "dead", "unposted")),
        *(getattr(keys, noun)("a.b", "x") for noun in ("batch", "unusable", "dedupe", "remote")),
    ]
    assert all(key.startswith("mine:{a.b}:") for key in of_lane)
    assert len(set(of_lane)) == len(of_lane)
    assert keys.prompts("default") == "mine:{default}:prompts"
    assert not any("{" in key for key in (keys.deployment, keys.lanes, keys.in_flight, keys.waiting, keys.barrier))
