"""The server as a child process: on a leash, with its settings, until it answers."""

import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from worker.clock import Clock
from worker.embedded.probe import Look, look
from worker.embedded.program import Log, find_program
from worker.embedded.state import Running, clear_state, write_private, write_state

READY_SECONDS = 30.0
LOOK_SECONDS = 0.01
LONGEST_SOCKET_PATH = 107  # bytes in sockaddr_un, less the final zero
PORTS = range(20_000, 32_768)  # above them the kernel hands ports to outgoing connections

_SOCKET = "server.sock"
_CONFIG = "server.conf"

# Runs between fork and the server, without threads: ask for SIGTERM when the parent dies, and leave if it is dead
# already. Where that cannot be asked for, the server can still be adopted, so it is started all the same.
_LEASH = """
import os, signal, sys
try:
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
except (ImportError, AttributeError, OSError, MemoryError):
    pass
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is dead")
os.execv(sys.argv[2], sys.argv[2:])
"""

_SETTINGS = """\
{listen}
protected-mode yes
dir ./
appendonly yes
appendfsync everysec
save ""
maxmemory {max_memory_bytes}
maxmemory-policy noeviction
"""


class EmbeddedFailed(Exception):  # noqa: N818 - said as it is: it did
    """A server program is there, but no server came up; the text ends with what it logged last."""


def spawn(
    directory: Path, lock: int, *, max_memory_bytes: int, log: Log, clock: Clock
) -> tuple[Running, subprocess.Popen[bytes]]:
    """Start a server that holds `lock`, an inheritable copy of which the caller then closes; wait until it answers.

    Raises EmbeddedUnavailable, EmbeddedFailed, OSError; then no process is left.
    """
    clear_state(directory)
    program = find_program(log)
    url, listen = _address(directory, clock)
    settings = _SETTINGS.format(listen=listen, max_memory_bytes=max_memory_bytes)
    write_private(directory / _CONFIG, settings)
    log_file = directory / "server.log"
    with suppress(FileNotFoundError):
        log_file.replace(directory / "server.log.1")
    with log_file.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), program.path, _CONFIG],
            cwd=directory,
            env={name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ},  # no keys
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(lock,),
            umask=0o077,  # the append-only file holds prompts
            start_new_session=True,  # Ctrl-C is for us: we drain first and stop the server last
        )
    try:
        running = Running(url=url, pid=process.pid, birth=clock.random_bytes(16).hex())
        write_state(directory, running)
        _await_ready(directory, url, process, clock)
    except BaseException:
        clear_state(directory)
        process.kill()
        process.wait()
        raise
    log("embedded.started", pid=process.pid, path=program.path, product=program.product, version=program.version)
    return running, process


def _address(directory: Path, clock: Clock) -> tuple[str, str]:
    """Return the URL and the server's settings for it: a socket in the directory, or a port where the path is long."""
    path = os.fsencode(directory / _SOCKET)
    if len(path) <= LONGEST_SOCKET_PATH:
        return f"unix://{quote(path)}", f"port 0\nunixsocket {_SOCKET}\nunixsocketperm 600"
    port, password = _free_port(clock), clock.random_bytes(24).hex()
    return f"redis://:{password}@127.0.0.1:{port}/0", f"bind 127.0.0.1\nport {port}\nrequirepass {password}"


def _free_port(clock: Clock) -> int:
    for _ in range(100):
        port = PORTS[int(clock.jitter() * len(PORTS))]
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise EmbeddedFailed(f"no free port between {PORTS.start} and {PORTS.stop}")


def _await_ready(directory: Path, url: str, process: subprocess.Popen[bytes], clock: Clock) -> None:
    give_up_at = clock.monotonic() + READY_SECONDS
    while (seen := look(url)) is not Look.READY:
        if seen is Look.LOADING:
            give_up_at = clock.monotonic() + READY_SECONDS
        if process.poll() is not None or clock.monotonic() > give_up_at:
            lines = (directory / "server.log").read_text(errors="replace").splitlines()
            raise EmbeddedFailed(f"the embedded server did not start, its log ends with: {' / '.join(lines[-3:])}")
        clock.sleep(LOOK_SECONDS)
