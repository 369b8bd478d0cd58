"""The textfile of a killed daemon: the next start removes it, or what comes later if the next start cannot."""

import asyncio
import errno
import os
import subprocess
from pathlib import Path

import pytest

import kickwatch.outlets.metrics.registry  # noqa: F401 -- loaded where used: a blocking read in the loop of a test
from kickwatch.configuration.types import MetricsConfig
from kickwatch.errors import ConfigError
from kickwatch.outlets.metrics import left_textfile
from metrics_outlets import an_outlet, configured, until_written

DEPLOY = Path(__file__).parents[3] / "deploy"
OURS = "# HELP kickwatch_x An x.\n"
unlink = Path.unlink


async def left_by_a_killed_daemon(state: Path, path: Path, text: str = OURS) -> None:
    """What a daemon that SIGKILL ended leaves."""
    await asyncio.to_thread(left_textfile.record, state, str(path))
    await asyncio.to_thread(path.write_text, text)


@pytest.mark.parametrize("now", ["", "other.prom"])
async def test_the_next_start_removes_the_textfile_that_a_killed_daemon_left(tmp_path: Path, now: str) -> None:
    """Also if the configuration has another path by then, or none."""
    left, current = tmp_path / "left.prom", str(tmp_path / now) if now else ""
    await left_by_a_killed_daemon(tmp_path, left)
    outlet = an_outlet()
    await outlet.start(configured(MetricsConfig(listen="", textfile=current), tmp_path))
    assert not left.exists()
    await outlet.close()
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240


async def test_the_next_start_writes_the_same_textfile_again(tmp_path: Path) -> None:
    path = tmp_path / "kickwatch.prom"
    await left_by_a_killed_daemon(tmp_path, path)
    outlet = an_outlet()
    await outlet.start(configured(MetricsConfig(listen="", textfile=str(path)), tmp_path))
    assert (tmp_path / left_textfile.RECORD).read_text() == str(path)
    await outlet.close()
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240


async def test_metrics_that_are_off_now_leave_no_old_textfile(tmp_path: Path) -> None:
    path = tmp_path / "kickwatch.prom"
    await left_by_a_killed_daemon(tmp_path, path)
    outlet = an_outlet()
    await outlet.start(configured(MetricsConfig(enabled=False, textfile=str(path)), tmp_path))
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240


async def test_a_file_that_another_wrote_at_that_path_stays(tmp_path: Path) -> None:
    path = tmp_path / "kickwatch.prom"
    await left_by_a_killed_daemon(tmp_path, path, "# HELP node_load1 1m load average.\n")
    await an_outlet().start(configured(MetricsConfig(enabled=False), tmp_path))
    assert list(tmp_path.iterdir()) == [path]  # noqa: ASYNC240


async def test_a_record_without_a_file_or_a_state_directory_is_no_error(tmp_path: Path) -> None:
    await asyncio.to_thread(left_textfile.record, tmp_path, str(tmp_path / "gone.prom"))
    await an_outlet().start(configured(MetricsConfig(enabled=False), tmp_path))
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240
    await an_outlet().start(configured(MetricsConfig(enabled=False), tmp_path / "absent"))


