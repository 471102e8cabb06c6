"""The README keeps its word: its commands, targets, settings, links and snippets are real."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from worker.cli.main import COMMANDS, main
from worker.config import load_config

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
DOCUMENTS = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]
MOST_ARCHITECTURE = 80


def commands() -> set[str]:
    """Every `batchmill COMMAND` that is written as code, in a block or inline."""
    inline = re.findall(r"`batchmill ([a-z]+)", README)
    blocks = [line for _, text in BLOCKS for line in text.splitlines() if line.startswith("batchmill ")]
    return set(inline) | {shlex.split(line, comments=True)[1] for line in blocks}


def test_every_command_in_the_readme_exists_and_every_command_is_in_the_readme() -> None:
    """Neither promises what is not there, nor hides what is."""
    assert commands() == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help shows at least one line that can be typed."""
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert re.search(rf"example.*batchmill {command}|batchmill {command}", capsys.readouterr().out, re.DOTALL)


def test_every_make_target_in_the_readme_exists() -> None:
    """The two commands that do everything are targets of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"make ([a-z]+)", README)) <= targets | {"anything"}
    assert {"demo", "test", "check", "bench", "help"} <= targets


def test_every_python_block_compiles() -> None:
    """Snippets are code."""
    snippets = [text for language, text in BLOCKS if language == "python"]
    assert snippets
    for snippet in snippets:
        ast.parse(snippet)


def test_every_toml_block_is_a_configuration(tmp_path: Path) -> None:
    """Settings in the README are settings of batchmill."""
    blocks = [text for language, text in BLOCKS if language == "toml"]
    assert blocks
    for number, block in enumerate(blocks):
        file = tmp_path / f"{number}.toml"
        file.write_text(block, "utf-8")
        load_config(path=str(file), environ={}, cwd=tmp_path)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    """Relative links name files of this repository."""
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text("utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_the_architecture_fits_on_a_screen_or_two() -> None:
    """A page that nobody reads is no architecture."""
    assert len((ROOT / "ARCHITECTURE.md").read_text("utf-8").splitlines()) <= MOST_ARCHITECTURE


def test_every_module_of_the_house_stands_in_the_architecture() -> None:
    """A newcomer finds each file of `ls worker/` on the plan."""
    plan = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    modules = {
        path.stem for path in (ROOT / "worker").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert {name for name in modules if not name.startswith("__")} - set(re.findall(r"[a-z_]+", plan)) == set()
