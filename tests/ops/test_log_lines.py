import json
import logging
import os
import pty
import sys
from io import StringIO

import pytest
import structlog

from worker.core.model import Batch
from worker.telemetry import Telemetry, configure_logging, set_level

pytestmark = pytest.mark.usefixtures("own_logging")

KEY = "sk-ant-api03-CANARYKEYCANARYKEY"
PROMPT = "CANARYPROMPT please tell nobody"


def lines(stream: StringIO) -> list[dict[str, object]]:
    """Return the lines of a stream as JSON."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def configured(level: str = "info", **more: object) -> StringIO:
    """Send JSON lines to the stream that is returned."""
    stream = StringIO()
    configure_logging(format="json", level=level, stream=stream, **more)  # type: ignore[arg-type]
    return stream


def test_a_line_is_one_json_object_with_time_level_event_and_ids(batch: Batch) -> None:
    """Time, level and event come first, the ids of the batch are fields."""
    stream = configured()
    Telemetry(version="1").batch_submitted(batch)
    (line,) = lines(stream)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert str(line["timestamp"]).endswith("Z")
    assert {name: line[name] for name in list(line)[1:]} == {
        "level": "info",
        "event": "batch.submitted",
        "lane": "bulk",
        "batch": "k7m2q9x4t8w1z3b5",
        "batch_id": "msgbatch_01",
        "attempt": 1,
        "count": 1_000,
    }


@pytest.mark.parametrize("name", ["redis.connection", "dramatiq.worker", "httpx2", "anthropic._base_client"])
def test_lines_of_libraries_are_json_too(name: str) -> None:
    """A warning of a library is formatted like ours and names its logger."""
    stream = configured()
    logging.getLogger(name).warning("lost %s", "something")
    (line,) = lines(stream)
    assert (line["event"], line["logger"], line["level"]) == ("lost something", name, "warning")


@pytest.mark.parametrize("name", ["httpx2", "anthropic._base_client", "httpcore2.http11", "httpcore"])
def test_http_libraries_stay_below_a_warning_silent_even_when_they_lower_their_own_level(name: str) -> None:
    """ANTHROPIC_LOG=debug would write whole bodies: nothing of it passes."""
    stream = configured("debug")
    assert not logging.getLogger(name).isEnabledFor(logging.INFO)
    logging.getLogger(name).setLevel(logging.DEBUG)
    logging.getLogger(name).debug("Request options: %s", PROMPT)
    logging.getLogger(name).info("HTTP Request")
    assert stream.getvalue() == ""


def test_the_level_can_be_changed_while_running() -> None:
    """SIGHUP lowers or raises the level, never that of the HTTP libraries below a warning."""
    stream = configured("warning")
    telemetry = Telemetry(version="1")
    telemetry.info("first")
    set_level("debug")
    telemetry.info("second")
    logging.getLogger("httpx2").info("third")
    assert [line["event"] for line in lines(stream)] == ["second"]


def test_an_unknown_level_or_format_is_refused() -> None:
    """A slip in the configuration is an error that names the choices, not silence."""
    with pytest.raises(ValueError, match="debug, info"):
        set_level("loud")
    with pytest.raises(ValueError, match="console or json"):
        configure_logging(format="xml")  # type: ignore[arg-type]


def test_configuring_again_replaces_the_first() -> None:
    """No line appears twice, and none goes to the old stream."""
    old, new = configured(), configured()
    Telemetry(version="1").info("x.happened")
    assert (old.getvalue(), len(lines(new))) == ("", 1)


def test_before_configuration_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """Logging's last resort would print fields nobody has redacted."""
    logging.getLogger().handlers[:] = []
    Telemetry(version="1").warning("x.happened", params=PROMPT)
    assert capfd.readouterr() == ("", "")


def fail_with(secret: str, prompt: str) -> None:
    """Raise an exception that quotes a prompt, out of another one, from frames that hold a key."""
    words = {"prompt": prompt, "key": secret}
    try:
        int(words["prompt"])
    except ValueError as error:
        raise KeyError(words["prompt"]) from error


