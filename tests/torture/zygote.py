"""Forks processes of batchmill: it has imported everything once, so that a daemon starts in a tenth of a second.

Nothing of batchmill runs in here before the fork; what is forked calls `batchmill`'s own entry point and is the daemon
that would have been started by hand. One JSON object a line comes in on the socket whose number is the first argument,
`{"words", "env", "directory", "out"}`, and goes out, `{"pid"}` or `{"ended", "status"}`.
"""

import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any

IMPORTED = (
    *("worker.cli.main", "worker.cli.run", "worker.cli.simulate", "worker.daemon", "worker.wiring", "worker.embedded"),
    *("worker.http", "worker.simulator", "worker.batches_api.connection", "worker.telemetry", "anthropic"),
)
PR_SET_PDEATHSIG = 1
BUFFER = 1 << 16


def serve(channel: socket.socket) -> dict[str, Any] | None:
    """Fork on request until the other side is gone: returns None then, and in every child its request."""
    bell, rope = socket.socketpair()
    for end in (bell, rope):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(rope.fileno(), warn_on_full_buffer=False)
    heard = b""
    while True:
        ready, _, _ = select.select([channel, bell], [], [])
        if bell in ready:
            bell.recv(BUFFER)
            for pid, status in _ended():
                channel.sendall(json.dumps({"ended": pid, "status": status}).encode() + b"\n")
        if channel in ready:
            if not (piece := channel.recv(BUFFER)):
                return None
            *lines, heard = (heard + piece).split(b"\n")
            for line in lines:
                if (pid := os.fork()) == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for end in (channel, bell, rope):
                        end.close()
                    request: dict[str, Any] = json.loads(line)
                    return request
                channel.sendall(json.dumps({"pid": pid}).encode() + b"\n")


def _ended() -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if not pid:
            return found
        found.append((pid, os.waitstatus_to_exitcode(status)))


def become(request: dict[str, Any]) -> None:
    """Turn this process into `batchmill` with the words, environment, folder and output file that were asked for."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # nobody survives the one who would count him
    out = os.open(request["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["batchmill", *request["words"]]
    entry = importlib.import_module("worker.__main__")
    entry.main()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    wanted = serve(socket.socket(fileno=int(sys.argv[1])))
    if wanted is not None:
        become(wanted)
