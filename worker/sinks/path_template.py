"""From `results/{lane}/{batch}.jsonl` to the file of one batch, never outside `results`."""

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from string import Formatter

from worker.core.model import Batch
from worker.sinks.protocol import ErrorType, SinkError, SinkSettingsError

PLACEHOLDERS = ("lane", "batch", "date")
TEMPORARY_SUFFIX = ".tmp"

_SAFE = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True, slots=True)
class PathTemplate:
    """`root` is the literal folder in front of the first placeholder, absolute; `below` is the rest."""

    root: Path
    below: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, template: str, *, suffix: str = "") -> "PathTemplate":
        """Read a template; `suffix` is appended unless it is there. Raises SinkSettingsError."""
        if suffix and not template.endswith(suffix):
            template += suffix
        parts = _parts(template)
        fields = {field for _, field in parts if field is not None}
        if unknown := sorted(fields - set(PLACEHOLDERS)):
            known = " ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            raise SinkSettingsError(f"unknown placeholder {{{unknown[0]}}} in path {template!r}: known are {known}")
        if "batch" not in fields:
            raise SinkSettingsError(f"path {template!r} has no {{batch}}: every batch would overwrite the one before")
        literal, first = parts[0]
        folder, _, stem = literal.rpartition("/")
        root = Path(os.path.abspath(f"{folder}/" if literal.startswith("/") else folder or "."))  # noqa: PTH100 - resolve() would follow the operator's links
        below = ((stem, first), *parts[1:])
        _refuse_escapes(template, below)
        return cls(root, below)

    def render(self, batch: Batch) -> Path:
        """Return the file of `batch`: always below `root`, always the same. Raises SinkError (invalid)."""
        day = datetime.fromtimestamp(batch.sealed_at, UTC).date().isoformat()
        values = {"lane": batch.lane, "batch": batch.uid, "date": day}
        for placeholder in PLACEHOLDERS:
            if not _SAFE.fullmatch(values[placeholder]):
                raise _unusable(placeholder)
        text = "".join(literal + (values[field] if field else "") for literal, field in self.below)
        if any(component in {"", ".", ".."} for component in text.split("/")):
            raise _unusable("lane")
        return self.root / text


def _parts(template: str) -> tuple[tuple[str, str | None], ...]:
    try:
        parts = tuple(Formatter().parse(template))
    except ValueError as error:
        raise SinkSettingsError(f"path {template!r} is no template: {error}") from error
    if any(spec or conversion for _, _, spec, conversion in parts):
        raise SinkSettingsError(f"path {template!r} is no template: a placeholder is a bare name, as in {{batch}}")
    return tuple((literal, field) for literal, field, _, _ in parts) or (("", None),)


def _refuse_escapes(template: str, below: tuple[tuple[str, str | None], ...]) -> None:
    outline = "".join(literal + ("x" if field else "") for literal, field in below)
    if "\0" in template or any(component in {"", ".", ".."} for component in outline.split("/")):
        raise SinkSettingsError(f"path {template!r} must name a file, without . or .. after the first placeholder")
    if outline.endswith(TEMPORARY_SUFFIX):
        raise SinkSettingsError(f"path {template!r} must not end in {TEMPORARY_SUFFIX}: such files are swept away")


def _unusable(placeholder: str) -> SinkError:
    return SinkError(
        f"the {placeholder} of this batch cannot be part of a file name",
        error_type=ErrorType.INVALID,
        retryable=False,
        hint="lane names are small letters, digits and . _ - only",
    )
