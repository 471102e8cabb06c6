"""The rule set that is shipped, and which commands a job really needs."""

import contextlib
import re
import threading
from pathlib import Path
from typing import Any

import redis
from security_rig import ROOT, GuardedRedis, wait_until

RULES = ROOT / "deploy" / "redis" / "users.conf"
PASSWORDS = {"batchmill": "d4emon-pass", "producer": "pr0ducer-pass", "enqueuer": "enqu3uer-pass"}
_CONTAINERS = ("acl", "client", "config", "memory", "script", "xinfo")


def users() -> dict[str, str]:
    """Return the shipped rules by user."""
    lines = [line for line in RULES.read_text("utf-8").splitlines() if line.startswith("user ")]
    return {line.split()[1]: line for line in lines if not line.startswith("user default ")}


def default_user() -> str:
    """Return the shipped line for the default user."""
    return next(line for line in RULES.read_text("utf-8").splitlines() if line.startswith("user default "))


def for_the_barrier() -> list[str]:
    """Return what the comment of the rule set offers to a daemon that sets appendfsync by itself."""
    line = next(line for line in RULES.read_text("utf-8").splitlines() if 'redis.barrier = "auto"' in line)
    return re.findall(r"\+[a-z|]+", line)


def acl(*more: str) -> str:
    """Return the shipped users with passwords, as an ACL file; `more` are rules for the daemon."""
    rules = users()
    rules["batchmill"] = " ".join((rules["batchmill"], *more))
    lines = [rules[name].replace(" on ", f" on >{word} ", 1) for name, word in PASSWORDS.items()]
    return "".join(f"{line}\n" for line in lines)


def allowed(user: str) -> set[str]:
    """Return the commands that a user may give, selectors included."""
    return set(re.findall(r"\+([a-z|]+)", users()[user].replace("evalsha|", "evalsha ")))


class Watch:
    """Reads MONITOR from the administrator's socket: what clients on TCP ran, by themselves and in their scripts.

    MONITOR hides what administers (CONFIG, BGREWRITEAOF); that is read from the server's own statistics.
    """

    def __init__(self, server: GuardedRedis) -> None:
        self.used: set[str] = set()
        self._server = server
        self._over = threading.Event()
        self._reading = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        self.attached()

    def attached(self) -> None:
        """Wait until MONITOR runs, on a server that has been restarted for example."""
        self._reading.clear()
        wait_until(self._seen, description="MONITOR runs")

    def end(self) -> set[str]:
        """Stop reading; returns what was used."""
        stats = self._server.admin.info("commandstats")
        self.used |= {
            name.removeprefix("cmdstat_").replace("config_", "config|")
            for name in stats
            if name.startswith(("cmdstat_config", "cmdstat_bgrewriteaof"))
        }
        self._over.set()
        self._server.admin.ping()
        self._thread.join()
        return self.used

    def _seen(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            self._server.admin.ping()
        return self._reading.is_set()

    def _follow(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(redis.RedisError), self._server.admin.monitor() as monitor:
                ours = False
                for line in monitor.listen():
                    self._reading.set()
                    if self._over.is_set():
                        return
                    ours = line["client_type"] == "tcp" or (ours and line["client_type"] == "lua")
                    if ours:
                        self.used.add(_name(line["command"]))


def _name(command: str) -> str:
    words = command.lower().split()
    return f"{words[0]}|{words[1]}" if words[0] in _CONTAINERS else words[0]


def named_in_scripts() -> set[str]:
    """Return every command that a script of ours names."""
    folder = ROOT / "worker" / "ledger" / "lua"
    texts = [path.read_text("utf-8") for path in Path(folder).glob("*.lua") if path.stem != "enqueue"]
    return {name.lower() for text in texts for name in re.findall(r'redis\.p?call\("(\w+)"', text)}


def denials(server: GuardedRedis) -> set[tuple[str, str]]:
    """Return who was refused what since the server has started."""
    log: list[dict[str, Any]] = server.admin.acl_log(128)
    return {(str(entry["username"]), str(entry["object"])) for entry in log if entry["reason"] != "auth"}
