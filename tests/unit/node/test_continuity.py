"""What disturbs a trial, told from two moments."""

import os
import socket
from pathlib import Path

from kickwatch.node.continuity import Moment, engine_process, engine_program, moment


def test_nothing_happened() -> None:
    assert Moment(5, (1, 2)).disturbances(Moment(6, (1, 2))) == ()


def test_a_suspended_machine_and_a_new_engine_are_named() -> None:
    assert Moment(0, (1, 2)).disturbances(Moment(10**9, (1, 3))) == ("suspended", "engine_restarted")


def test_the_listener_of_a_socket_is_known_by_pid_and_start(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        pid, started = engine_process(path)
        assert pid == os.getpid()
        assert started > 0
        assert moment(path).engine == (pid, started)
    assert engine_process(path) == (0, 0)


def test_an_engine_that_is_a_program_is_another_once_it_was_updated(tmp_path: Path) -> None:
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
