"""The Lua scripts, read from `lua/`. A script's header is its signature: calls are checked against it by name.

A header binds every slot once: `local a, b = KEYS[1], KEYS[2]`, the same for ARGV, and where a script takes a tail,
`local more = {unpack(ARGV, 3)}`. The body never says KEYS or ARGV.
"""

import re
from dataclasses import dataclass
from importlib.resources import files

MAX_TAIL = 4_000
"""Lua's unpack fails near 8,000 values (measured); callers send longer tails in pieces."""

_NAMES = re.compile(r"^local (?P<names>[\w, ]+) = (?P<table>KEYS|ARGV)\[1\]", re.MULTILINE)
_TAIL = re.compile(r"^local (?P<name>\w+) = \{unpack\((?P<table>KEYS|ARGV), \d+\)\}$", re.MULTILINE)
_SHEBANG = re.compile(r"\A#!lua[^\n]*\n")


@dataclass(frozen=True, slots=True)
class Script:
    """One script: its text and the names of its slots, in order."""

    name: str
    text: str
    keys: tuple[str, ...]
    args: tuple[str, ...]

    def arrange(self, named: dict[str, str | int | bytes]) -> tuple[list[str | int | bytes], list[str | int | bytes]]:
        """Put named values into the order of the header.

        Raises TypeError when a slot is missing or unknown: a bug of the caller, seen by the first test.
        """
        if set(named) != {*self.keys, *self.args}:
            odd = sorted(set(named) ^ {*self.keys, *self.args})
            raise TypeError(f"script {self.name}: {', '.join(odd)} missing or unknown")
        return [named[key] for key in self.keys], [named[arg] for arg in self.args]


def read_scripts(*, flags: bool = True) -> dict[str, Script]:
    """Read every script. Without `flags` the `#!lua` line is left out, for servers that do not know it."""
    folder = files("worker.ledger") / "lua"
    return {
        entry.name.removesuffix(".lua"): parse(entry.name.removesuffix(".lua"), entry.read_text("utf-8"), flags=flags)
        for entry in folder.iterdir()
        if entry.name.endswith(".lua")
    }


def parse(name: str, text: str, *, flags: bool = True) -> Script:
    """Read one script's header."""
    slots = {"KEYS": (), "ARGV": ()} | {
        match["table"]: tuple(word.strip() for word in match["names"].split(",")) for match in _NAMES.finditer(text)
    }
    return Script(name, text if flags else _SHEBANG.sub("", text), slots["KEYS"], slots["ARGV"])
