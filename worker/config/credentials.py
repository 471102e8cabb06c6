"""Secrets that live in files: one that a setting names, or the credential that systemd hands over under its name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.config.schema import API_KEY, KeyPath
from worker.config.secret import Secret, password, secret


@dataclass(frozen=True, slots=True)
class Credential:
    """A secret: its place among the settings, the setting that names its file, what it is called in a sentence."""

    place: KeyPath
    named_by: KeyPath
    noun: str
    parse: Callable[[str], Secret]

    @property
    def credential(self) -> str:
        """What systemd calls it: `anthropic_api_key`."""
        return "_".join(self.place)


CREDENTIALS = (
    Credential(API_KEY, ("anthropic", "api_key_file"), "API key", secret),
    Credential(("redis", "password"), ("redis", "password_file"), "password of Redis", password),
    Credential(("http", "token"), ("http", "token_file"), "HTTP token", password),
)


def read_credentials(
    values: Mapping[KeyPath, Any], environ: Mapping[str, str], cwd: Path, problems: list[str]
) -> dict[KeyPath, Secret]:
    """Read every secret that nobody has set; none at all is no problem here."""
    return {
        each.place: _read(each, values.get(each.named_by), environ, cwd, problems)
        for each in CREDENTIALS
        if not values.get(each.place)
    }


def named(file: Path, cwd: Path) -> str:
    """Name a file as its reader would, below the folder he stands in."""
    return str(file.relative_to(cwd) if file.is_relative_to(cwd) else file)


def stands(file: Path) -> bool:
    """Whether there is such a file; one that cannot even be looked for is there, and reading it will say why."""
    try:
        return file.exists()
    except OSError:
        return True


def _read(wanted: Credential, asked: str | None, environ: Mapping[str, str], cwd: Path, problems: list[str]) -> Secret:
    directory = environ.get("CREDENTIALS_DIRECTORY")
    credential = Path(directory, wanted.credential) if directory else None
    file = cwd / asked if asked else credential
    if file is None or (file is credential and not stands(file)):
        return Secret("")
    try:
        found = wanted.parse(file.read_text(encoding="utf-8"))
        complaint = "" if found else "is empty"
    except OSError as error:
        complaint = f"cannot be read: {error.strerror}"
    except ValueError as error:
        wrong = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        complaint = wrong or f"holds no {wanted.noun}: it {error}"
    if complaint:
        problems.append(f"the {wanted.noun}'s file {named(file, cwd)} {complaint}")
        return Secret("")
    return found
