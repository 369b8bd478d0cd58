"""Others remove what a running daemon has made, between two trials: before the next it is made again and logged."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from kickwatch.node.cgroups import Cgroups
from kickwatch.node.lock import LOCK_PATH
from kickwatch.outlets.status import STATUS_PATH
from kickwatch.workload.canary import CANARY_GROUP
from kickwatch.workload.names import CGROUP_NAME
from kickwatch.workload.oci_engine import ROOT
from node_daemon import FAST, NodeDaemon, Record, native_children
from private_engine import PrivateEngine, private_engine
from slowness import SLOWNESS

pytestmark = [pytest.mark.long, pytest.mark.docker, pytest.mark.kernel, pytest.mark.timeout(120)]

CONTAINERS = FAST["workload.containers_per_trial"]
PROGRAM = Path(__file__).parents[2] / "daemon/kickwatch/native/bin/workload"
USERS_IMAGE = "users-image:1"
PAUSE_S, FRESH_S = 5.0, 0.5
PAUSE = {"trial.interval_s": PAUSE_S, "trial.jitter": 0.0, "trial.canary_memcgs": 10}
Remove = Callable[[NodeDaemon], None]


@pytest.fixture(scope="module")
def engine() -> Iterator[PrivateEngine]:
    with private_engine() as engine:
        yield engine


def import_users_image(engine: PrivateEngine, directory: Path) -> None:
    tar = directory / "image.tar"
    subprocess.run(["tar", "-C", str(PROGRAM.parent), "-cf", str(tar), PROGRAM.name], check=True)
    engine.docker("import", str(tar), USERS_IMAGE)


def is_valid(record: Record) -> bool:
    return bool((record["containers"], record["failed"]) == (CONTAINERS, 0))


@pytest.fixture(scope="module")
def daemon(
    request: pytest.FixtureRequest, engine: PrivateEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NodeDaemon]:
    """One daemon on each engine, shared by all tests of that engine."""
    which = {"engine.kind": "oci"} if request.param == "oci" else {"engine.socket": str(engine.socket)}
    with NodeDaemon(tmp_path_factory.mktemp("daemon"), {**PAUSE, **which}) as daemon:
        yield daemon
    assert not ROOT.exists()
    assert engine.docker("images", "-q") == ""


ON_EACH_ENGINE = pytest.mark.parametrize("daemon", ["docker", "oci"], indirect=True, scope="module")
ON_DOCKER = pytest.mark.parametrize("daemon", ["docker"], indirect=True, scope="module")
ON_OCI = pytest.mark.parametrize("daemon", ["oci"], indirect=True, scope="module")


def just_finished(daemon: NodeDaemon) -> Record:
    """A trial that has just ended, after which most of the pause is left."""
    finished = daemon.events("trial_finished")
    if finished and time.time() - datetime.fromisoformat(finished[-1]["timestamp"]).timestamp() < FRESH_S:
        return finished[-1]
    return daemon.wait("trial_finished", daemon.mark())


def after_removal(daemon: NodeDaemon, remove: Remove) -> tuple[Record, int]:
    """Remove something between two trials; return the next trial and the mark before it."""
    assert is_valid(just_finished(daemon))
    daemon.wait_status("between two trials")
    mark = daemon.mark()
    remove(daemon)
    return daemon.wait("trial_finished", mark), mark


def restored(daemon: NodeDaemon, mark: int) -> list[str]:
    assert daemon.events("trial_failed", mark) == []
    return [str(record["what"]) for record in daemon.events("restored", mark)]


# --- images


def test_a_missing_users_image_fails_the_trial_and_is_named(engine: PrivateEngine, tmp_path: Path) -> None:
    import_users_image(engine, tmp_path)
    program = {"workload.image": USERS_IMAGE, "workload.command": ["/workload", "--deadline-ms", "300"]}
    with NodeDaemon(tmp_path, {**PAUSE, **program, "engine.socket": str(engine.socket)}) as daemon:
        assert is_valid(daemon.wait("trial_finished"))
        mark = daemon.mark()
        engine.docker("rmi", "-f", USERS_IMAGE)
        failed = daemon.wait("trial_failed", mark)
        assert failed["what"] == f"the image {USERS_IMAGE} is not on this node"
        assert failed["remedy"] == f"docker pull {USERS_IMAGE}"
        assert daemon.events("trial_finished", mark) == []
        import_users_image(engine, tmp_path)
        assert is_valid(daemon.wait("trial_finished", mark))
        assert daemon.events("restored") == []
    engine.docker("rmi", "-f", USERS_IMAGE)


# --- what a runtime needs


@ON_OCI
@pytest.mark.parametrize("part", ["", "bundles", "state", "images", "*rootfs", "*rootfs/proc", "*rootfs/workload"])
def test_files_that_runc_needs_are_made_again(daemon: NodeDaemon, part: str) -> None:
    def remove(_: NodeDaemon) -> None:
        (path,) = ROOT.glob(f"images/*/{part[1:]}") if part.startswith("*") else [ROOT / part]
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    finished, mark = after_removal(daemon, remove)
    assert is_valid(finished), finished
    (what,) = restored(daemon, mark)
    assert "localhost/kickwatch-workload:" in what


@ON_OCI
@pytest.mark.parametrize("damage", ["removed", "cut off", "not executable"])
def test_the_containers_program_is_written_again(daemon: NodeDaemon, damage: str) -> None:
    def remove(_: NodeDaemon) -> None:
        (program,) = ROOT.glob("images/*/program")
        if damage == "removed":
            program.unlink()
        elif damage == "cut off":
            os.truncate(program, 1000)
        else:
            program.chmod(0o644)

    finished, mark = after_removal(daemon, remove)
    assert is_valid(finished), finished
    assert len(restored(daemon, mark)) == 1


@ON_DOCKER
def test_a_prune_between_two_trials_costs_no_container(engine: PrivateEngine, daemon: NodeDaemon) -> None:
    def prune(_: NodeDaemon) -> None:
        assert "kickwatch-workload" in engine.docker("image", "prune", "-af")
        assert engine.docker("images", "-q") == ""

    finished, mark = after_removal(daemon, prune)
    assert is_valid(finished), finished
    (what,) = restored(daemon, mark)
    assert "localhost/kickwatch-workload:" in what
    assert is_valid(daemon.wait("trial_finished", daemon.mark()))
    assert len(restored(daemon, mark)) == 1


# --- cgroups and the canary


def rmdirs(name: str) -> None:
    """Remove the cgroup in every hierarchy; a container that has just exited leaves it a little later."""
    found = [mount / name for mount in Cgroups.read().mounts if (mount / name).is_dir()]
    assert found
    for directory in found:
        for _ in range(100):
            try:
                directory.rmdir()
            except OSError:
                time.sleep(0.01 * SLOWNESS)
            else:
                break
        assert not directory.exists()


@ON_EACH_ENGINE
def test_the_engine_makes_the_cgroup_parent_again(daemon: NodeDaemon) -> None:
    finished, mark = after_removal(daemon, lambda _: rmdirs(CGROUP_NAME))
    assert is_valid(finished), finished
    assert finished["kmem_accounting"] == "on"
    assert restored(daemon, mark) == []  # by the engine, so it is not logged


@ON_EACH_ENGINE
def test_the_canarys_cgroup_is_made_again(daemon: NodeDaemon) -> None:
    finished, mark = after_removal(daemon, lambda _: rmdirs(CANARY_GROUP))
    assert is_valid(finished), finished
    (what,) = restored(daemon, mark)
    assert f"{CANARY_GROUP} was removed" in what


@ON_EACH_ENGINE
def test_a_replaced_canary_cgroup_is_detected(daemon: NodeDaemon) -> None:
    """The child still has the removed cgroup open."""

    def replace(_: NodeDaemon) -> None:
        rmdirs(CANARY_GROUP)
        (Cgroups.read().memory_root / CANARY_GROUP).mkdir()

    finished, mark = after_removal(daemon, replace)
    assert is_valid(finished), finished
    assert len(restored(daemon, mark)) == 1


@ON_EACH_ENGINE
def test_the_canarys_child_is_started_again(daemon: NodeDaemon) -> None:
    def kill(_: NodeDaemon) -> None:
        for pid in native_children():
            os.kill(pid, signal.SIGKILL)

    finished, mark = after_removal(daemon, kill)
    assert is_valid(finished), finished
    (what,) = restored(daemon, mark)
    assert "child" in what


@ON_EACH_ENGINE
def test_the_scratch_directory_is_replaced(daemon: NodeDaemon) -> None:
    finished, mark = after_removal(daemon, lambda daemon: daemon.scratch.rmdir())
    assert is_valid(finished), finished
    (what,) = restored(daemon, mark)
    assert str(daemon.scratch) in what
    daemon.scratch.mkdir()  # the check after the daemon's exit reads it


# --- directories of the daemon


@ON_EACH_ENGINE
def test_the_state_directory_is_made_again_and_the_evidence_stays(daemon: NodeDaemon) -> None:
    state = daemon.directory / "state"
    finished, mark = after_removal(daemon, lambda _: shutil.rmtree(state))
    assert is_valid(finished), finished
    (trouble,) = daemon.events("history_trouble", mark)
    assert "was removed" in trouble["what"]
    assert (state / "history.db").is_file()
    assert (state / "spent.json").is_file()
    assert daemon.events("evidence_dropped") == []


@ON_EACH_ENGINE
def test_the_status_directory_is_made_again(daemon: NodeDaemon) -> None:
    def remove(_: NodeDaemon) -> None:
        STATUS_PATH.unlink()
        if not any(STATUS_PATH.parent.iterdir()):
            STATUS_PATH.parent.rmdir()

    finished, _ = after_removal(daemon, remove)
    assert is_valid(finished), finished
    daemon.until(STATUS_PATH.is_file, "the status")


@ON_EACH_ENGINE
def test_the_lock_is_made_and_held_again(daemon: NodeDaemon) -> None:
    finished, mark = after_removal(daemon, lambda _: LOCK_PATH.unlink())
    assert is_valid(finished), finished
    (what,) = restored(daemon, mark)
    assert str(LOCK_PATH) in what
    assert LOCK_PATH.read_text(encoding="ascii").strip() == str(daemon.pid)
    assert str(LOCK_PATH.stat().st_ino) in Path("/proc/locks").read_text(encoding="ascii")
