"""Kernel lockdown refuses programs that read kernel memory: the variant without these reads is loaded, and says so."""

import errno
import os
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from kickwatch.errors import ObserveError
from kickwatch.node.facts import privileges_now
from kickwatch.node.roots import HOST
from kickwatch.observe import bpf, refused
from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.bpf_calls import BpfCalls
from kickwatch.observe.contention import ContentionObserver
from kickwatch.observe.csd import CsdObserver
from kickwatch.observe.losses import Lost
from kickwatch.observe.map_definitions import MapDefinition
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.programs import Program
from kickwatch.observe.refused import RefusedError
from kickwatch.observe.symbols import Symbols

_CALL, _PROBE_READ = 0x85, bytes([4, 0, 0, 0])  # of an instruction that calls bpf_probe_read
SYMBOLS = Symbols.parse("1000 t smp_call_function_many_cond\n3000 t end\n4000 d slab_mutex\n")


class Lockdown(BpfCalls):
    """A kernel that refuses programs with `code`: those that read kernel memory, or every one."""

    def __init__(self, code: int = errno.EINVAL, *, every: bool = False) -> None:
        self.code, self.every = code, every
        self.loaded: list[str] = []

    def map_create(self, name: str, wanted: MapDefinition) -> int:  # noqa: ARG002
        return os.open(os.devnull, os.O_RDONLY)

    def program_load(self, program: Program, code: bytes, terms: bytes) -> tuple[int, str]:  # noqa: ARG002
        reads = any(code[at] == _CALL and code[at + 4 : at + 8] == _PROBE_READ for at in range(0, len(code), 8))
        if self.code and (self.every or reads):
            return -self.code, "unknown func bpf_probe_read#4\n" if reads else ""
        self.loaded.append("reads" if reads else "reads nothing")
        return os.open(os.devnull, os.O_RDONLY), ""


def load(
    monkeypatch: pytest.MonkeyPatch, kernel: Lockdown, name: str = "csd", level: str = "confidentiality"
) -> tuple[BpfObject, list[str]]:
    monkeypatch.setattr(bpf, "KERNEL", kernel)
    monkeypatch.setattr(refused, "read_facts", lambda: replace(privileges_now(), lockdown=level))
    return BpfObject(name), kernel.loaded


def test_where_lockdown_refuses_reads_the_variant_without_them_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    probe, loaded = load(monkeypatch, Lockdown())
    assert loaded == ["reads nothing"]
    assert isinstance(probe.unread, RefusedError)
    assert "kernel lockdown (confidentiality)" in probe.unread.cause.what
    assert "lockdown=integrity" in probe.unread.remedy


def test_where_the_level_cannot_be_read_the_verifier_shows_lockdown(monkeypatch: pytest.MonkeyPatch) -> None:
    probe, _ = load(monkeypatch, Lockdown(), level="")
    assert probe.unread is not None
    assert "most likely confidentiality" in probe.unread.cause.what


@pytest.mark.parametrize("level", ["none", "integrity"])
def test_without_confidentiality_refused_reads_are_not_blamed_on_lockdown(
    monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    """The cause was: kernel lockdown (none) forbids BPF programs to read kernel memory."""
    probe, loaded = load(monkeypatch, Lockdown(), level=level)
    assert loaded == ["reads nothing"]
    assert probe.unread is not None
    assert "lockdown" not in str(probe.unread)
    assert "unknown func bpf_probe_read" in probe.unread.cause.what


def test_elsewhere_the_whole_program_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    probe, loaded = load(monkeypatch, Lockdown(0))
    assert (loaded, probe.unread) == (["reads"], None)


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("csd", Lockdown(every=True)),  # another cause
        ("csd", Lockdown(errno.EPERM)),  # not what the verifier says
        ("calls", Lockdown()),  # lockdown forbids kprobes as well: there is no variant
    ],
)
def test_another_cause_is_not_taken_for_lockdown(name: str, kernel: Lockdown, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ObserveError, match=f"loading the probe {name} failed"):
        load(monkeypatch, kernel, name)


def test_lockdown_is_one_loss_and_no_sender_is_said_to_hold_slab_mutex(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown is not zero: the share under slab_mutex would be 0.0 on every bill."""
    probe, _ = load(monkeypatch, Lockdown())
    whole = cast("BpfObject", SimpleNamespace(unread=None))
    seen = Observatory(HOST, 2, SYMBOLS, requests=CsdObserver(whole, SYMBOLS, 2, slab_mutex=0x4000))
    assert seen.senders_known
    assert seen.losses == []
    seen.requests = CsdObserver(probe, SYMBOLS, 2, slab_mutex=0x4000)
    seen.contention = ContentionObserver(probe, SYMBOLS, 0x4000, 0)
    assert seen.slab_mutex_known
    assert not seen.senders_known
    (loss,) = seen.losses
    assert "lockdown" in loss
    assert "lost: whether a sender holds slab_mutex, who holds slab_mutex; fix: boot with lockdown=integrity" in loss
    assert [one.lost for one in seen.lost(Lost.HOLDERS)] == [Lost.HOLDERS]
