"""Messages to systemd over a real datagram socket."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kickwatch.process import sd_notify as notify
from kickwatch.process.sd_notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@kickwatch-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(address.replace("@", "\0", 1))
        server.settimeout(0)
        yield server, address


def heard(server: socket.socket) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(server.recv(4096).decode())
        except BlockingIOError:
            return messages


def test_start_reload_and_stop_are_told_in_order(
    manager: tuple[socket.socket, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, address = manager
    monkeypatch.setattr(notify, "monotonic_ns", lambda: 7_000_999)
    told = Notifier.from_environment({"NOTIFY_SOCKET": address})
    told.ready()
    told.status("waits\nfor 5 s")
    told.status("waits\nfor 5 s")
    told.reloading()
    told.ready()
    told.stopping()
    told.close()
    told.ready()
    assert heard(server) == [
        "READY=1",
        "STATUS=waits for 5 s",
        "RELOADING=1\nMONOTONIC_USEC=7000",
        "READY=1",
        "STOPPING=1",
        "EXTEND_TIMEOUT_USEC=20000000",
    ]


def test_progress_feeds_the_watchdog_at_most_once_a_second(
    manager: tuple[socket.socket, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, address = manager
    moments = iter((100.0, 100.5, 100.9, 101.0, 101.5, 102.0, 102.9, 103.0))
    monkeypatch.setattr(notify, "monotonic", lambda: next(moments))
    told = Notifier.from_environment({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000"})
    for _ in range(6):
        told.progress()
    assert heard(server) == ["WATCHDOG=1"] * 3
    told.stopping()
    assert heard(server) == ["STOPPING=1"]
    told.progress()
    assert heard(server) == ["WATCHDOG=1\nEXTEND_TIMEOUT_USEC=20000000"]
    told.close()


def test_a_longer_watchdog_is_asked_for_only_where_a_step_needs_it(manager: tuple[socket.socket, str]) -> None:
    server, address = manager
    told = Notifier.from_environment({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000"})
    told.need_watchdog(20)
    assert heard(server) == []
    told.need_watchdog(90)
    told.need_watchdog(90)
    assert heard(server) == ["WATCHDOG_USEC=90000000"]
    told.close()
    unwatched = Notifier.from_environment({"NOTIFY_SOCKET": address})
    unwatched.need_watchdog(90)
    unwatched.progress()
    assert heard(server) == []
    unwatched.close()


@pytest.mark.parametrize(
    "environment", [{}, {"WATCHDOG_USEC": "1000000"}, {"NOTIFY_SOCKET": "/nowhere/at/all", "WATCHDOG_USEC": "junk"}]
)
def test_without_a_manager_nothing_happens(environment: dict[str, str]) -> None:
    told = Notifier.from_environment(environment)
    told.ready()
    told.progress()
    told.stopping()
    told.close()


def test_a_watchdog_meant_for_another_process_is_not_ours() -> None:
    told = Notifier.from_environment({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"})
    assert told.watchdog_s is None
