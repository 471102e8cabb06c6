import errno
import gzip
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from contract import ROWS, SinkContract, batch, deliver, many_rows
from mounts import read_only, tmpfs

from worker.config import SinkSettings
from worker.sinks import ErrorType, Sink, SinkError, SinkSettingsError, build
from worker.sinks.file import FileSink


def read(path: Path) -> bytes:
    """Read a result file as its name says."""
    match path.suffix:
        case ".gz":
            return gzip.decompress(path.read_bytes())
        case ".zst":
            with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as reader:
                return reader.read()
        case _:
            return path.read_bytes()


class Files:
    """Files below a folder, as somebody with a glob sees them."""

    tells_repeats_apart = True

    def __init__(self, folder: Path, compression: str) -> None:
        self.folder = folder
        self.settings = SinkSettings("file", f"{folder}/{{lane}}/{{batch}}.jsonl", compression)

    def sink(self) -> Sink:
        """Build a fresh sink."""
        return build("results", self.settings)

    def files(self) -> list[Path]:
        """Every file that is not hidden."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file() and not path.name.startswith("."))

    def visible(self) -> list[bytes]:
        """Every line of every file."""
        return [line for path in self.files() for line in read(path).splitlines()]

    def inode(self) -> int:
        """Return the inode of the one file."""
        return self.files()[0].stat().st_ino if self.files() else -1


def leftovers(folder: Path) -> list[str]:
    """Name the temporary files below `folder`."""
    return [path.name for path in folder.rglob(".*")]


class TestFileSink(SinkContract):
    """The contract, with each compression."""

    @pytest.fixture(params=["none", "gzip", "zstd"])
    def target(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Files]:
        """Files in a folder that does not exist yet; no test may leave a temporary file older than its kill."""
        yield Files(tmp_path / "results", request.param)
        if "killed" not in request.node.name:
            assert leftovers(tmp_path) == []


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Plain files in a folder."""
    return Files(tmp_path / "results", "none")


def test_the_first_delivery_wins_and_a_later_one_changes_nothing(files: Files) -> None:
    """A file once published is never touched again, whatever a repeat would have written."""
    deliver(files.sink(), ROWS)
    before = files.files()[0].stat()
    deliver(files.sink(), ROWS[:1])
    after = files.files()[0].stat()
    assert files.visible() == ROWS
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_two_racing_deliveries_of_a_batch_publish_one(files: Files) -> None:
    """Two replicas may deliver at the same time; both commits succeed, one file stands."""
    with files.sink().open(batch()) as one, files.sink().open(batch()) as two:
        one.write(ROWS)
        two.write(ROWS)
        two.commit()
        one.commit()
    assert files.visible() == ROWS
    assert leftovers(files.folder) == []


