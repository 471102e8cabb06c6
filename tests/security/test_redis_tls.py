"""TLS and passwords on a real server: who is let in, who is not, and how that is told."""

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from certificates import Certificates
from security_rig import (
    CLOSED,
    QUICK,
    Daemon,
    GuardedRedis,
    command,
    environment,
    guarded_redis,
    params,
    rows,
    wait_until,
)

from worker.client import Producer, RedisAccess
from worker.ledger.store import LedgerRefusedError, LedgerUnavailableError, Store
from worker.simulator import Simulator

PASSWORD = "t1ger-pass"
USER = f"user mill on >{PASSWORD} ~* &* +@all\n"


@dataclass(frozen=True, slots=True)
class Guarded:
    """A server with TLS and one user, and the authority that vouches for it."""

    folder: Path
    server: GuardedRedis
    certificates: Certificates

    @property
    def access(self) -> RedisAccess:
        """The right way in."""
        return RedisAccess("mill", PASSWORD, tls_ca_file=str(self.certificates.ca))

    def env(self, url: str | None = None, *, password: str = PASSWORD, **settings: str) -> dict[str, str]:
        """Return the environment of a command; settings are those of `[redis]`."""
        (self.folder / "password").write_text(password, "utf-8")
        named = {"username": "mill", "password_file": "password", "tls_ca_file": str(self.certificates.ca)} | settings
        more = {"REDIS_URL": url or self.server.url, "ANTHROPIC_API_KEY": "sk-ant-tls"}
        return environment(QUICK | {f"redis.{name}": value for name, value in named.items()}, more)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server whose certificate names 127.0.0.1 and localhost."""
    folder = tmp_path_factory.mktemp("guarded")
    certificates = Certificates(folder)
    issued = certificates.issue("redis")
    with guarded_redis(folder / "redis", acl=USER, issued=issued, ca=certificates.ca) as server:
        yield Guarded(folder, server, certificates)


def test_a_job_runs_over_tls_with_its_secrets_in_files(guarded: Guarded) -> None:
    """Producer, ledger and the broker of knocks take the same way; the password stands in no URL and no environment."""
    env = guarded.env()
    assert not [name for name, value in env.items() if PASSWORD in value]
    with Simulator(ends_after=0.1, poll_hint=0) as simulator:
        daemon = Daemon(folder=guarded.folder, env=env | {"ANTHROPIC_BASE_URL": simulator.url}).ready()
        try:
            with Producer(guarded.server.url, access=guarded.access) as producer:
                producer.enqueue(json.loads(params()), id="a")
            (guarded.folder / "b.jsonl").write_text(json.dumps({"params": json.loads(params()), "id": "b"}), "utf-8")
            assert command("enqueue", "b.jsonl", folder=guarded.folder, env=env).returncode == 0
            wait_until(lambda: len(rows(guarded.folder)) == 2, description="both rows")
            assert command("status", folder=guarded.folder, env=env).returncode == 0
            users = {client["user"] for client in guarded.server.admin.client_list() if "unix" not in client["flags"]}
            assert users <= {"mill", "admin"}
        finally:
            assert daemon.stop() == 0, daemon.err


def test_a_wrong_password_is_told_with_69(guarded: Guarded) -> None:
    """The server may learn it yet, so a service manager tries again; nothing of the password is said."""
    for words in (["run"], ["status"], ["check"], ["enqueue", "-"]):
        ended = command(*words, folder=guarded.folder, env=guarded.env(password="wr0ng-pass"))
        assert ended.returncode == 69, (words, ended)
        assert "Redis refuses to let us in" in ended.stdout + ended.stderr
        assert "wr0ng" not in ended.stdout + ended.stderr


def test_a_server_of_another_authority_is_told_with_69(guarded: Guarded) -> None:
    """Its operator may renew its certificate; the text is OpenSSL's own."""
    stranger = Certificates(guarded.folder, name="stranger")
    for words in (["run"], ["status"], ["check"]):
        ended = command(*words, folder=guarded.folder, env=guarded.env(tls_ca_file=str(stranger.ca)))
        assert ended.returncode == 69, (words, ended)
        assert "Redis shows a certificate that is not trusted (" in ended.stdout + ended.stderr


def test_the_name_of_the_host_is_verified(tmp_path: Path) -> None:
    """A certificate of the same authority for another server opens nothing."""
    certificates = Certificates(tmp_path)
    issued = certificates.issue("other", "DNS:other.example")
    with guarded_redis(tmp_path / "redis", acl=USER, issued=issued, ca=certificates.ca) as server:
        store = Store.connect(server.url, "b:", access=RedisAccess("mill", PASSWORD, tls_ca_file=str(certificates.ca)))
        with pytest.raises(LedgerRefusedError, match=r"not trusted \(IP address mismatch"):
            store.now()
        store.close()


