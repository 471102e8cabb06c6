import string
import time
from pathlib import Path

import pytest
from contract import batch
from hypothesis import given
from hypothesis import strategies as st

from worker.config import SinkSettings
from worker.sinks import ErrorType, SinkError, SinkSettingsError, build
from worker.sinks.path_template import PathTemplate

NASTY = st.text(alphabet="ab./\\\0~ \n-_%{}é", max_size=12) | st.sampled_from(
    ["..", ".", "", "/etc", "../..", "a/../../b"]
)
TEMPLATES = st.lists(
    st.sampled_from(["{lane}", "{batch}", "{date}", "/", "..", ".", "a", "results", "{x}", "{", "\0", ".tmp"]),
    max_size=8,
).map("".join)


@pytest.mark.parametrize("type_", ["object", "postgres", "redis", "webhook", "kafka", "parquet"])
def test_a_planned_type_says_what_is_available_now(type_: str) -> None:
    """A type of the contract that is still to come is told apart from a misspelt one."""
    with pytest.raises(SinkSettingsError, match=f"'results'.*{type_}.*not built yet.*file, stdout"):
        build("results", SinkSettings(type_))


def test_an_unknown_type_names_the_known_ones() -> None:
    """A typo is answered with the choice."""
    with pytest.raises(ValueError, match=r"'results'.*'flie'.*file, stdout"):
        build("results", SinkSettings("flie"))


def test_an_unknown_compression_names_the_known_ones() -> None:
    """A typo is answered with the choice."""
    with pytest.raises(SinkSettingsError, match=r"'results'.*'brotli'.*none, gzip, zstd"):
        build("results", SinkSettings(compression="brotli"))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("results/{lane}.jsonl", "no {batch}"),
        ("results/{batch}/{remote_id}.jsonl", "unknown placeholder {remote_id}"),
        ("results/{batch}/{}.jsonl", "unknown placeholder {}"),
        ("results/{lane.__class__}/{batch}", "unknown placeholder"),
        ("results/{batch!r}", "bare name"),
        ("results/{batch:>20}", "bare name"),
        ("results/{batch", "no template"),
        ("results/{batch}/", "must name a file"),
        ("results/{lane}//{batch}", "must name a file"),
        ("results/{lane}/../../{batch}", r"without \. or \.\."),
        ("results/{lane}/./{batch}", r"without \. or \.\."),
        ("results/{batch}\0", "must name a file"),
        ("results/.{batch}.tmp", "swept"),
        ("", "no {batch}"),
    ],
)
def test_a_path_that_cannot_work_is_refused_at_the_start(path: str, reason: str) -> None:
    """Every mistake in a template is a configuration error that says what is wrong."""
    with pytest.raises(SinkSettingsError, match=f"'results'.*{reason}"):
        build("results", SinkSettings(path=path))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/data/{lane}/{date}/{batch}.jsonl", "/data/default/2026-11-22/b1.jsonl"),
        ("/data/day={date}/{batch}.jsonl", "/data/day=2026-11-22/b1.jsonl"),
        ("/data/x-{batch}", "/data/x-b1"),
        ("/{batch}", "/b1"),
        ("/data/../other/{batch}", "/other/b1"),
        ("/data/{{literal}}/{batch}", "/data/{literal}/b1"),
    ],
)
def test_placeholders_are_filled_in(path: str, expected: str) -> None:
    """{lane}, {batch} and {date}, the UTC day of the seal, are all a path may depend on."""
    assert str(PathTemplate.parse(path).render(batch("b1"))) == expected


def test_a_relative_path_starts_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is fixed when the sink is built, wherever the process goes later."""
    monkeypatch.chdir(tmp_path)
    template = PathTemplate.parse("results/{batch}")
    monkeypatch.chdir("/")
    assert template.render(batch("b1")) == tmp_path / "results" / "b1"


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Auckland", "America/Los_Angeles"])
def test_the_date_is_the_utc_day_of_the_seal(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch delivered again on another day, or by a machine in another time zone, has the same file."""
    template = PathTemplate.parse("/{date}/{batch}")
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        days = [template.render(batch(sealed_at=at)).parent.name for at in (1_795_305_600.0, 1_795_391_999.9)]
    time.tzset()
    assert days == ["2026-11-22", "2026-11-22"]


@pytest.mark.parametrize("value", ["a/b", "..", "a\0b", "a\nb", "größe", "", "a" * 129])
def test_a_name_that_is_no_plain_name_is_refused(value: str) -> None:
    """Names are checked where they are made, and here again: nothing but letters, digits and . _ - is in a path."""
    template = PathTemplate.parse("/srv/{lane}/{batch}")
    for nasty in (batch(value), batch(lane=value)):
        with pytest.raises(SinkError) as failure:
            template.render(nasty)
        assert (failure.value.error_type, failure.value.retryable) == (ErrorType.INVALID, False)


@given(lane=NASTY, uid=NASTY, template=TEMPLATES)
def test_no_lane_no_batch_and_no_template_leads_out_of_the_root(lane: str, uid: str, template: str) -> None:
    """Whatever the values, a rendered path lies below the literal folder or is refused."""
    try:
        parsed = PathTemplate.parse(f"/srv/results/{template}{{batch}}")
        path = parsed.render(batch(uid, lane=lane))
    except (SinkSettingsError, SinkError):
        return
    assert path.resolve().is_relative_to(parsed.root)
    assert path.resolve() != parsed.root
    assert "\0" not in str(path)


@given(
    lane=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True),
    uid=st.text(alphabet=string.ascii_lowercase + string.digits, min_size=16, max_size=16),
)
def test_every_valid_lane_and_batch_has_a_path_of_its_own(lane: str, uid: str) -> None:
    """Names that the contract allows are never refused and never fold into one file."""
    path = PathTemplate.parse("/srv/{lane}/{batch}.jsonl").render(batch(uid, lane=lane))
    assert path == Path("/srv") / lane / f"{uid}.jsonl"
