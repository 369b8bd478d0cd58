"""`kickwatch status`: with a running daemon, with a dead one, without one. And the outlet that writes the file."""

import asyncio
import os
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from beliefs import believing
from command import kickwatch
from kickwatch.commands.status import duration, text_of
from kickwatch.errors import KickwatchError
from kickwatch.model import AlarmKind, Condition
from kickwatch.node.lock import NodeLock
from kickwatch.outlets.events import Beat, GuardCalm
from kickwatch.outlets.status import Status, read, write
from kickwatch.outlets.status_file import StatusFileOutlet

STATUS = Status(
    pid=7,
    version="1.2",
    condition=Condition.BROADCASTING,
    condition_since_unix_s=1000.0,
    doing="broadcasting; trial 3: churn window, 23 containers",
    updated_unix_s=4590.0,
    trials=3,
    containers=69,
    alerts={"broadcasting": ("attributed", "signature")},
)


def test_it_is_read_while_the_daemon_holds_the_lock(tmp_path: Path) -> None:
    path, lock = tmp_path / "run" / "status.json", tmp_path / "lock"
    status = replace(STATUS, pid=os.getpid())
    write(status, path)
    assert path.stat().st_mode & 0o777 == 0o644
    with pytest.raises(KickwatchError, match="no kickwatch runs on this node"):
        read(path, lock)
    with NodeLock(lock):
        assert read(path, lock) == status
    with pytest.raises(KickwatchError, match="no kickwatch runs on this node"):
        read(path, lock)


def test_what_a_dead_daemon_left_is_not_the_state_of_a_trial_that_runs(tmp_path: Path) -> None:
    path, lock = tmp_path / "status.json", tmp_path / "lock"
    write(replace(STATUS, pid=1), path)
    with NodeLock(lock), pytest.raises(KickwatchError, match=rf"\(pid {os.getpid()}\) has not written"):
        read(path, lock)


@pytest.mark.parametrize(
    ("content", "complaint"), [(None, "cannot be read"), (b"{", "cannot be parsed"), (b"{}", "cannot be parsed")]
)
def test_an_unusable_file_is_named(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    path, lock = tmp_path / "status.json", tmp_path / "lock"
    if content is not None:
        path.write_bytes(content)
    with NodeLock(lock), pytest.raises(KickwatchError, match=rf"status\.json {complaint}"):
        read(path, lock)


def test_a_file_that_cannot_be_written_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    write(STATUS, tmp_path / "file" / "status.json")
    write(STATUS, Path("/proc/nowhere/status.json"))
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


async def test_the_outlet_writes_at_each_beat_and_keeps_when_the_condition_began(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    outlet = StatusFileOutlet(path)
    await outlet.take(GuardCalm())
    assert not await asyncio.to_thread(path.exists)
    believed = believing(condition=Condition.BROADCASTING, alerted={AlarmKind.BROADCASTING: ("attributed",)}, trials=3)
    written = []
    for belief in (believed, believed, believing(condition=Condition.UNKNOWN, reasons=("stale",))):
        await outlet.take(Beat(belief, "between two trials", engine_lost=False, budget_unwritten=False))
        written.append(msgspec.json.decode(await asyncio.to_thread(path.read_bytes), type=Status))
    first, second, third = written
    assert (first.doing, first.trials, first.alerts) == ("between two trials", 3, {"broadcasting": ("attributed",)})
    assert second.condition_since_unix_s == first.condition_since_unix_s
    assert second.updated_unix_s > first.updated_unix_s
    assert third.condition_since_unix_s > second.condition_since_unix_s
    assert (third.condition, third.reasons) == (Condition.UNKNOWN, ("stale",))


def test_the_text_is_for_people() -> None:
    assert text_of(STATUS, 4600.0).splitlines() == [
        "broadcasting for 1 h 0 min: kickwatch 1.2, pid 7",
        "CREATING CONTAINERS MAKES THE KERNEL INTERRUPT ALL CPUs",
        "broadcasting; trial 3: churn window, 23 containers (updated 10 s ago)",
        "3 trials, 69 containers since the evidence began",
        "alert: broadcasting (attributed, signature)",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (7260, "2 h 1 min"), (180_000, "2 d 2 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_without_a_daemon_it_is_one_line_and_status_1() -> None:
    held = [line for line in Path("/proc/locks").read_text().splitlines() if "FLOCK" in line]
    lock = Path("/run/kickwatch.lock")
    if lock.exists() and any(line.split()[5].endswith(f":{lock.stat().st_ino}") for line in held):
        pytest.skip("feature: a kickwatch runs on this node")
    outcome = kickwatch("status")
    assert outcome.status == 1
    assert "systemctl start kickwatch" in outcome.complaint


def test_the_text_names_why_nothing_is_known_and_the_age_of_the_verdict() -> None:
    young = replace(
        STATUS, condition=Condition.UNKNOWN, reasons=("insufficient_evidence",), more_containers=19, alerts={}
    )
    text = text_of(replace(young, verdict_age_s=50.0), 4600.0)
    assert text.splitlines()[0] == "unknown (insufficient_evidence) for 1 h 0 min: kickwatch 1.2, pid 7"
    assert "last confirmed by a trial 1 min ago" in text
    assert "quiet needs 19 more containers without a broadcast" in text
    assert "last confirmed" not in text_of(young, 4600.0)
