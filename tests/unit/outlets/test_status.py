"""`kickwatch status`: with a running daemon, with a dead one, without one. And the outlet that writes the file."""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from beliefs import believing
from command import kickwatch
from kickwatch.commands.status import duration, text_of
from kickwatch.detect.monitor import Monitor
from kickwatch.detect.state import StreamFigures
from kickwatch.errors import KickwatchError
from kickwatch.model import AlarmKind, Condition
from kickwatch.node.lock import LOCK_PATH, NodeLock, holder_of
from kickwatch.node.processes import start_ticks
from kickwatch.outlets.events import Beat, EvidenceOpened, GuardCalm, ProgressOpened, TrialTaken
from kickwatch.outlets.live_status import Progress, Rates, StreamStatus
from kickwatch.outlets.status import Status, read, write
from kickwatch.outlets.status_file import StatusFileOutlet
from slowness import SLOWNESS
from watching import PACE, serial, watched

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


def test_any_user_may_read_the_status_of_a_daemon_with_a_strict_umask(tmp_path: Path) -> None:
    """Started by hand, where neither the unit nor systemd-tmpfiles has made the directory."""
    path = tmp_path / "run" / "status.json"
    before = os.umask(0o077)
    try:
        write(STATUS, path)
    finally:
        os.umask(before)
    assert [one.stat().st_mode & 0o777 for one in (path.parent, path)] == [0o755, 0o644]


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
    if holder_of(LOCK_PATH) is not None:
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


async def test_it_is_written_during_a_trial_as_well_and_shows_how_far_it_is(tmp_path: Path) -> None:
    path, rates = tmp_path / "status.json", Rates(span_s=5.0, requests={"do_sync_core": 2.0})
    doing = ["trial 0: churn window"]

    async def read_rates() -> Rates:
        return rates

    outlet = StatusFileOutlet(path, read_rates, period_s=0.02)
    await outlet.take(EvidenceOpened({"attributed": StreamFigures(False, 1.0, 5e8, 1.0)}, believing))
    await outlet.take(ProgressOpened(lambda: Progress(doing=doing[0], trial_since_s=1.0)))
    first = await written(path, lambda _: True)
    assert (first.doing, first.rates, first.trial) == ("trial 0: churn window", rates, None)
    assert first.streams == {"attributed": StreamStatus(1.0, 5e8, False)}
    assert first.start_ticks == await asyncio.to_thread(start_ticks, "self")
    doing[0] = "trial 0: quiet window"
    assert (await written(path, lambda status: status.doing == doing[0])).progress == Progress(
        doing=doing[0], trial_since_s=1.0
    )
    await outlet.close()
    before = path.stat().st_mtime_ns
    await asyncio.sleep(0.1)
    assert path.stat().st_mtime_ns == before


async def test_the_latest_valid_trial_stays_when_a_later_one_is_void(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    outlet = StatusFileOutlet(path)
    beat = Beat(believing(), "", engine_lost=False, budget_unwritten=False)
    _, (outcome,) = watched(Monitor(PACE), [serial(2)])
    one = serial(2, trial_id="valid")
    await outlet.take(TrialTaken(one, outcome, (one,), 0.0, {}))
    void = serial(0, trial_id="void", void="suspended")
    await outlet.take(TrialTaken(void, outcome, (one,), 0.0, {}))
    await outlet.take(beat)
    status = await written(path, lambda _: True)
    assert status.trial is not None
    assert status.void_trial is not None
    assert (status.trial.trial_id, status.trial.creation_path_broadcasts_per_container) == ("valid", 2.0)
    assert status.trial.bill is not None
    assert any(line.origin == "slab" and line.broadcasts_per_container == 2.0 for line in status.trial.bill)
    assert (status.void_trial.trial_id, status.void_trial.void) == ("void", {"suspended": 1})
    await outlet.take(TrialTaken(one, outcome, (one,), 0.0, {}))
    await outlet.take(beat)
    assert (await written(path, lambda _: True)).void_trial is None


def test_the_file_of_an_earlier_version_is_read() -> None:
    old = (
        b'{"schema":1,"pid":7,"version":"0.0.9","condition":"quiet","condition_since_unix_s":1.0,"doing":"x",'
        b'"updated_unix_s":2.0,"trials":3,"containers":4}'
    )
    status = msgspec.json.decode(old, type=Status)
    assert (status.progress, status.streams, status.rates, status.start_ticks) == (None, None, None, None)
    assert "next trial: not known (the daemon is of an earlier version)" not in text_of(status, 3.0)


async def written(path: Path, true: Callable[[Status], bool]) -> Status:
    """The file, once it is there and that is true of it."""
    async with asyncio.timeout(5 * SLOWNESS):
        while True:
            with suppress(OSError):
                status = msgspec.json.decode(await asyncio.to_thread(path.read_bytes), type=Status)
                if true(status):
                    return status
            await asyncio.sleep(0.01)
