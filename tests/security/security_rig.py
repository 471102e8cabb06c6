"""Real processes that are not trusted: a Redis with TLS and users, workers, and whatever they leave behind."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from certificates import Issued

ROOT = Path(__file__).parents[2]
ADMIN = "s3curity-admin"
CLOSED = "user default off ~* &* +@all"
QUICK = {
    "http.port": "0",
    "lanes.default.max_age": "100ms",
    "lanes.default.max_count": "50",
    "poll.interval": "100ms",
    "submit.horizon": "1s",
    "submit.overload_horizon": "500ms",
    "submit.reconcile_interval": "100ms",
    "park.probe": "300ms",
    "lease": "3s",
    "tick": "50ms",
    "shutdown_timeout": "10s",
}


def wait_until(condition: Callable[[], Any], *, description: str, timeout: float = 60.0) -> Any:
    """Look until a condition holds and return what it returned; fails with its description."""
    end = time.monotonic() + timeout
    while not (found := condition()):
        if time.monotonic() > end:
            pytest.fail(f"not within {timeout:g} s: {description}")
        time.sleep(0.02)
    return found


def params(text: str = "hello") -> str:
    """Return usable params as JSON."""
    message = {"role": "user", "content": text}
    return json.dumps({"model": "claude-haiku-4-5", "max_tokens": 64, "messages": [message]})


def free_port() -> int:
    """Return a port nobody listens on, below those that outgoing connections take for themselves."""
    for port in range(20_000 + os.getpid() * 41 % 10_000, 32_000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port is free")


def need(program: str) -> str:
    """Return the path of a program; skips without it, except in CI."""
    found = shutil.which(program)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"CI needs {program} on PATH")
        pytest.skip(f"no {program} on PATH")
    return found


class GuardedRedis:
    """A server that lets in only the users of `acl`, over TCP with TLS if a certificate is given.

    The test itself comes in by a socket, as an administrator.
    """

    def __init__(
        self,
        folder: Path,
        *,
        acl: str = "",
        default: str = CLOSED,
        issued: Issued | None = None,
        ca: Path | None = None,
        clients: str = "optional",
    ) -> None:
        port = free_port()
        self.url = f"{'rediss' if issued else 'redis'}://127.0.0.1:{port}/0"
        folder.mkdir()
        self._folder = folder
        rules = folder / "users.acl"
        rules.write_text(f"{default}\nuser admin on >{ADMIN} ~* &* +@all\n{acl}", "utf-8")
        self._words = [need("redis-server"), "--bind", "127.0.0.1", "--port", "0" if issued else str(port)]
        self._words += ["--unixsocket", "r.sock", "--dir", str(folder), "--save", "", "--appendonly", "yes"]
        self._words += ["--aclfile", str(rules)]
        if issued:
            self._words += ["--tls-port", str(port), "--tls-cert-file", str(issued.certificate)]
            self._words += ["--tls-key-file", str(issued.key), "--tls-ca-cert-file", str(ca or issued.certificate)]
            self._words += ["--tls-auth-clients", clients]
        self._process: subprocess.Popen[bytes] | None = None
        self.admin: Any = redis.Redis(unix_socket_path=str(folder / "r.sock"), username="admin", password=ADMIN)

    def start(self, *more: str) -> None:
        """Start it, or start it again on the same data."""
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen([*self._words, *more], cwd=self._folder, stdout=log, stderr=log)
        wait_until(self._answers, description="Redis answers")

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(20)
            self._process = None

    def close(self) -> None:
        """End it for good."""
        self.stop()
        self.admin.close()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "server.log").read_text("utf-8")
        try:
            return bool(self.admin.ping())
        except redis.RedisError:
            return False


@contextmanager
def guarded_redis(folder: Path, **options: Any) -> Iterator[GuardedRedis]:
    """Run such a server."""
    server = GuardedRedis(folder, **options)
    try:
        server.start()
        yield server
    finally:
        server.close()


def environment(settings: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a command: nothing of this process' but what every program needs."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    spelled = {f"BATCHMILL_{key.upper().replace('.', '__')}": value for key, value in settings.items()}
    return kept | spelled | {"PYTHONPATH": str(ROOT)} | dict(more)


def command(*words: str, folder: Path, env: Mapping[str, str], given: str = "") -> subprocess.CompletedProcess[str]:
    """Run `batchmill WORDS…` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "worker", *words],
        cwd=folder,
        env=dict(env),
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


_SERIES = """
import json, sys
from worker.cli.main import main
for words in json.loads(sys.argv[1]):
    print("$", *words, flush=True)
    try:
        main(words)
    except SystemExit as end:
        print("exit", end.code)
    except Exception:
        sys.excepthook(*sys.exc_info())
"""


def series(*commands: Sequence[str], folder: Path, env: Mapping[str, str]) -> str:
    """Run several commands in one process, since each start costs a second; returns what they said."""
    words = [sys.executable, "-c", _SERIES, json.dumps(commands)]
    ended = subprocess.run(words, cwd=folder, env=dict(env), capture_output=True, text=True, check=True, timeout=120)
    return ended.stdout + ended.stderr


class Daemon:
    """A running `batchmill run`; what it says is in `out` and `err`."""

    def __init__(self, *words: str, folder: Path, env: Mapping[str, str], name: str = "daemon", **popen: Any) -> None:
        self._out, self._err = folder / f"{name}.out", folder / f"{name}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "worker", "run", *words], cwd=folder, env=env, stdout=out, stderr=err, **popen
            )

    @property
    def out(self) -> str:
        """Everything on standard output so far."""
        return self._out.read_text("utf-8", "replace")

    @property
    def err(self) -> str:
        """Everything on standard error so far."""
        return self._err.read_text("utf-8", "replace")

    def ready(self) -> "Daemon":
        """Wait until it has printed where it listens; returns itself."""
        wait_until(lambda: "http://" in self.out or self.process.poll() is not None, description="it has started")
        assert self.process.poll() is None, f"exit status {self.process.returncode}: {self.err}"
        return self

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Ask an ops endpoint on loopback; returns the status and the body."""
        url = self.out.split()[0].replace("0.0.0.0", "127.0.0.1") + path  # noqa: S104 - it listens everywhere
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:  # noqa: S310 - loopback
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def wait(self, timeout: float = 60.0) -> int:
        """Wait for its end; returns the exit status."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the daemon did not end within {timeout:g} s; it said:\n{self.err[-3000:]}")

    def stop(self) -> int:
        """Ask it to end in order; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def close(self) -> None:
        """Let it die, if it lives."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return every row in the result files."""
    files = sorted((folder / "results").rglob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]