def test_a_file_is_synced_before_it_has_its_name_and_its_folders_after(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of sync, link, sync is what a power cut cannot break, for the winner and for a repeat."""
    folders = [files.folder / "default", files.folder]
    steps: list[str] = []
    fsync, link = os.fsync, os.link

    def watched_fsync(fd: int) -> None:
        steps.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        fsync(fd)

    def watched_link(source: Path, target: Path) -> None:
        steps.append("link")
        link(source, target)

    files.sink().check()
    (files.folder / "default").mkdir()
    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "link", watched_link)
    for _ in range(2):
        steps.clear()
        deliver(files.sink(), ROWS)
        assert steps[0].endswith(".tmp")
        assert steps[1:] == ["link", *map(str, folders)]


def test_every_new_folder_is_synced_into_its_parent(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut after a commit takes no folder away either."""
    synced: list[Path] = []
    fsync = os.fsync

    def watched(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink())
        fsync(fd)

    monkeypatch.setattr(os, "fsync", watched)
    files.sink().open(batch()).abort()
    assert synced == [files.folder.parent, files.folder]


def test_a_failed_folder_sync_fails_the_commit_and_a_repeat_heals_it(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that may not survive a power cut is no delivery yet."""

    def broken(folder: Path) -> None:
        raise OSError(errno.EIO, "sync", str(folder))

    with files.sink().open(batch()) as delivery:
        delivery.write(ROWS)
        monkeypatch.setattr("worker.sinks.file.sync_folder", broken)
        with pytest.raises(SinkError):
            delivery.commit()
    monkeypatch.undo()
    deliver(files.sink(), ROWS, batch().uid)
    assert files.visible() == ROWS


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_without_hard_links_a_rename_publishes(files: Files, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A file system that knows no links gets the same result, still once."""

    def no_links(source: Path, target: Path) -> None:
        raise OSError(code, os.strerror(code), str(source), None, str(target))

    monkeypatch.setattr(os, "link", no_links)
    files.sink().check()
    deliver(files.sink(), ROWS)
    deliver(files.sink(), ROWS[:1])
    assert files.visible() == ROWS
    assert leftovers(files.folder) == []


def test_something_else_under_the_name_is_never_taken_for_a_delivery(files: Files) -> None:
    """A folder or a dead link in the way is an error, not a delivered batch."""
    lane = files.folder / "default"
    lane.mkdir(parents=True)
    (lane / "b1.jsonl").mkdir()
    (lane / "b2.jsonl").symlink_to("nowhere")
    for uid in ("b1", "b2"):
        with pytest.raises(SinkError) as failure:
            deliver(files.sink(), ROWS, uid)
        assert (failure.value.error_type, failure.value.retryable) == (ErrorType.INVALID, False)
    assert leftovers(files.folder) == []


def test_a_file_where_a_folder_should_be_is_an_invalid_path(files: Files) -> None:
    """An operator's mistake is named, not retried."""
    files.folder.write_bytes(b"")
    with pytest.raises(SinkError) as failure:
        files.sink().open(batch())
    assert failure.value.error_type is ErrorType.INVALID


def test_a_full_disk_is_an_error_to_retry(tmp_path: Path) -> None:
    """ENOSPC shows nothing and leaves nothing; with space again, the same batch goes through."""
    with tmpfs(tmp_path / "disk", "size=1m") as disk:
        files = Files(disk, "none")
        ballast = disk / ".ballast"
        ballast.write_bytes(b"x" * 500_000)
        with pytest.raises(SinkError) as failure:
            deliver(files.sink(), list(many_rows(1_200)))
        assert (failure.value.error_type, failure.value.retryable) == (ErrorType.NO_SPACE, True)
        assert files.visible() == []
        assert leftovers(disk) == [".ballast"]
        ballast.unlink()
        deliver(files.sink(), list(many_rows(1_200)))
        assert len(files.visible()) == 1_200


def test_a_full_disk_fails_the_check(tmp_path: Path) -> None:
    """A check writes for real, so it meets the full disk before a delivery does."""
    with tmpfs(tmp_path / "disk", "size=64k") as disk:
        (disk / ".ballast").write_bytes(b"x" * 65_536)
        with pytest.raises(SinkError) as failure:
            Files(disk, "none").sink().check()
        assert failure.value.error_type is ErrorType.NO_SPACE
        assert leftovers(disk) == [".ballast"]


def test_a_folder_that_may_not_be_written_is_a_permission_error_with_a_hint(tmp_path: Path) -> None:
    """Both the check and a delivery say what is wrong; a retry may find it mended."""
    with read_only(tmp_path / "results") as folder:
        sink = Files(folder, "none").sink()
        for attempt in (sink.check, lambda: sink.open(batch())):
            with pytest.raises(SinkError) as failure:
                attempt()
            assert (failure.value.error_type, failure.value.retryable) == (ErrorType.PERMISSION, True)
            assert "permission" in failure.value.hint


def test_a_check_creates_the_folder_and_nothing_else(files: Files) -> None:
    """The check's own files are gone, whatever happened."""
    files.sink().check()
    assert list(files.folder.iterdir()) == []


def test_what_dead_deliveries_left_is_swept_after_an_hour(files: Files) -> None:
    """Old temporary files go, young ones and foreign ones stay."""
    lane = files.folder / "default"
    lane.mkdir(parents=True)
    names = {
        ".b0.0123456789abcdef.tmp": 3_700,
        ".b0.fedcba9876543210.tmp": 3_500,
        ".other.tmp": 9_999,
        "b0.jsonl": 9_999,
    }
    now = lane.stat().st_mtime
    for folder in (lane, files.folder):
        for name, age in names.items():
            (folder / name).write_bytes(b"")
            os.utime(folder / name, (now - age, now - age))
    sink = files.sink()
    deliver(sink, ROWS)
    sink.check()
    for folder in (lane, files.folder):
        assert set(names) - {path.name for path in folder.iterdir()} == {".b0.0123456789abcdef.tmp"}


def test_what_was_too_young_to_be_swept_is_swept_where_nothing_is_delivered_any_more(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repeat of a delivery that died finds its file young; a lane may fall quiet then, or the day may end."""
    lane = files.folder / "default"
    lane.mkdir(parents=True)
    left = lane / ".b1.0123456789abcdef.tmp"
    left.write_bytes(b"")
    sink = files.sink()
    deliver(sink, ROWS)
    sink.check()
    assert left.exists()
    monkeypatch.setattr("worker.sinks.file.STALE_SECONDS", -1.0)
    sink.check()
    assert not left.exists()
    assert isinstance(sink, FileSink)
    assert sink._opened == {}


def test_a_delivery_whose_temporary_file_was_swept_is_tried_again(files: Files) -> None:
    """A delivery that stood still for an hour loses its file, says so, and its repeat succeeds."""
    with files.sink().open(batch("b1")) as delivery:
        delivery.write(ROWS)
        for path in files.folder.rglob(".*.tmp"):
            path.unlink()
        with pytest.raises(SinkError) as failure:
            delivery.commit()
    assert failure.value.retryable
    deliver(files.sink(), ROWS)
    assert files.visible() == ROWS


def test_files_are_for_owner_and_group(files: Files) -> None:
    """Results may be private: others never read them, and a stricter umask is obeyed."""
    before = os.umask(0o022)
    try:
        deliver(files.sink(), ROWS, "b1")
        os.umask(0o077)
        deliver(files.sink(), ROWS, "b2")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (*files.files(), files.folder)]
    assert modes == [0o640, 0o600, 0o750]


@pytest.mark.parametrize(("compression", "suffix"), [("none", ""), ("gzip", ".gz"), ("zstd", ".zst")])
def test_the_name_says_the_compression_once(tmp_path: Path, compression: str, suffix: str) -> None:
    """The suffix is appended unless the template has it already."""
    for path in ("{batch}.jsonl", f"again/{{batch}}.jsonl{suffix}"):
        deliver(build("s", SinkSettings("file", f"{tmp_path}/{path}", compression)), ROWS)
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.jsonl*"))
    assert names == [f"again/b1.jsonl{suffix}", f"b1.jsonl{suffix}"]


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_compressed_files_of_the_same_rows_are_equal(tmp_path: Path, compression: str) -> None:
    """No clock and no name gets into a file, so a repeat can be compared byte by byte."""
    for name in ("one", "two"):
        deliver(build("s", SinkSettings("file", f"{tmp_path}/{name}/{{batch}}", compression)), list(many_rows(3_000)))
    one, two = sorted(path.read_bytes() for path in tmp_path.rglob("b1*"))
    assert one == two


def test_zstd_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration is refused at the start, with the command that helps."""
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(SinkSettingsError, match=r"batchmill\[zstd\]"):
        build("s", SinkSettings("file", f"{tmp_path}/{{batch}}", "zstd"))


def test_temporary_names_come_from_the_token(files: Files) -> None:
    """Chance is given, so two deliveries with the same token collide instead of sharing a file."""
    sink = FileSink("s", files.settings, token=lambda: "0" * 16)
    with sink.open(batch()), pytest.raises(SinkError):
        sink.open(batch())
