"""`batchmill simulate`: the simulated Message Batches API as a process of its own."""

import argparse
import json
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

USAGE, FAILED = 2, 1
EPILOG = """\
example:
  batchmill simulate --port 8787 --ends-after 5 &
  export ANTHROPIC_BASE_URL=http://127.0.0.1:8787 ANTHROPIC_API_KEY=sk-ant-anything
  curl -s http://127.0.0.1:8787/simulator/faults -d '{"on": "create", "kind": "drop_reply", "times": 1}'
  curl -s http://127.0.0.1:8787/simulator/ledger     # was any prompt paid for twice?
  batchmill simulate --keep account/                 # may be killed: the next start knows every batch
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the `simulate` command."""
    parser = subparsers.add_parser(
        "simulate",
        help="a local Message Batches API that behaves like the real one, with scripted faults",
        description="Serve a Message Batches API on this machine until interrupted. Nothing is computed or billed.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=8787, help="port to listen on, 0 for any free one (default: 8787)")
    parser.add_argument("--bind", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--ends-after", type=float, default=1.0, metavar="SECONDS", help="a batch takes (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of ids, orders and chances (default: 0)")
    parser.add_argument("--faults", metavar="FILE", help="JSON list of faults in force from the start, - for stdin")
    parser.add_argument(
        "--keep",
        metavar="DIR",
        type=Path,
        help="keep the account in this directory: a kill forgets no batch, the next start brings all of it back "
        "(faults and request counts aside)",
    )
    parser.add_argument(
        "--body-timeout",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="a body that stops arriving for so long is refused (default: 60)",
    )
    parser.add_argument("--json", action="store_true", help="print the address as a JSON object")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit status: 0, 1 if it cannot listen, 2 for wrong options."""
    import msgspec

    from worker.simulator import Simulator

    stopped = threading.Event()
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        faults = _faults(args.faults)
        simulator = Simulator(
            args.port,
            bind=args.bind,
            ends_after=args.ends_after,
            seed=args.seed,
            body_timeout=args.body_timeout,
            keep=args.keep,
        )
        with simulator:
            simulator.control.inject(faults)
            _announce(simulator.url, len(faults), as_json=args.json)
            stopped.wait()
    except (ValueError, msgspec.ValidationError) as error:
        return _complain(error, USAGE)
    except OSError as error:
        return _complain(error, FAILED)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _faults(path: str | None) -> "Sequence[object]":
    if path is None:
        return []
    if path == "-":
        faults = json.load(sys.stdin)
    else:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123  # a path of the user's, opened as given
            faults = json.load(file)
    if not isinstance(faults, list):
        raise ValueError("the faults file must hold a JSON list")  # noqa: TRY004  # the user's mistake, not a caller's
    return faults


def _announce(url: str, faults: int, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"url": url, "faults": faults}), flush=True)
    else:
        print(f"Simulated Message Batches API on {url} ({faults} faults scripted). Interrupt to stop.", flush=True)


def _complain(error: Exception, status: int) -> int:
    print(f"batchmill simulate: {error}", file=sys.stderr)
    return status
