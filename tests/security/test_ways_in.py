"""How Redis is told who we are: files and credentials beside the URL, each mistake found at the start."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from certificates import Certificates

from worker.config import Config, ConfigError, load_config
from worker.core.access import RedisAccess, passwords_in

URL = "rediss://redis.example:6380/0"


def load(folder: Path, environ: Mapping[str, str] | None = None, **redis: str) -> Config:
    """Load a configuration whose `[redis]` holds these settings."""
    return load_config(
        path=None,
        environ=environ or {},
        cwd=folder,
        overrides={f"redis.{name}": value for name, value in redis.items()},
    )


def problems(folder: Path, environ: Mapping[str, str] | None = None, **redis: str) -> str:
    """Return what is wrong with such a configuration, all of it."""
    with pytest.raises(ConfigError) as caught:
        load(folder, environ, **redis)
    return str(caught.value)


def test_the_password_comes_from_its_file_then_from_credentials(tmp_path: Path) -> None:
    """The file that a setting names wins; neither the environment nor the command line holds a password by itself."""
    (tmp_path / "secret").write_text("from-the-file\n", "utf-8")
    (tmp_path / "redis_password").write_text("from-credentials\n", "utf-8")
    credentials = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    named = load(tmp_path, credentials, url=URL, username="mill", password_file="secret")
    assert named.redis.access.password == "from-the-file"
    assert load(tmp_path, credentials, url=URL).redis.access.password == "from-credentials"
    assert load(tmp_path, url=URL).redis.access == RedisAccess()


def test_the_token_comes_from_credentials_too(tmp_path: Path) -> None:
    """Systemd hands it over as `http_token`."""
    (tmp_path / "http_token").write_text("from-credentials\n", "utf-8")
    assert load(tmp_path, {"CREDENTIALS_DIRECTORY": str(tmp_path)}).http.token.reveal() == "from-credentials"


def test_a_password_is_no_setting(tmp_path: Path) -> None:
    """Written into the file, the environment or the command line it is refused with a better place, and not quoted."""
    (tmp_path / "a.toml").write_text("[redis]\npassword = 'hunter2'\n[http]\ntoken = 'hunter2'", "utf-8")
    environ = {"BATCHMILL_REDIS__PASSWORD": "hunter2"}
    with pytest.raises(ConfigError) as caught:
        load_config(path="a.toml", environ=environ, cwd=tmp_path, overrides={"http.token": "hunter2"})
    assert "did you mean BATCHMILL_REDIS__PASSWORD_FILE?" in str(caught.value)
    assert "did you mean http.token_file?" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["redis://:hunter22@h/0", "redis://h?password=hunter22", "redis://u:hun%74er22@h"])
def test_of_two_passwords_neither_is_chosen(tmp_path: Path, url: str) -> None:
    """One of them would lie unused, and its owner would think it was rotated."""
    (tmp_path / "redis_password").write_text("from-credentials", "utf-8")
    told = problems(tmp_path, {"CREDENTIALS_DIRECTORY": str(tmp_path)}, url=url)
    assert told == "Redis has two passwords, one in redis.url and one in a file or credential: say it once"


def test_the_url_may_name_the_user_whose_password_a_file_holds(tmp_path: Path) -> None:
    """That is no secret, and stands where people look for it."""
    (tmp_path / "secret").write_text("s", "utf-8")
    assert load(tmp_path, url="rediss://mill@h/0", password_file="secret").redis.access.username == ""
    assert "names a user too" in problems(tmp_path, url="redis://a@h", username="b", password_file="secret")
    assert "redis.username needs a password" in problems(tmp_path, url=URL, username="mill")


def test_what_would_lie_unused_is_told(tmp_path: Path) -> None:
    """Certificates without TLS would look like safety; the embedded server takes none of it."""
    (tmp_path / "secret").write_text("s", "utf-8")
    certificates = Certificates(tmp_path)
    told = problems(tmp_path, url="redis://h", tls_ca_file=str(certificates.ca))
    assert told == "redis.tls_ca_file is of no use: redis.url begins with rediss where TLS is spoken"
    assert "the embedded server" in problems(tmp_path, password_file="secret")
    assert "needs redis.tls_cert_file" in problems(tmp_path, url=URL, tls_key_file=str(certificates.ca))


def test_files_that_cannot_be_used_are_found_at_the_start(tmp_path: Path) -> None:
    """A missing file, one that is no certificate, a key of another certificate, an encrypted key (nobody is asked)."""
    certificates = Certificates(tmp_path)
    (tmp_path / "prose").write_text("no certificate", "utf-8")
    assert "cannot be read: No such file" in problems(tmp_path, url=URL, tls_ca_file="nowhere")
    assert "prose holds no certificate" in problems(tmp_path, url=URL, tls_ca_file="prose")
    one, other = certificates.issue("one"), certificates.issue("other")
    for key in (other.key, certificates.encrypt(one.key)):
        told = problems(tmp_path, url=URL, tls_cert_file=str(one.certificate), tls_key_file=str(key))
        assert "no certificate with its key" in told


def test_a_password_is_known_in_each_of_its_spellings() -> None:
    """Whatever quotes the URL or what it means is redacted; what is no URL at all harms nobody."""
    assert passwords_in("redis://u:p%40ssw0rd@h/0") == ["p%40ssw0rd", "p@ssw0rd"]
    assert passwords_in("redis://h/0?username=u&password=p%40ssw0rd") == ["p@ssw0rd"]
    assert "p@ss/w0rd" in passwords_in("redis://u:p@ss/w0rd@h/0")
    assert passwords_in("redis://[h") == passwords_in("redis://h") == passwords_in("redis://u@h") == []


def test_what_lets_us_in_is_not_printed() -> None:
    """A repr ends up in logs."""
    assert "hunter2" not in repr(RedisAccess(username="u", password="hunter2"))


def test_a_plain_url_is_given_nothing_for_tls() -> None:
    """redis-py refuses such words on a plain connection."""
    full = RedisAccess("u", "p", "ca", "cert")
    assert full.options("redis://h") == {"username": "u", "password": "p"}
    assert full.options("rediss://h")["ssl_keyfile"] == "cert"


def test_a_producer_needs_neither_the_sdk_nor_dramatiq_for_it() -> None:
    """Importing the producer's side stays cheap."""
    code = "import sys, worker.client; print([m for m in ('anthropic', 'dramatiq') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip() == "[]"
