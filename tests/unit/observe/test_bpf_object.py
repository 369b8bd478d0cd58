"""What the kernel refuses is named: the map, the program and the verifier's last words; nothing stays open."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kickwatch.errors import ObserveError
from kickwatch.observe import bpf
from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.bpf_calls import BpfCalls
from kickwatch.observe.map_definitions import MapDefinition
from kickwatch.observe.programs import Program
from kickwatch.observe.refused import RefusedError

ADDRESS = 0xFFFFFFFF81000000


class Kernel(BpfCalls):
    """Hands out descriptors of /dev/null. Each argument is the answer of a command instead, -errno."""

    def __init__(self, *, create: int = 0, load: int = 0, log: str = "", raw: int = 0) -> None:
        self.answers = {"create": create, "load": load, "raw": raw}
        self.log = log
        self.opened: list[int] = []
        self.maps: dict[str, MapDefinition] = {}
        self.kprobes: list[tuple[str | None, int, bool]] = []
        self.refused_names: dict[str | None, int] = {}

    def _answer(self, command: str) -> int:
        if self.answers.get(command):
            return self.answers[command]
        self.opened.append(os.open(os.devnull, os.O_RDONLY))
        return self.opened[-1]

    def map_create(self, name: str, wanted: MapDefinition) -> int:
        self.maps[name] = wanted
        return self._answer("create")

    def program_load(self, program: Program, code: bytes, terms: bytes) -> tuple[int, str]:
        assert (len(code), terms) == (len(program.code), b"GPL")
        return self._answer("load"), self.log

    def raw_tracepoint_open(self, *_: Any) -> int:
        return self._answer("raw")

    def kprobe_open(self, function: str | None, address: int, _program: int, *, at_return: bool) -> int:
        self.kprobes.append((function, address, at_return))
        return -self.refused_names[function] if function in self.refused_names else self._answer("kprobe")

    def all_closed(self) -> bool:
        return not any(Path(f"/proc/self/fd/{fd}").exists() for fd in self.opened)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Kernel]:
    def made(**answers: Any) -> Kernel:
        fake = Kernel(**answers)
        monkeypatch.setattr(bpf, "KERNEL", fake)
        return fake

    return made


def test_closing_frees_maps_programs_and_links(kernel: Callable[..., Kernel]) -> None:
    fake = kernel()
    probe = BpfObject("csd")
    probe.attach_raw_tracepoint("csd_queue_cpu", "csd_queue_cpu")
    assert len(fake.opened) == len(fake.maps) + 2
    probe.close()
    assert fake.all_closed()
    with pytest.raises(ObserveError, match="is closed"):
        probe.attach_raw_tracepoint("csd_queue_cpu", "csd_queue_cpu")


def test_sizes_are_set_before_maps_are_created(kernel: Callable[..., Kernel]) -> None:
    fake = kernel()
    BpfObject("calls", max_entries={"cells": 5}, key_bytes={"masks": 24}).close()
    assert (fake.maps["cells"].entries, fake.maps["masks"].key_bytes) == (5, 24)
    with pytest.raises(ObserveError, match="has no map none"):
        BpfObject("calls", max_entries={"none": 5})


def test_a_shared_map_is_not_created_and_stays_open(kernel: Callable[..., Kernel]) -> None:
    fake = kernel()
    first = BpfObject("csd")
    fake.maps.clear()
    second = BpfObject("trace", shared={"stacks": first.map("stacks")})
    assert "stacks" not in fake.maps
    assert second.map("stacks") is first.map("stacks")
    second.close()
    os.fstat(first.map("stacks").fd)
    first.close()
    assert fake.all_closed()


def test_a_refused_program_is_named_with_the_verifiers_last_words(kernel: Callable[..., Kernel]) -> None:
    log = "0: (bf) r6 = r1\nunknown func bpf_probe_read#4\nprocessed 7 insns (limit 1000000) max_states_per_insn 0\n"
    fake = kernel(load=-errno.EINVAL, log=log)
    with pytest.raises(RefusedError, match=r"loading the probe csd failed \(EINVAL") as raised:
        BpfObject("csd")
    assert raised.value.refusal.log == "csd_queue_cpu: unknown func bpf_probe_read#4"
    assert fake.all_closed()


def test_a_refused_map_is_named(kernel: Callable[..., Kernel]) -> None:
    kernel(create=-errno.EPERM)
    with pytest.raises(RefusedError, match="loading the probe csd failed") as raised:
        BpfObject("csd")
    assert raised.value.refusal.log.startswith("map ")


def test_a_missing_tracepoint_is_named(kernel: Callable[..., Kernel]) -> None:
    kernel(raw=-errno.ENOENT)
    with pytest.raises(ObserveError, match=r"tracepoint csd_queue_cpu failed \(ENOENT"):
        BpfObject("csd").attach_raw_tracepoint("csd_queue_cpu", "csd_queue_cpu")


def test_a_dotted_name_that_the_kernel_refuses_is_attached_by_its_address(kernel: Callable[..., Kernel]) -> None:
    fake = kernel()
    fake.refused_names["__mutex_lock.constprop.0"] = errno.EINVAL
    probe = BpfObject("mutex")
    probe.attach_kprobe("mutex_begin", "__mutex_lock.constprop.0", [ADDRESS])
    probe.attach_kprobe("mutex_end", "plain", [ADDRESS], at_return=True)
    assert fake.kprobes == [("__mutex_lock.constprop.0", 0, False), (None, ADDRESS, False), ("plain", 0, True)]
    with pytest.raises(ObserveError, match=r"a kprobe to __mutex_lock\.constprop\.0 failed \(EINVAL"):
        probe.attach_kprobe("mutex_begin", "__mutex_lock.constprop.0")
    probe.close()
    assert fake.all_closed()


def test_a_kernel_without_kprobes_for_bpf_is_named(kernel: Callable[..., Kernel], monkeypatch: Any) -> None:
    fake = kernel()
    monkeypatch.setattr(fake, "kprobe_open", lambda *_, **__: Path("/nowhere/type").read_text("ascii"))
    with pytest.raises(ObserveError, match="a kprobe to plain failed"):
        BpfObject("mutex").attach_kprobe("mutex_begin", "plain")
