"""What all tests share: needs that cannot be skipped where KICKWATCH_REQUIRE names them, and no blocking in the loop.

A test marked `kernel`, `docker`, `systemd` or `prometheus` skips with the reason where the need is not met. Where
KICKWATCH_REQUIRE=kernel,docker,systemd,prometheus names the need, it fails instead, and so does any other skip of such
a test; excepted is a skip whose reason begins with `feature:`, for what this kernel or engine lacks and no one can
bring.
"""

import ctypes
import errno
import functools
import os
import platform
import shutil
import socket
from collections.abc import Callable, Generator

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import settings

ENGINE_SOCKET = os.environ.get("ENGINE_SOCKET", "/var/run/docker.sock")
FEATURE = "feature:"

# A deadline would measure what else runs on the machine; each test has a timeout.
settings.register_profile("kickwatch", deadline=None)
settings.load_profile("kickwatch")

_SYS_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
_BPF_PROG_LOAD, _BPF_RAW_TRACEPOINT_OPEN = 5, 17
_BPF_PROG_TYPE_RAW_TRACEPOINT = 17
_RETURN_0 = bytes.fromhex("b700000000000000 9500000000000000")  # r0 = 0; exit


class _ProgLoad(ctypes.Structure):
    _fields_ = (
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_char_p),
        ("license", ctypes.c_char_p),
        ("rest", ctypes.c_uint8 * 96),
    )


class _RawTracepointOpen(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("prog_fd", ctypes.c_uint32), ("rest", ctypes.c_uint8 * 108))


def _bpf(command: int, attributes: ctypes.Structure) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    size = ctypes.c_uint(ctypes.sizeof(attributes))
    fd = int(libc.syscall(_SYS_BPF[platform.machine()], command, ctypes.byref(attributes), size))
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd


def _unmet_kernel() -> str:
    """Asked by trying, as the daemon does: tracefs need not be mounted, and a version would prove nothing."""
    if os.geteuid() != 0:
        return "not root"
    if platform.machine() not in _SYS_BPF:
        return f"the number of bpf(2) on {platform.machine()} is not known here"
    try:
        program = _bpf(_BPF_PROG_LOAD, _ProgLoad(_BPF_PROG_TYPE_RAW_TRACEPOINT, 2, _RETURN_0, b"GPL"))
    except OSError as error:
        return f"no BPF program may be loaded ({error.strerror})"
    try:
        os.close(_bpf(_BPF_RAW_TRACEPOINT_OPEN, _RawTracepointOpen(b"csd_queue_cpu", program)))
    except OSError as error:
        missing = error.errno == errno.ENOENT
        return "no csd:csd_queue_cpu (6.5 and later)" if missing else f"no raw tracepoint ({error.strerror})"
    finally:
        os.close(program)
    return ""


def _unmet_docker() -> str:
    if os.geteuid() != 0:
        return "not root"
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(ENGINE_SOCKET)
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")
            status = connection.recv(64)
    except OSError as error:
        return f"no engine at {ENGINE_SOCKET} ({error.strerror or 'no answer'})"
    return "" if b" 200 " in status else f"{ENGINE_SOCKET} does not answer as an engine"


def _unmet_systemd() -> str:
    """Such tests boot a systemd, with an engine of its own, in a container that runc starts."""
    if os.geteuid() != 0:
        return "not root"
    remedies = {"runc": "deploy/setup engine", "mmdebstrap": "deploy/setup test-packages"}
    missing = [f"no {program}: {remedy}" for program, remedy in remedies.items() if shutil.which(program) is None]
    return "; ".join(missing)


def _unmet_prometheus() -> str:
    """A server of their own, and its tool; both come with Debian's package prometheus."""
    missing = [program for program in ("prometheus", "promtool") if shutil.which(program) is None]
    return f"no {' and no '.join(missing)} on PATH: deploy/setup test-packages" if missing else ""


NEEDS: dict[str, Callable[[], str]] = {
    "kernel": _unmet_kernel,
    "docker": _unmet_docker,
    "systemd": _unmet_systemd,
    "prometheus": _unmet_prometheus,
}


@functools.cache
def unmet(need: str) -> str:
    """Why `need` is not met on this machine; empty where it is."""
    return NEEDS[need]()


def required() -> frozenset[str]:
    """The needs that KICKWATCH_REQUIRE names."""
    return frozenset(filter(None, (word.strip() for word in os.environ.get("KICKWATCH_REQUIRE", "").split(","))))


def pytest_configure(config: pytest.Config) -> None:
    """Register `systemd`; refuse a need that is misspelt, since it would require nothing."""
    config.addinivalue_line("markers", "systemd: boots a systemd in a container: needs root, runc and mmdebstrap")
    if unknown := required() - NEEDS.keys():
        raise pytest.UsageError(f"KICKWATCH_REQUIRE names {', '.join(sorted(unknown))}; known are {', '.join(NEEDS)}")


def needs_of(item: pytest.Item) -> list[str]:
    """The needs that a test is marked with."""
    return [need for need in NEEDS if item.get_closest_marker(need)]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose need is not met; `pytest_runtest_makereport` decides whether it may."""
    for need in needs_of(item):
        if reason := unmet(need):
            pytest.skip(f"{need}: {reason}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure where the test's need is required."""
    report = yield
    must = required().intersection(needs_of(item))
    if report.skipped and must and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not reason.removeprefix("Skipped: ").startswith(FEATURE):
            report.outcome = "failed"
            report.longrepr = f"KICKWATCH_REQUIRE names {', '.join(sorted(must))}, so this may not skip: {reason}"
    return report


@pytest.fixture(scope="session", autouse=True)
def no_blocking_in_the_loop() -> Generator[None]:
    """A blocking call of kickwatch inside a running event loop raises BlockingError. Tests themselves may block."""
    with blockbuster_ctx(["kickwatch"]):
        yield
