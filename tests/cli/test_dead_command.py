import sys
from typing import Any

import pytest
from cli_rig import PARAMS, Shell, put_dead

from worker.ledger.ledger import Ledger

DAY = 86_400.0


@pytest.fixture
def letters(redis: Any, ledger: Ledger) -> list[str]:
    """Three dead letters: an old one, a recent one of the same reason, one of another lane and reason."""
    ledger.deployment.register_lanes(["bulk"])
    return [
        put_dead(redis, ledger, "old", "expired", age=10 * DAY),
        put_dead(redis, ledger, "new", "expired"),
        put_dead(redis, ledger, "other", "no_model", age=2 * DAY, lane="bulk", letter_id="7-0"),
    ]


def _listed(shell: Shell, *words: str) -> list[str]:
    return [letter["prompt_id"] for letter in shell.json("dead", "list", *words)]


@pytest.mark.usefixtures("letters")
def test_the_list_is_filtered(shell: Shell) -> None:
    """By lane, reason and age, and as many as asked for."""
    assert sorted(_listed(shell)) == ["new", "old", "other"]
    assert _listed(shell, "--lane", "bulk") == ["other"]
    assert _listed(shell, "--reason", "expired") == ["old", "new"]
    assert sorted(_listed(shell, "--older-than", "1d")) == ["old", "other"]
    assert _listed(shell, "--older-than", "1d", "--reason", "expired") == ["old"]
    assert len(_listed(shell, "--limit", "2")) == 2
    assert "and more" in shell.run("dead", "list", "--limit", "1").out
    assert shell.run("dead", "list", "--reason", "nothing").out == "no such dead letters\n"
    assert shell.run("dead", "list", "--older-than", "old").status == 2


def test_the_list_shows_no_prompt_and_show_does(shell: Shell, letters: list[str]) -> None:
    """What a prompt says is shown only to whoever asks for that one."""
    assert "Say hello." not in shell.run("dead", "list").out
    assert "Say hello." in shell.run("dead", "show", letters[0]).out
    facts = shell.json("dead", "show", letters[2])
    assert (facts["lane"], facts["id"], facts["batchmill.reason"]) == ("bulk", "other", "no_model")
    assert shell.run("dead", "show", letters[2], "--lane", "default").status == 1


def test_redriving_puts_prompts_back(shell: Shell, redis: Any, letters: list[str]) -> None:
    """By reason, by id, or all; they are in their lane again, without our own fields, and dead no more."""
    assert shell.json("dead", "redrive", "--reason", "no_model") == {"redriven": 1}
    [(_, fields)] = redis.xrange("batchmill:{bulk}:prompts")
    assert set(fields) == {b"params", b"id"}
    assert shell.json("dead", "redrive", "--id", letters[0], "--id", letters[0]) == {"redriven": 1}
    assert _listed(shell) == ["new"]
    assert shell.json("dead", "redrive", "--all") == {"redriven": 1}
    assert _listed(shell) == []
    assert redis.xlen("batchmill:{default}:prompts") == 2


def test_an_id_that_is_gone_fails_and_costs_no_other(shell: Shell, letters: list[str]) -> None:
    """The others are done, and the status says that one was not."""
    ended = shell.run("dead", "redrive", "--id", "1-1", "--id", letters[1])
    assert ended.status == 1
    assert "1 of the ids" in ended.err
    assert sorted(_listed(shell)) == ["old", "other"]


def test_an_id_that_two_lanes_have_names_none(shell: Shell, redis: Any, ledger: Ledger, letters: list[str]) -> None:
    """Ids are given out by lane: without the lane the wrong prompt might be dropped."""
    put_dead(redis, ledger, "twin", "expired", lane="third", letter_id=letters[2])
    ledger.deployment.register_lanes(["third"])
    for words in (("show", letters[2]), ("redrive", "--id", letters[2]), ("drop", "--yes", "--id", letters[2])):
        ended = shell.run("dead", *words)
        assert (ended.status, "bulk, third" in ended.err) == (2, True)
    assert shell.json("dead", "drop", "--yes", "--id", letters[2], "--lane", "third") == {"dropped": 1}
    assert sorted(_listed(shell)) == ["new", "old", "other"]


@pytest.mark.parametrize("verb", ["redrive", "drop"])
def test_a_dry_run_counts_and_changes_nothing(shell: Shell, letters: list[str], verb: str) -> None:
    """The same filters, and everything is still there."""
    assert shell.json("dead", verb, "--dry-run", "--older-than", "1d") == {"found": 2}
    assert shell.json("dead", verb, "--dry-run", "--all", "--lane", "default") == {"found": 2}
    assert shell.json("dead", verb, "--dry-run", "--id", letters[0], "--id", "1-1") == {"found": 1}
    assert len(_listed(shell)) == 3


@pytest.mark.usefixtures("letters")
@pytest.mark.parametrize("verb", ["redrive", "drop"])
def test_nothing_happens_to_what_nobody_named(shell: Shell, verb: str) -> None:
    """A bare verb, a lane alone, or ids mixed with filters: wrong usage."""
    for words in ((), ("--lane", "bulk"), ("--id", "1-1", "--all"), ("--id", "1-1", "--reason", "x")):
        assert shell.run("dead", verb, *words).status == 2
    assert len(_listed(shell)) == 3


class Terminal:
    """A person who answers."""

    def __init__(self, answer: str) -> None:
        self._answer = answer

    def isatty(self) -> bool:
        """Say that there is somebody."""
        return True

    def readline(self) -> str:
        """Answer."""
        return f"{self._answer}\n"


@pytest.mark.usefixtures("letters")
def test_dropping_asks_first(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the number; without a yes nothing is deleted, without a person or --yes neither."""
    drop = ("dead", "drop", "--reason", "expired")
    ended = shell.run(*drop)
    assert (ended.status, "--yes" in ended.err) == (2, True)
    for answer in ("", "n", "yess"):
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        ended = shell.run(*drop)
        assert ended.status == 1
        assert "Delete 2 dead letters for good?" in ended.err
    assert len(_listed(shell)) == 3
    monkeypatch.setattr(sys, "stdin", Terminal("y"))
    assert shell.json(*drop) == {"dropped": 2}
    assert _listed(shell) == ["other"]


@pytest.mark.usefixtures("letters")
def test_yes_drops_without_asking(shell: Shell) -> None:
    """For scripts."""
    assert shell.run("dead", "drop", "--all", "--yes").out == "3 dead letters deleted\n"
    assert _listed(shell) == []


def test_hundreds_are_done_in_pieces(shell: Shell, redis: Any, ledger: Ledger) -> None:
    """More than one page and more than one script call."""
    for number in range(450):
        redis.xadd(
            ledger.store.keys.dead("default"),
            {"batchmill.reason": "even" if number % 2 else "odd", "batchmill.buried_at": "1.0", "params": str(PARAMS)},
        )
    assert shell.json("dead", "redrive", "--reason", "even") == {"redriven": 225}
    assert shell.json("dead", "drop", "--all", "--yes") == {"dropped": 225}
