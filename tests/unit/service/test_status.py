"""What `kickwatch status` says of a daemon that runs, of one that is dead, and of none."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from command import kickwatch
from kickwatch.commands.status import duration, text_of
from kickwatch.errors import KickwatchError
from kickwatch.node.lock import NodeLock
from kickwatch.service.status import Status, read, write

TOLD = Status(
    pid=7,
    version="1.2",
    condition="broadcasting",
    condition_since_unix_s=1000.0,
    doing="broadcasting; trial 3: churn window, 23 containers",
    updated_unix_s=4590.0,
    trials=3,
    containers=69,
    alerts={"broadcasting": ("attributed", "signature")},
)


def test_it_comes_back_while_the_daemon_holds_the_lock(tmp_path: Path) -> None:
    path, lock = tmp_path / "run" / "status.json", tmp_path / "lock"
    write(TOLD, path)
    assert path.stat().st_mode & 0o777 == 0o644
    with pytest.raises(KickwatchError, match="no kickwatch runs on this node"):
        read(path, lock)
    with NodeLock(lock):
        assert read(path, lock) == TOLD
    with pytest.raises(KickwatchError, match="no kickwatch runs on this node"):
        read(path, lock)


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot be read"), (b"{", "is not understood"), (b"{}", "is not understood")]
)
def test_a_file_that_does_not_help_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    path, lock = tmp_path / "status.json", tmp_path / "lock"
    if content is not None:
        path.write_bytes(content)
    with NodeLock(lock), pytest.raises(KickwatchError, match=rf"status\.json {said}"):
        read(path, lock)


def test_what_cannot_be_written_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    write(TOLD, tmp_path / "file" / "status.json")
    write(TOLD, Path("/proc/nowhere/status.json"))
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_the_text_is_for_people() -> None:
    assert text_of(TOLD, 4600.0).splitlines() == [
        "broadcasting for 1 h 0 min: kickwatch 1.2, pid 7",
        "broadcasting; trial 3: churn window, 23 containers (updated 10 s ago)",
        "3 trials, 69 containers since the evidence began",
        "alert: broadcasting (attributed, signature)",
    ]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (7260, "2 h 1 min"), (180_000, "2 d 2 h")],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_without_a_daemon_it_is_one_line_and_status_1() -> None:
    held = [line for line in Path("/proc/locks").read_text().splitlines() if "FLOCK" in line]
    lock = Path("/run/kickwatch.lock")
    if lock.exists() and any(line.split()[5].endswith(f":{lock.stat().st_ino}") for line in held):
        pytest.skip("feature: a kickwatch runs on this node")
    outcome = kickwatch("status")
    assert outcome.status == 1
    assert "systemctl start kickwatch" in outcome.complaint


def test_the_text_says_why_nothing_is_known_and_how_old_the_verdict_is() -> None:
    young = replace(TOLD, condition="unknown", reasons=("insufficient_evidence",), more_containers=19, alerts={})
    text = text_of(replace(young, verdict_age_s=50.0), 4600.0)
    assert text.splitlines()[0] == "unknown (insufficient_evidence) for 1 h 0 min: kickwatch 1.2, pid 7"
    assert "last confirmed by a trial 1 min ago" in text
    assert "quiet needs 19 more containers without a broadcast" in text
    assert "last confirmed" not in text_of(young, 4600.0)
