"""Kernel lockdown refuses programs that read kernel memory: the variant without these reads is loaded, and says so."""

import ctypes
import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kickwatch.errors import ObserveError
from kickwatch.node.roots import HOST
from kickwatch.observe import bpf
from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.contention import ContentionObserver
from kickwatch.observe.csd import CsdObserver
from kickwatch.observe.losses import Lost
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.refused import RefusedError
from kickwatch.observe.symbols import Symbols

SYMBOLS = Symbols.parse("1000 t smp_call_function_many_cond\n3000 t end\n4000 d slab_mutex\n")


class Lockdown:
    """A libbpf whose kernel refuses the objects of `refuses`, by the names of their files."""

    def __init__(self, refuses: dict[str, int]) -> None:
        self.refuses = refuses
        self.loaded: list[str] = []
        self._opened: list[str] = [""]
        self.lib: Any = SimpleNamespace(
            bpf_object__open_file=self._open,
            bpf_object__load=self._load,
            bpf_object__close=lambda _: None,
        )

    def _open(self, path: bytes, _: None) -> int:
        self._opened.append(Path(path.decode()).name)
        return len(self._opened) - 1

    def _load(self, pointer: int) -> int:
        name = self._opened[pointer]
        if name in self.refuses:
            ctypes.set_errno(self.refuses[name])
            return -1
        self.loaded.append(name)
        return 0

    def take_warnings(self) -> str:
        return ""


def load(monkeypatch: pytest.MonkeyPatch, refuses: dict[str, int], name: str = "csd") -> tuple[BpfObject, list[str]]:
    library = Lockdown(refuses)
    monkeypatch.setattr(bpf, "library", lambda: library)
    return BpfObject(name), library.loaded


def test_where_lockdown_refuses_reads_the_variant_without_them_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    probe, loaded = load(monkeypatch, {"csd.bpf.o": errno.EINVAL})
    assert loaded == ["csd_noread.bpf.o"]
    assert isinstance(probe.unread, RefusedError)
    assert "lockdown" in probe.unread.cause.what
    assert "lockdown=integrity" in probe.unread.remedy


def test_elsewhere_the_whole_program_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    probe, loaded = load(monkeypatch, {})
    assert (loaded, probe.unread) == (["csd.bpf.o"], None)


@pytest.mark.parametrize(
    ("name", "refuses"),
    [
        ("csd", {"csd.bpf.o": errno.EINVAL, "csd_noread.bpf.o": errno.EINVAL}),  # another cause
        ("csd", {"csd.bpf.o": errno.EPERM}),  # not what the verifier says
        ("calls", {"calls.bpf.o": errno.EINVAL}),  # lockdown forbids kprobes as well: there is no variant
    ],
)
def test_another_cause_is_not_taken_for_lockdown(
    name: str, refuses: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ObserveError, match=f"loading the probe {name} failed"):
        load(monkeypatch, refuses, name)


def test_lockdown_is_one_loss_and_no_sender_is_said_to_hold_slab_mutex(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown is not zero: the share under slab_mutex would be 0.0 on every bill."""
    probe, _ = load(monkeypatch, {"csd.bpf.o": errno.EINVAL})
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