def test_a_password_never_travels_to_a_server_that_is_not_trusted(tmp_path: Path) -> None:
    """Whoever answers in Redis' place learns nothing: the handshake comes first."""
    issued = Certificates(tmp_path, name="stranger").issue("redis")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    heard: list[bytes] = []

    def listen(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as spoken:
            heard.append(spoken.recv(4096))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=listen, args=(listener,), daemon=True)
        thread.start()
        access = RedisAccess("mill", PASSWORD, tls_ca_file=str(Certificates(tmp_path).ca))
        store = Store.connect(f"rediss://127.0.0.1:{listener.getsockname()[1]}/0", "b:", access=access)
        with pytest.raises(LedgerRefusedError, match="not trusted"):
            store.write("time")
        thread.join(10)
        store.close()
    assert b"".join(heard) == b""


def test_a_server_may_ask_for_our_certificate(tmp_path: Path) -> None:
    """Without one it hangs up, which is told as trouble of TLS."""
    certificates = Certificates(tmp_path)
    issued, ours = certificates.issue("redis"), certificates.issue("ours")
    words = {"acl": USER, "issued": issued, "ca": certificates.ca, "clients": "yes"}
    with guarded_redis(tmp_path / "redis", **words) as server:
        bare = RedisAccess("mill", PASSWORD, tls_ca_file=str(certificates.ca))
        store = Store.connect(server.url, "b:", access=bare)
        with pytest.raises(LedgerUnavailableError, match="Redis cannot be reached"):
            store.now()
        store.close()
        full = RedisAccess(
            "mill",
            PASSWORD,
            tls_ca_file=str(certificates.ca),
            tls_cert_file=str(ours.certificate),
            tls_key_file=str(ours.key),
        )
        store = Store.connect(server.url, "b:", access=full)
        assert store.now() > 0
        store.close()


def test_plain_text_finds_no_server_there(guarded: Guarded) -> None:
    """A forgotten s in the scheme does not send the password in the clear and succeed."""
    url = guarded.server.url.replace("rediss:", "redis:")
    ended = command("status", folder=guarded.folder, env=guarded.env(url, tls_ca_file=""))
    assert ended.returncode == 69, ended


def test_a_file_that_is_not_there_is_told_with_78(guarded: Guarded) -> None:
    """No restart will mend it."""
    for name in ("tls_ca_file", "password_file"):
        ended = command("run", folder=guarded.folder, env=guarded.env(**{name: "nowhere"}))
        assert ended.returncode == 78, ended
        assert "nowhere cannot be read: No such file or directory" in ended.stderr


def test_check_warns_of_tls_that_verifies_nothing(guarded: Guarded) -> None:
    """A URL can switch it off; nobody should have to find that in a URL."""
    ended = command("check", folder=guarded.folder, env=guarded.env(guarded.server.url + "?ssl_cert_reqs=none"))
    assert "redis.url lets anybody pass for this server" in ended.stdout


def test_check_fails_where_a_restart_of_redis_would_lose_data(tmp_path: Path) -> None:
    """A default user without rights: some servers read their append-only file as that user."""
    for default, told in ((CLOSED, False), ("user default off", True)):
        folder = tmp_path / ("careless" if told else "careful")
        folder.mkdir()
        with guarded_redis(folder / "redis", acl=USER, default=default) as server:
            more = {"REDIS_URL": server.url.replace("//", f"//mill:{PASSWORD}@"), "ANTHROPIC_API_KEY": "k"}
            ended = command("check", folder=folder, env=environment({}, more))
            assert ("may lose what scripts have written" in ended.stdout) is told, ended


def test_a_command_that_is_forbidden_is_named(tmp_path: Path) -> None:
    """By its name alone: what else Redis says may name a key, and a key a producer."""
    acl = f"user mill on >{PASSWORD} ~* &* +@all -info\n"
    with guarded_redis(tmp_path / "redis", acl=acl) as server:
        store = Store.connect(server.url, "b:", access=RedisAccess("mill", PASSWORD))
        with pytest.raises(LedgerRefusedError, match=r"Redis refuses a command \(NoPermissionError: info\)"):
            store.facts()
        store.close()
        client = redis.Redis.from_url(server.url, username="mill", password=PASSWORD)
        client.set("b:{a}:id:order-42", "1")
        server.admin.acl_setuser("mill", enabled=True, reset_keys=True, keys=["other:*"])
        with pytest.raises(LedgerRefusedError) as caught:
            Store.connect(server.url, "b:", access=RedisAccess("mill", PASSWORD)).read("get", "b:{a}:id:order-42")
        assert "order-42" not in str(caught.value)
        client.close()
