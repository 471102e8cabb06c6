"""`batchmill check`: everything a daemon will need, tried for real, with a hint for whatever is wrong."""

import argparse
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from worker.cli.arguments import add_command, add_json_flag
from worker.cli.settings import EX_CONFIG, EX_FAILED, EX_KEY, EX_OK, EX_UNAVAILABLE, add_config_flags
from worker.cli.showing import clean, print_json, table

if TYPE_CHECKING:
    from worker.config import Config

GRAVITY = (EX_CONFIG, EX_KEY, EX_UNAVAILABLE, EX_FAILED)
"""Of several failures the first of these becomes the exit status."""

EXAMPLE = """\
batchmill check
batchmill check --offline        # the configuration alone, in a build for example
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look showed. `verdict` is ok, warn or fail; `status` is what a failure makes of the exit status."""

    what: str
    verdict: str
    detail: str
    hint: str = ""
    status: int = EX_OK


def ok(what: str, detail: str) -> Finding:
    """Make a good finding."""
    return Finding(what, "ok", detail)


def warn(what: str, detail: str, hint: str) -> Finding:
    """Make a finding that works, and may not be what one wants."""
    return Finding(what, "warn", detail, hint)


def fail(what: str, detail: str, hint: str, status: int = EX_FAILED) -> Finding:
    """Make a bad finding."""
    return Finding(what, "fail", detail, hint, status)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the `check` command."""
    parser = add_command(
        subparsers,
        "check",
        help="configuration, Redis, API key and every sink, tried for real",
        description="Try everything a daemon will need. It creates no batch and leaves nothing behind.",
        example=EXAMPLE,
    )
    add_config_flags(parser)
    parser.add_argument("--offline", action="store_true", help="look at the configuration only, reach for nothing")
    add_json_flag(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Check; returns 0 when nothing fails, else 78, 77, 69 or 1, the first of these that applies."""
    findings = list(_look(args))
    status = next((code for code in GRAVITY if any(found.status == code for found in findings)), EX_OK)
    if args.json:
        told = [{name: value for name, value in asdict(found).items() if name != "status"} for found in findings]
        print_json({"ok": status == EX_OK, "checks": told})
    else:
        print(table(("", "what", "found"), ((found.verdict, found.what, found.detail) for found in findings)))
        for found in findings:
            if found.hint:
                print(f"{found.what}: {clean(found.hint)}")
    return status


def _look(args: argparse.Namespace) -> Iterator[Finding]:
    from worker.config import ConfigError, find_config, load_config

    overrides = dict(word.partition("=")[::2] for word in args.set)
    try:
        config = load_config(path=args.config, environ=os.environ, cwd=Path.cwd(), overrides=overrides)
    except ConfigError as error:
        yield from (fail("configuration", problem, "", EX_CONFIG) for problem in error.problems)
        return
    file = find_config(path=args.config, environ=os.environ, cwd=Path.cwd())
    yield ok("configuration", str(file) if file else "defaults and the environment")
    if args.offline:
        yield _key(config)
        yield from _sinks(config, tried=False)
        return

    from worker.cli.check_redis import look_at_redis

    yield from look_at_redis(config)
    yield _api(config) if config.anthropic.api_key else _key(config)
    yield from _sinks(config, tried=True)


def _key(config: "Config") -> Finding:
    if config.anthropic.api_key:
        return ok("API key", "there is one")
    hint = "set ANTHROPIC_API_KEY, or anthropic.api_key_file to a file that holds it"
    return fail("API key", "there is none", hint, EX_CONFIG)


def _api(config: "Config") -> Finding:
    from worker.batches_api import ApiError
    from worker.cli.reach_api import exit_status, open_api

    where = config.anthropic.base_url or "api.anthropic.com"
    try:
        api = open_api(config)
    except ValueError as error:
        return fail("API key", str(error), "is it cut off, or quoted?", EX_CONFIG)
    try:
        listing = api.newest()
    except ApiError as error:
        status = exit_status(error)
        hint = "is the key active, and of the right workspace?" if status == EX_KEY else "is anthropic.base_url right?"
        return fail("API", f"{where}: {error}", hint, status)
    finally:
        api.close()
    return ok("API", f"{where}: the key works; {len(listing.batches)}{'' if listing.complete else '+'} remote batches")


def _sinks(config: "Config", *, tried: bool) -> Iterator[Finding]:
    from worker.sinks import SinkError, SinkSettingsError, build

    for name, settings in config.sinks.items():
        what = f"sink {name}"
        try:
            sink = build(name, settings)
        except SinkSettingsError as error:
            yield fail(what, str(error), "", EX_CONFIG)
            continue
        try:
            if tried:
                sink.check()
        except SinkError as error:
            yield fail(what, str(error), error.hint)
        else:
            target = f" to {settings.path}" if settings.type == "file" else ""
            yield ok(what, f"{settings.type}{target}{': it can be written' if tried else ''}")
        finally:
            sink.close()
