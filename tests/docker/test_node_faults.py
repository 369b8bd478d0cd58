"""Faults of the node under a running daemon: disk, descriptors, memory, clock, a second kickwatch. It continues."""

import json
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from command import kickwatch
from kickwatch.node.cgroups import Cgroups, CgroupVersion
from kickwatch.node.lock import LOCK_PATH
from kickwatch.outlets.status import STATUS_PATH
from node_daemon import NodeDaemon
from slowness import SLOWNESS
from wall_clock import WallClock

pytestmark = [pytest.mark.long, pytest.mark.docker, pytest.mark.kernel, pytest.mark.timeout(120)]

YEAR_S = 365 * 86_400
# Faults that have nothing to do with the engine are tried with the faster one.
RUNC: dict[str, object] = {"engine.kind": "oci"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A state directory on a separate file system of one megabyte."""
    state = tmp_path / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(state)], check=True)
    yield state
    subprocess.run(["umount", "-l", str(state)], check=True)


def fill(directory: Path) -> list[Path]:
    """Fill the file system completely; return all files written so far."""
    filler = directory / f"filler-{len(list(directory.glob('filler-*')))}"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    return list(directory.glob("filler-*"))


def replayed(state: Path) -> Any:
    """The result of `kickwatch replay` on the history, which must judge every trial as the daemon did."""
    outcome = kickwatch("replay", "--json", str(state / "history.db"))
    assert outcome.status in {0, 4}, outcome.err  # unknown before ten containers, then quiet
    result = json.loads(outcome.out.splitlines()[-1])
    assert result["otherwise"] == 0
    assert result["lost"] == []
    return result


def test_disk_full_in_the_state_directory(tmp_path: Path, small_disk: Path) -> None:
    """Trials use the reserved space, then wait in memory, and are all appended once there is space again."""
    with NodeDaemon(tmp_path, RUNC) as daemon:
        daemon.wait("trial_finished")
        fill(small_disk)
        assert str(small_disk) in daemon.wait("history_trouble")["what"]
        fillers = fill(small_disk)
        (small_disk / "history.reserve").unlink(missing_ok=True)
        fillers = fill(small_disk)
        daemon.wait("trial_finished", daemon.mark(), times=3)
        assert not list(small_disk.glob("history-*-*.db*"))
        for filler in fillers:
            filler.unlink()
        resumed = daemon.wait("history_resumed")
        assert resumed["appended"] >= 1
        assert resumed["trials_lost"] == 0
        daemon.wait("trial_finished", daemon.mark(), times=2)
        assert len(daemon.events("history_trouble")) == 1, "logged once"
        assert daemon.events("trial_failed") == []
        finished = len(daemon.events("trial_finished"))
    assert replayed(small_disk)["trials"] >= finished


def test_writes_that_fail_cost_no_trial(tmp_path: Path, small_disk: Path) -> None:
    """Each write beyond the limit fails; SQLite reports an I/O error, as for a broken disk."""
    with NodeDaemon(tmp_path, RUNC) as daemon:
        daemon.wait("trial_finished", times=2)
        soft, hard = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (0, hard))
        trouble = daemon.wait("history_trouble")
        assert "disk I/O error" in trouble["what"]
        daemon.wait("trial_finished", daemon.mark(), times=6)
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (soft, hard))
        assert daemon.wait("history_resumed")["appended"] >= 6
        assert [record["aside"] for record in daemon.events("history_trouble")] == [""]
        assert not list(small_disk.glob("history-*-*.db*"))
        daemon.wait("trial_finished", daemon.mark())
        finished = len(daemon.events("trial_finished"))
    assert replayed(small_disk)["trials"] >= finished


def test_a_reload_on_a_full_disk_keeps_what_was_known(tmp_path: Path, small_disk: Path) -> None:
    """All trials since the start are in memory only; `status` counts them before and after the reload."""
    fill(small_disk)
    with NodeDaemon(tmp_path, {**RUNC, "guard.poll_s": 0.2}) as daemon:
        daemon.wait("trial_finished", times=4)
        daemon.configure(trial__interval_s=0.5)
        daemon.send(signal.SIGHUP)
        daemon.wait("reloaded")
        daemon.wait("trial_finished", daemon.mark(), times=2)
        # The status may be one trial late. Trials lost in the reload would be missing from it for ever.
        daemon.until(
            lambda: status_of(daemon).get("trials", 0) >= len(daemon.events("trial_finished")) - 1,
            "a status of all trials",
            timeout_s=10.0,
        )
        assert daemon.events("evidence_dropped") == []


def status_of(daemon: NodeDaemon) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        status = json.loads(STATUS_PATH.read_text(encoding="utf-8"))
        return dict(status) if status["pid"] == daemon.pid else {}
    return {}


def test_state_directory_read_only(tmp_path: Path, small_disk: Path) -> None:
    with NodeDaemon(tmp_path, RUNC) as daemon:
        daemon.wait("trial_finished")
        remount(small_disk, "ro")
        trouble = daemon.wait("history_trouble")
        assert str(small_disk) in trouble["what"]
        assert "state.directory" in trouble["remedy"]
        daemon.wait("trial_finished", daemon.mark(), times=2)
        remount(small_disk, "rw")
        assert daemon.wait("history_resumed")["appended"] >= 2
        since = daemon.mark()
        daemon.wait("trial_finished", since)
        assert len(daemon.events("history_trouble")) == 1, "logged once"
        assert daemon.events("trial_failed") == []
        finished = len(daemon.events("trial_finished"))
    assert replayed(small_disk)["trials"] >= finished


def remount(point: Path, mode: str) -> None:
    """Retries, because the file system is busy while a transaction is open."""
    command = ["mount", "-o", f"remount,{mode}", str(point)]
    for _ in range(200):
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.02)
    pytest.fail(f"{point} cannot be remounted {mode}")


def test_history_corrupt(tmp_path: Path) -> None:
    """At the start and while running: the file is set aside, logged, and a new history begun."""
    history = tmp_path / "state" / "history.db"
    history.parent.mkdir()
    garbage = b"SQLite format 3\0" + bytes(range(256)) * 64
    history.write_bytes(garbage)
    with NodeDaemon(tmp_path, RUNC) as daemon:
        for number in (1, 2):
            trouble = daemon.wait("history_trouble", times=number)
            assert str(history) in trouble["what"]
            assert Path(trouble["aside"]).read_bytes() == garbage
            daemon.wait("trial_finished", daemon.mark())
            if number == 1:
                history.write_bytes(garbage)
        assert len(daemon.events("history_trouble")) == 2
    assert replayed(history.parent)["trials"] >= 1


def says(daemon: NodeDaemon, since: int, part: str) -> bool:
    """Whether a trial failed as a whole for that reason. The one that was under way may fail for its containers."""
    return any(part in one["what"] for one in daemon.events("trial_failed", since))


def test_descriptors_exhausted(tmp_path: Path) -> None:
    """Twice, because after the first time some connections stay open for reuse."""
    with NodeDaemon(tmp_path) as daemon:
        daemon.wait("trial_finished")
        soft, hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
        open_then = []
        for _ in range(2):
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, hard))
            since = daemon.mark()
            daemon.until(lambda since=since: says(daemon, since, "Too many open files"), "the lack of descriptors")
            time.sleep(1)
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (soft, hard))
            since = daemon.mark()
            later = daemon.wait("trial_finished", since)
            assert (later["containers"], later["failed"]) == (2, 0)
            assert daemon.events("trial_void", since) == []
            open_then.append(len(list(Path(f"/proc/{daemon.pid}/fd").iterdir())))
        assert open_then[1] <= open_then[0] + 4, open_then


def test_oom_kill_of_the_daemon(tmp_path: Path) -> None:
    cgroups = Cgroups.read()
    own = cgroups.memory_root / "node-fault-oom"
    own.mkdir()
    try:
        into = ["sh", "-ec", f'echo $$ >{own}/cgroup.procs; exec "$@"', "sh"]
        with NodeDaemon(tmp_path, {"workload.containers_per_trial": 20}, prefix=into) as daemon:
            daemon.wait_status("churn window")
            squeeze(own, cgroups.version, daemon)
            assert daemon.ended() == -signal.SIGKILL
        assert oom_kills(own, cgroups.version) > 0
        with NodeDaemon(tmp_path, trials=1, before=daemon.before) as following:
            assert following.ended() == 0
            assert following.events("history_trouble") == []
            assert len(following.events("trial_finished")) == 1
            assert following.left() == {}
    finally:
        remove(own)


def remove(cgroup: Path) -> None:
    """Remove the cgroup; a killed process leaves it a little later."""
    for _ in range(100):
        with suppress(OSError):
            cgroup.rmdir()
            return
        time.sleep(0.05)
    pytest.fail(f"{cgroup} is in use and stays")


def squeeze(own: Path, version: CgroupVersion, daemon: NodeDaemon) -> None:
    """Lower the limit to just below the usage, repeatedly, until the OOM killer acts."""
    limit, usage = ("memory.max", "memory.current") if version is CgroupVersion.V2 else (
        "memory.limit_in_bytes", "memory.usage_in_bytes"
    )  # fmt: skip
    deadline = time.monotonic() + 30 * SLOWNESS
    while daemon.process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError):  # v1 refuses a limit that it cannot reach by reclaiming
            (own / limit).write_text(str(int((own / usage).read_text()) - 64 * 1024))
        time.sleep(0.05)


def oom_kills(own: Path, version: CgroupVersion) -> int:
    events = (own / ("memory.events" if version is CgroupVersion.V2 else "memory.oom_control")).read_text()
    return int(dict(line.split() for line in events.splitlines())["oom_kill"])


def test_clock_set_back_and_forward(tmp_path: Path) -> None:
    clock = WallClock(tmp_path)
    with NodeDaemon(tmp_path, RUNC, environment=clock.environment) as daemon:
        daemon.wait("trial_finished")
        for seconds in (3600, -3600, YEAR_S, -YEAR_S, 0):
            clock.set(seconds)
            record = daemon.wait("trial_finished", daemon.mark())
            offset_s = datetime.fromisoformat(record["timestamp"]).timestamp() - time.time()
            assert offset_s == pytest.approx(seconds, abs=30), "the daemon does not see the changed clock"
            assert (record["containers"], record["failed"]) == (2, 0)
        for trouble in ("trial_void", "trial_failed", "history_trouble", "evidence_dropped", "observer_blind"):
            assert daemon.events(trouble) == []
    assert replayed(tmp_path / "state")["voids"] == 0


def test_clock_set_neither_refills_the_budget_nor_blocks_it(tmp_path: Path) -> None:
    clock = WallClock(tmp_path)
    small = {**RUNC, "budget.containers_per_hour": 5, "guard.poll_s": 0.2}  # the warm-up and two trials
    with NodeDaemon(tmp_path, small, environment=clock.environment) as daemon:
        daemon.wait_status("budget: 5 of 5 containers in the last hour")
        for seconds in (YEAR_S, -YEAR_S):
            clock.set(seconds)
            since = daemon.mark()
            daemon.send(signal.SIGHUP)  # the budget is computed again
            daemon.wait("reloaded", since)
            daemon.until(lambda: daemon.status.startswith("budget: "), "the budget")
            time.sleep(1)
            assert daemon.status.startswith("budget: ")
        assert len(daemon.events("trial_finished")) == 2
    spent = json.loads((tmp_path / "state" / "spent.json").read_text())
    assert all(at - time.time() < 60 for at, _ in spent), "the budget is blocked for longer than an hour"
    # A daemon started while the clock is a year behind finds charges with times in the future.
    with NodeDaemon(tmp_path, small, environment=clock.environment) as daemon:
        daemon.wait_status("budget: ")
        assert daemon.events("trial_finished") == []
        daemon.configure(budget__containers_per_hour=20)
        daemon.send(signal.SIGHUP)
        daemon.wait("trial_finished")
    spent = json.loads((tmp_path / "state" / "spent.json").read_text())
    assert all(at - time.time() < 60 - YEAR_S for at, _ in spent), "the budget is blocked for a year"


def test_a_second_kickwatch_on_the_node_is_refused(tmp_path: Path) -> None:
    with NodeDaemon(tmp_path) as daemon:
        daemon.wait("started")
        for command in (["run", "--trials", "1"], ["trial", "--containers", "1"]):
            rival = kickwatch(*command, "--config", str(daemon.config))
            assert rival.status == 1
            assert f"pid {daemon.pid}" in rival.complaint
            assert str(LOCK_PATH) in rival.complaint
            assert "systemctl stop kickwatch" in rival.complaint
        since = daemon.mark()
        assert daemon.wait("trial_finished", since, times=2)["containers"] == 2
        assert daemon.events("trial_failed") == []
