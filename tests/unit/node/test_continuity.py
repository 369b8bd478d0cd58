"""Disturbances of a trial, from the states before and after."""

import os
import socket
from pathlib import Path

from kickwatch.model import Disturbance
from kickwatch.node.continuity import Moment, engine_process, engine_program, moment
from kickwatch.node.kernel import cpu_births, cpus_online
from kickwatch.node.roots import HostRoots


def test_equal_states_have_no_disturbance() -> None:
    assert Moment(5, (1, 2)).disturbances(Moment(6, (1, 2))) == ()


def test_a_suspended_machine_and_a_new_engine_are_disturbances() -> None:
    assert Moment(0, (1, 2)).disturbances(Moment(10**9, (1, 3))) == ("suspended", "engine_restarted")


def test_a_cpu_that_left_came_or_was_away_is_a_disturbance() -> None:
    before = Moment(0, (1, 2), {0: 100, 1: 200})
    assert before.disturbances(Moment(0, (1, 2), {0: 100, 1: 200})) == ()
    for later in ({0: 100}, {0: 100, 1: 200, 2: 300}, {0: 100, 1: 999}):
        assert before.disturbances(Moment(0, (1, 2), later)) == (Disturbance.CPUS_CHANGED,)


def test_a_new_topology_directory_is_a_new_birth(tmp_path: Path) -> None:
    """The kernel removes the directory of a CPU that goes offline, and creates it when the CPU comes back."""
    cpus = tmp_path / "devices/system/cpu"
    for cpu in (0, 1):
        (cpus / f"cpu{cpu}/topology").mkdir(parents=True)
    (cpus / "online").write_text("0-2\n")
    before = moment(tmp_path / "none", HostRoots(sys=tmp_path))
    assert before.cpus == {cpu: (cpus / f"cpu{cpu}/topology").stat().st_ino for cpu in (0, 1)} | {2: 0}
    assert before.disturbances(moment(tmp_path / "none", HostRoots(sys=tmp_path))) == ()
    (cpus / "cpu1/topology").rename(cpus / "kept")  # its inode is not reused, as in sysfs
    (cpus / "cpu1/topology").mkdir()
    assert before.disturbances(moment(tmp_path / "none", HostRoots(sys=tmp_path))) == ("cpus_changed",)


def test_every_cpu_of_this_node_has_a_birth() -> None:
    births = cpu_births()
    assert len(births) == cpus_online()
    assert len(set(births.values()) - {0}) == len(births)
    assert births == cpu_births()


def test_the_listener_of_a_socket_is_identified_by_pid_and_start(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        pid, started = engine_process(path)
        assert pid == os.getpid()
        assert started > 0
        assert moment(path).engine == (pid, started)
    assert engine_process(path) == (0, 0)


def test_an_update_of_an_engine_that_is_a_program_is_a_disturbance(tmp_path: Path) -> None:
    program = tmp_path / "runc"
    program.write_bytes(b"1")
    before = moment(program)
    assert before.engine == (program.stat().st_ino, program.stat().st_mtime_ns)
    assert before.disturbances(moment(program)) == ()
    update = tmp_path / "new"
    update.write_bytes(b"2")
    update.rename(program)
    assert before.disturbances(moment(program)) == ("engine_restarted",)
    assert engine_program(tmp_path / "none") is None
    assert engine_program(tmp_path) is None