class ReadOnlyDirectories:
    """A mock: of a sandbox whose ReadWritePaths= no longer has these directories."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *directories: Path) -> None:
        self.directories = set(directories)
        monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: self.remove(path, missing_ok=missing_ok))

    def remove(self, path: Path, *, missing_ok: bool) -> None:
        if path.parent in self.directories and path.exists():
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        unlink(path, missing_ok)


@pytest.fixture
def moved(tmp_path: Path) -> tuple[Path, Path, Path]:
    """The state directory, the file of a daemon that was killed, and that of the next, in another directory."""
    for name in ("state", "old", "new"):
        (tmp_path / name).mkdir()
    return tmp_path / "state", tmp_path / "old/kickwatch.prom", tmp_path / "new/kickwatch.prom"


async def test_a_textfile_that_the_next_daemon_may_not_remove_stays_on_record_beside_its_own(
    monkeypatch: pytest.MonkeyPatch, moved: tuple[Path, Path, Path]
) -> None:
    """The next that may removes it: a later daemon, or a removal of kickwatch. Before, it looked current for ever."""
    state, old, new = moved
    await left_by_a_killed_daemon(state, old)
    sandbox = ReadOnlyDirectories(monkeypatch, old.parent)
    outlet = an_outlet()
    await outlet.start(configured(MetricsConfig(listen="", textfile=str(new)), state))
    await until_written(new)
    assert (state / left_textfile.RECORD).read_text().split("\0") == [str(old), str(new)]
    await outlet.close()
    assert (state / left_textfile.RECORD).read_text() == str(old)
    assert (old.exists(), new.exists()) == (True, False)
    sandbox.directories.clear()
    await asyncio.to_thread(left_textfile.remove_left, state)
    assert not old.exists()
    assert not (state / left_textfile.RECORD).exists()


async def test_a_textfile_that_a_stopping_daemon_may_not_remove_stays_on_record(
    monkeypatch: pytest.MonkeyPatch, moved: tuple[Path, Path, Path]
) -> None:
    state, _, path = moved
    outlet = an_outlet()
    await outlet.start(configured(MetricsConfig(listen="", textfile=str(path)), state))
    await until_written(path)
    ReadOnlyDirectories(monkeypatch, path.parent)
    await outlet.close()
    assert (state / left_textfile.RECORD).read_text() == str(path)


@pytest.mark.parametrize("renamed", [False, True])
async def test_after_a_reload_the_textfile_is_on_record_in_the_new_state_directory(
    tmp_path: Path, renamed: bool
) -> None:
    """A removal, or the next start, reads the record there. It stayed in the old directory alone."""
    before, after = tmp_path / "before", tmp_path / "new" / "after"
    old = tmp_path / "old.prom"
    current = tmp_path / "current.prom" if renamed else old
    outlet = an_outlet()
    await outlet.start(configured(MetricsConfig(listen="", textfile=str(old)), before))
    await until_written(old)
    await outlet.reload(configured(MetricsConfig(listen="", textfile=str(current)), after))
    await until_written(current)
    assert (after / left_textfile.RECORD).read_text() == str(current)
    await asyncio.to_thread(left_textfile.remove_left, after)  # as after a kill
    assert list(tmp_path.glob("*.prom")) == []  # noqa: ASYNC240
    await outlet.close()


async def test_a_refused_reload_keeps_the_record_in_the_state_directory_in_force(tmp_path: Path) -> None:
    path, directory = tmp_path / "kickwatch.prom", tmp_path / "state"
    outlet, old = an_outlet(), configured(MetricsConfig(listen="", textfile=str(path)), directory)
    await outlet.start(old)
    with pytest.raises(ConfigError):
        await outlet.reload(configured(MetricsConfig(listen="[fe80::1]:9893"), tmp_path / "refused"))
    assert not (tmp_path / "refused").exists()
    await outlet.start(old)
    await until_written(path)
    assert (directory / left_textfile.RECORD).read_text() == str(path)
    await outlet.close()
    assert not (directory / left_textfile.RECORD).exists()


def test_what_is_on_record_in_both_state_directories_stays(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    left_textfile.carry(before, after)
    assert not after.exists()
    left_textfile.record(before, "/a.prom")
    left_textfile.record(after, "/b.prom")
    left_textfile.carry(before, after)
    assert (after / left_textfile.RECORD).read_text().split("\0") == ["/b.prom", "/a.prom"]
    assert (before / left_textfile.RECORD).read_text() == "/a.prom"  # until somebody uses this directory again


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_textfile_that_cannot_be_looked_at_stays_on_record(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    """A mock: stat() refuses."""

    def refuse(_: Path) -> None:
        raise OSError(number, os.strerror(number))

    left_textfile.record(tmp_path, "/nowhere/kickwatch.prom")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", refuse)
        left_textfile.remove_left(tmp_path)
    assert (tmp_path / left_textfile.RECORD).read_text() == "/nowhere/kickwatch.prom"


def test_a_path_may_hold_a_line_break_and_what_is_no_file_is_not_ours(tmp_path: Path) -> None:
    state, left = tmp_path / "state", tmp_path / "kick\nwatch.prom"
    for directory in (state, tmp_path / "directory"):
        directory.mkdir()
    os.mkfifo(tmp_path / "fifo")  # it would block who opens it
    left.write_text(OURS)
    for path in (left, tmp_path / "directory", tmp_path / "fifo", left / "below"):
        left_textfile.record(state, str(path))
    left_textfile.remove_left(state)
    assert not left.exists()
    assert list(state.iterdir()) == []


@pytest.mark.parametrize(("shell", "script"), [("bash", "install"), ("sh", "debian/package/postrm")])
def test_a_removal_reads_every_path_of_the_record(tmp_path: Path, shell: str, script: str) -> None:
    """Also that of an earlier release, which had one path."""
    left, foreign = [tmp_path / name for name in ("a b.prom", "kick\nwatch.prom")], tmp_path / "node.prom"
    for path in left:
        path.write_text(OURS)
    foreign.write_text("# HELP node_load1 Load.\n")
    for path in (*left, foreign, tmp_path / "absent.prom"):
        left_textfile.record(tmp_path, str(path))
    text = (DEPLOY / script).read_text(encoding="utf-8")
    body = text.partition("remove_textfile() {")[2].partition("\n}\n")[0]
    others = f"say() {{ :; }}; state_directory() {{ echo '{tmp_path}'; }}"
    subprocess.run([shell, "-c", f"set -eu; {others}; remove_textfile() {{{body}\n}}\nremove_textfile"], check=True)
    assert list(tmp_path.iterdir()) == [foreign]