def test_a_traceback_shows_neither_locals_nor_what_an_exception_quotes() -> None:
    """Both exceptions quote the prompt, the frames hold it: the line names kinds and places only."""
    stream = configured()
    telemetry = Telemetry(version="1")
    try:
        fail_with(KEY, PROMPT)
    except KeyError as error:
        telemetry.role_failed("drainer", error)
    (line,) = lines(stream)
    assert "CANARY" not in stream.getvalue()
    assert (line["event"], line["error_type"]) == ("role.failed", "KeyError")
    trace = str(line["exception"])
    assert "ValueError: [message withheld]" in trace
    assert trace.endswith("KeyError: [message withheld]")
    assert "in fail_with" in trace


def test_a_system_error_is_told_in_full_but_for_its_secrets() -> None:
    """What went wrong with a disk or a connection is what the operator needs; the key in it is not."""
    stream = configured()
    Telemetry(version="1").role_failed("poller", ConnectionError(f"refused redis://user:hunter22@db:6379 {KEY}"))
    trace = lines(stream)[0]["exception"]
    assert trace == "ConnectionError: refused redis://[redacted]@db:6379 sk-ant-[redacted]"


def test_an_exception_of_a_library_takes_the_same_way() -> None:
    """A traceback logged by dramatiq shows no more than one of ours."""
    stream = configured()
    try:
        fail_with(KEY, PROMPT)
    except KeyError:
        logging.getLogger("dramatiq.worker").exception("Failed to process")
    assert "CANARY" not in stream.getvalue()
    assert "KeyError" in str(lines(stream)[0]["exception"])


def test_stray_structlog_loggers_are_redacted_too() -> None:
    """Structlog's own default prints local variables: it is never left in place."""
    stream = configured()
    try:
        fail_with(KEY, PROMPT)
    except KeyError:
        structlog.get_logger("stray").exception("x.failed", api_key="hunter22")
    assert "CANARY" not in stream.getvalue()
    assert lines(stream)[0]["api_key"] == "[redacted]"


def test_a_field_named_like_ours_does_not_replace_ours() -> None:
    """`level` given as a field is shown beside the level of the line."""
    stream = configured()
    Telemetry(version="1").info("config.reloaded", level="debug", timestamp=5)
    (line,) = lines(stream)
    assert (line["level"], line["level_"], line["timestamp_"]) == ("info", "debug", 5)


def test_a_line_that_cannot_be_formatted_is_reported_without_its_content(capfd: pytest.CaptureFixture[str]) -> None:
    """Logging's own complaint would print the arguments, to stderr."""
    stream = configured()
    logging.getLogger("redis").warning("%d prompts", PROMPT)
    assert "CANARY" not in stream.getvalue() + "".join(capfd.readouterr())
    assert lines(stream)[0]["event"] == "log.lost"


def on_a_terminal(stream_format: str) -> str:
    """Return what a terminal shows of two lines."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stream:
        configure_logging(format=stream_format, stream=stream)  # type: ignore[arg-type]
        Telemetry(version="1").info("lane.seen", lane="bulk", reason="a\x1b[2Jb\nforged")
        logging.getLogger("redis").warning("c\x1b[2Jd\nforged")
        shown = b""
        while shown.count(b"\n") < 2:  # a terminal hands over what there is, not what there will be
            shown += os.read(ours, 65_536)
        logging.getLogger().handlers[:] = []
    os.close(ours)
    return shown.decode()


def test_a_terminal_gets_lines_for_people() -> None:
    """`auto` is coloured text on a terminal, and text from outside moves no cursor and starts no line."""
    shown = on_a_terminal("auto")
    assert "lane.seen" in shown
    assert "\x1b[" in shown
    assert not shown.startswith("{")
    assert "a\\x1b[2Jb\\nforged" in shown
    assert "c\\x1b[2Jd\\nforged" in shown


def test_json_can_be_had_on_a_terminal() -> None:
    """The setting wins over the terminal."""
    assert json.loads(on_a_terminal("json").splitlines()[0])["reason"] == "a\x1b[2Jb\nforged"


def test_without_a_terminal_auto_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard error is the default, and a pipe gets JSON."""
    assert not sys.stderr.isatty()
    configure_logging(format="auto")
    Telemetry(version="1").info("x.happened")
    logging.getLogger().handlers[:] = []
    assert json.loads(capsys.readouterr().err)["event"] == "x.happened"
