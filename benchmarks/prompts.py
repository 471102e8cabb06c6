"""The prompts of every run: text that is the same each time and nowhere repeats itself."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MODEL = "claude-haiku-4-5"
WORDS = 75
"""Words of a question; with the system text's 1,000 bytes and the JSON around them a prompt has 1.6 KB."""

VOCABULARY = 20_000
ENVELOPE_BYTES = 160


def write_questions(path: Path, count: int) -> None:
    """Write one question per line."""
    chance = random.Random(0)
    vocabulary = [
        "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(3, 8))) for _ in range(VOCABULARY)
    ]
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            file.write(" ".join(chance.choices(vocabulary, k=WORDS)) + "\n")


def read_questions(path: Path) -> Iterator[str]:
    """Yield the questions."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield line.rstrip("\n")


def params_of(question: str, system: str) -> dict[str, Any]:
    """Return what is asked of the API for one question."""
    return {
        "model": MODEL,
        "max_tokens": 1024,
        "system": system,
        "messages": [{"role": "user", "content": question}],
    }


def system_text(prompt_bytes: int) -> str:
    """Return what every prompt begins with, long enough for prompts of about so many bytes."""
    sentence = "You answer in one short sentence, you name your sources, and you say so when you do not know. "
    size = max(0, prompt_bytes - WORDS * 6 - ENVELOPE_BYTES)
    return (sentence * (size // len(sentence) + 1))[:size]
