"""Memory limits of old kernels, and machines without numbers for the system calls."""

import ctypes
import errno
import os
import resource
from types import SimpleNamespace

import pytest

from kickwatch.errors import ObserveError
from kickwatch.node import kernel
from kickwatch.observe import bpf_calls
from kickwatch.observe.bpf_calls import KERNEL
from kickwatch.observe.map_definitions import MapDefinition

LIMITS = (65536, 65536)
UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


class Limits:
    """A kernel before 5.11, which refuses a map while the limit of locked memory is low."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, may_raise: bool = True) -> None:
        self.now, self.seen, self.may_raise = LIMITS, list[tuple[int, int]](), may_raise
        monkeypatch.setattr(resource, "getrlimit", lambda _: self.now)
        monkeypatch.setattr(resource, "setrlimit", self.set)
        monkeypatch.setattr(bpf_calls, "bpf", self.bpf)

    def set(self, _: int, limits: tuple[int, int]) -> None:
        if not self.may_raise:
            raise ValueError("not allowed to raise maximum limit")
        self.now = limits

    def bpf(self, _command: int, _attr: bytes) -> int:
        self.seen.append(self.now)
        return 7 if self.now == UNLIMITED else -errno.EPERM


def test_the_limit_of_locked_memory_is_lifted_for_the_call_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers would inherit it."""
    limits = Limits(monkeypatch)
    assert KERNEL.map_create("some", MapDefinition(2, 4, 8, 1)) == 7
    assert limits.seen == [LIMITS, UNLIMITED]
    assert limits.now == LIMITS


def test_without_the_right_to_lift_it_the_refusal_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(monkeypatch, may_raise=False)
    assert KERNEL.map_create("some", MapDefinition(2, 4, 8, 1)) == -errno.EPERM
    assert limits.seen == [LIMITS]


@pytest.mark.parametrize(
    ("bpf", "perf", "answered"),
    [
        (errno.E2BIG, errno.EINVAL, (True, True)),  # the kernel
        (errno.EPERM, errno.EPERM, (False, False)),  # a filter
        (errno.E2BIG, errno.EPERM, (True, False)),
    ],
)
def test_a_call_that_a_filter_refuses_is_not_answered_by_the_kernel(
    bpf: int, perf: int, answered: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = bpf_calls._NUMBERS["x86_64"]
    codes = dict(zip(numbers, (bpf, perf), strict=True))

    def refuse(number: ctypes.c_long, *_: object) -> int:
        ctypes.set_errno(codes[number.value])
        return -1

    monkeypatch.setattr(bpf_calls, "architecture", lambda: "x86_64")
    monkeypatch.setattr(bpf_calls, "_syscall", refuse)
    assert (KERNEL.bpf_answers(), KERNEL.perf_event_open_answers()) == answered


def test_an_unknown_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpf_calls, "architecture", lambda: "riscv64")
    with pytest.raises(ObserveError, match="no BPF programs for riscv64"):
        KERNEL.enable_stats()


@pytest.mark.parametrize(
    ("release", "version", "signature", "code"),
    [
        ("4.19.0-27-amd64", "#1 SMP Debian 4.19.316-1 (2024-06-25)", "", (4, 19, 255)),
        ("5.10.0-46-amd64", "#1 SMP Debian 5.10.262-1 (2026-10-01)", "", (5, 10, 255)),
        ("6.1.0-56-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-01)", "", (6, 1, 192)),
        ("4.15.0-20-generic", "#21-Ubuntu SMP Tue Apr 24", "Ubuntu 4.15.0-20.21-generic 4.15.17", (4, 15, 17)),
        ("4.18.0-553.el8_10.x86_64", "#1 SMP Fri May 24", "", (4, 18, 0)),
        ("6.18.3", "#1 SMP", "", (6, 18, 3)),
        ("7.2-rc1", "#1 SMP", "", (7, 2, 0)),
    ],
)
def test_the_version_is_the_kernels_not_the_packages(
    monkeypatch: pytest.MonkeyPatch, release: str, version: str, signature: str, code: tuple[int, int, int]
) -> None:
    """Before 5.0 a kprobe program has to name it."""
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release, version=version))
    monkeypatch.setattr(kernel, "_read", lambda _: signature)
    major, minor, patch = code
    assert kernel.version_code() == major << 16 | minor << 8 | patch
