"""`batchmill healthcheck`: is the daemon on this machine alive? For containers: it imports nothing of the rest."""

import argparse
import os
from http.client import HTTPConnection, HTTPException
from typing import Any

from worker.cli.settings import EX_FAILED, EX_OK, add_config_flags, complain

TIMEOUT = 5.0
FILES = ("config/batchmill.toml", "/etc/batchmill/batchmill.toml")
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - a daemon that listens everywhere is asked on loopback
EPILOG = """\
example:
  batchmill healthcheck
  docker run --health-cmd "batchmill healthcheck" …
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the `healthcheck` command."""
    parser = subparsers.add_parser(
        "healthcheck",
        help="ask the local daemon's /livez",
        description="Ask the daemon on this machine whether its loops still turn; 0 if they do, 1 if not.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_flags(parser)
    parser.add_argument("--port", type=int, help="(default: PORT, else http.port)")
    parser.add_argument("--json", action="store_true", help="print the answer as it is")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Ask; returns 0 when alive, 1 when not or when nobody answers."""
    try:
        bind, port = _address(args)
        if not 0 < port < 65_536:  # noqa: PLR2004 - what a port can be
            return complain(f"no port to ask: it is {port}; set http.port, or give --port", EX_FAILED)
        connection = HTTPConnection(ANYWHERE.get(bind, bind), port, timeout=TIMEOUT)
        try:
            connection.request("GET", "/livez")
            answer = connection.getresponse()
            body = answer.read(65_536).decode("utf-8", "replace").strip()
        finally:
            connection.close()
    except (OSError, HTTPException, ValueError) as error:
        return complain(f"nobody answers: {getattr(error, 'strerror', None) or type(error).__name__}", EX_FAILED)
    if args.json or answer.status != 200:  # noqa: PLR2004 - OK; importing its name costs a tenth of the time
        print(body)
    else:
        print("alive")
    return EX_OK if answer.status == 200 else EX_FAILED  # noqa: PLR2004 - the same


def _address(args: argparse.Namespace) -> tuple[str, int]:
    """Find where the daemon listens, by the precedence of all settings."""
    given = dict(word.partition("=")[::2] for word in args.set)
    listed = _file(args.config or os.environ.get("BATCHMILL_CONFIG"))
    bind = given.get("http.bind") or os.environ.get("BATCHMILL_HTTP__BIND") or listed.get("bind", "127.0.0.1")
    own = os.environ.get("BATCHMILL_HTTP__PORT")
    port = args.port or given.get("http.port") or os.environ.get("PORT") or own or listed.get("port", 9464)
    return str(bind), int(port)


def _file(asked: str | None) -> dict[str, Any]:
    path = asked or next((file for file in FILES if os.path.exists(file)), None)  # noqa: PTH110 - pathlib is slow to come
    if path is None:
        return {}
    import tomllib

    with open(path, "rb") as file:  # noqa: PTH123 - the same
        found = tomllib.load(file).get("http", {})
    return found if isinstance(found, dict) else {}
