"""How the dataclasses of `model.py` say which settings there are, and how others ask for the list.

A setting's place is its key path: `("poll", "interval")`, or `("lanes", "*", "max_count")` where `*` is any name.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar

T = TypeVar("T")
KeyPath = tuple[str, ...]

API_KEY: KeyPath = ("anthropic", "api_key")  # the one setting that has no place in a file or on a command line
ANY_NAME = "*"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: how it is parsed, and its default as one would write it in the file."""

    parse: Callable[[object], Any]
    default: object


def setting(parse: Callable[[object], T], *, default: object, shown: bool = True) -> T:
    """Declare a dataclass field that is a setting. `shown=False` keeps its value out of the repr."""
    return field(default=parse(default), repr=shown, metadata={"setting": Setting(parse, default)})


def section(kind: type[T]) -> T:
    """Declare a dataclass field that is a table of settings."""
    return field(default_factory=kind, metadata={"section": kind})


def named(kind: type[T], *, default: str) -> Mapping[str, T]:
    """Declare a dataclass field that is a table of named tables; the one called `default` needs no writing."""
    return field(default_factory=lambda: {default: kind()}, metadata={"named": kind})


def known_settings(kind: type[Any], prefix: KeyPath = ()) -> Iterator[tuple[KeyPath, Setting]]:
    """Walk every setting of a configuration class, in the order of its declaration."""
    for place in fields(kind):
        path = (*prefix, place.name)
        if found := place.metadata.get("setting"):
            yield path, found
        elif below := place.metadata.get("section"):
            yield from known_settings(below, path)
        elif below := place.metadata.get("named"):
            yield from known_settings(below, (*path, ANY_NAME))


def assemble(kind: type[T], values: Mapping[KeyPath, Any], prefix: KeyPath = ()) -> T:
    """Build `kind` and all below it from parsed `values`; what has no value keeps its default."""
    parts = {}
    for place in fields(kind):  # type: ignore[arg-type]  # only dataclasses are declared as sections
        if (part := _assembled(place, values, (*prefix, place.name))) is not _ABSENT:
            parts[place.name] = part
    return kind(**parts)


_ABSENT = object()


def _assembled(place: Field[Any], values: Mapping[KeyPath, Any], path: KeyPath) -> object:
    if below := place.metadata.get("section"):
        return assemble(below, values, path)
    if below := place.metadata.get("named"):
        names = {key[len(path)] for key in values if key[: len(path)] == path and len(key) > len(path)}
        return {name: assemble(below, values, (*path, name)) for name in sorted(names)}
    return values.get(path, _ABSENT)
