"""From what a producer says to the fields of a stream entry, or to the reason why it could never be used."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from worker.core.intake import EXPLANATIONS, FIELDS, Flaw, Unusable, read_prompt

LARGEST_PARAMS = 250_000_000
"""Bytes; a lane may be set to take less, and then buries what is larger."""

LONGEST_NAME = 80
"""Characters of an unknown name that are told."""

Spelled = dict[bytes, bytes]

_write_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def spell_or_refuse(prompt: Mapping[str, Any] | Sequence[Any]) -> Spelled | str:
    """Spell a prompt given as a mapping or as a sequence in the order of FIELDS, or say what is wrong with it."""
    try:
        if isinstance(prompt, Mapping):
            unknown = sorted(map(str, set(prompt) - set(FIELDS)))
            if unknown:
                return f"unknown field {unknown[0][:LONGEST_NAME]!r}; there are {', '.join(FIELDS)}"
            return spell(prompt)
        if isinstance(prompt, str | bytes) or not isinstance(prompt, Sequence) or len(prompt) > len(FIELDS):
            return f"not a mapping, nor a sequence of {', '.join(FIELDS)}"
        return spell(dict(zip(FIELDS, prompt, strict=False)))
    except ValueError as error:
        return str(error)


def spell(given: Mapping[str, Any]) -> Spelled:
    """Spell a stream entry. Raises ValueError, which quotes nothing of the prompt."""
    fields: Spelled = {}
    for name in FIELDS:
        value = given.get(name)
        if value is not None:
            fields[name.encode()] = _word(name, value)
    prompt = read_prompt("0-0", fields, LARGEST_PARAMS)
    if isinstance(prompt, Unusable):
        flaw = Flaw.NO_PARAMS if prompt.flaw is Flaw.EMPTY else prompt.flaw
        raise ValueError(EXPLANATIONS[flaw])  # noqa: TRY004 - the caller's value, whatever its type
    return fields


def _word(name: str, value: Any) -> bytes:
    if isinstance(value, bytes) and name in ("params", "metadata"):
        return value
    try:
        if name == "metadata" or (name == "params" and not isinstance(value, str)):
            return _write_json(value).encode()
        if name == "deadline" and isinstance(value, int | float) and not isinstance(value, bool):
            return f"{value:.3f}".encode()
        if name != "deadline" and isinstance(value, str):
            return value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} is not UTF-8: it holds half a surrogate pair") from None
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{name} cannot be written as JSON: {type(error).__name__}") from None
    wanted = "a Unix time in seconds" if name == "deadline" else "a string"
    raise ValueError(f"{name} is not {wanted}")
