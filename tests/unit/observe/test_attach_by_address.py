"""A kprobe by address, where the kernel refuses the function's name: 4.18 to 5.1 refuse one with a dot."""

import errno
import os
import struct
from collections.abc import Iterator

import pytest

from fake_bpf import FakeBpf
from kickwatch.errors import ObserveError
from kickwatch.observe.kprobe import KprobeObserver
from kickwatch.observe.layouts import CALLS_CONFIG
from kickwatch.observe.mutex import MutexObserver
from kickwatch.observe.symbols import Symbols

DOTTED = "smp_call_function_many_cond.constprop.0"
SYMBOLS = Symbols.parse(f"""\
1000 T smp_call_function_single
1800 T smp_call_function_single_async
2000 t {DOTTED}
3000 T __smp_call_single_queue
4000 t __mutex_lock.constprop.0
5000 t end
""")

OPENED: list[int] = []


class OldKernel(FakeBpf):
    """Refuses names with a dot, and with `strict` also addresses."""

    def __init__(self, *, strict: bool = False) -> None:
        super().__init__()
        self.strict = strict
        self.by_name: list[str] = []
        self.by_address: list[tuple[int, bool]] = []
        self.maps["config"] = {struct.pack("=I", 0): bytes(CALLS_CONFIG.size)}

    def kprobe_open(self, function: str | None, address: int, _program: int, *, at_return: bool) -> int:
        if function is None:
            if self.strict:
                return -errno.EILSEQ
            self.by_address.append((address, at_return))
        elif "." in function:
            return -errno.EINVAL
        else:
            self.by_name.append(function)
        OPENED.append(os.open(os.devnull, os.O_RDONLY))
        return OPENED[-1]


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while OPENED:
        os.close(OPENED.pop())


def kprobes(kernel: OldKernel) -> KprobeObserver:
    return KprobeObserver(kernel.probe("calls"), SYMBOLS, 2, online=[0, 1], possible=[0, 1])


def test_a_dotted_function_of_the_ipi_rung_is_probed_by_its_address() -> None:
    kernel = OldKernel()
    kprobes(kernel).attach()
    assert kernel.by_address == [(0x2000, False)]
    assert set(kernel.by_name) == {
        "smp_call_function_single",
        "smp_call_function_single_async",
        "__smp_call_single_queue",
    }


def test_a_dotted_mutex_lock_is_probed_by_its_address_at_both_ends() -> None:
    kernel = OldKernel()
    MutexObserver(kernel.probe("mutex"), SYMBOLS, 0, 0)._attach()
    assert kernel.by_address == [(0x4000, True), (0x4000, False)]


TWICE = Symbols.parse("""\
1000 T smp_call_function_single
1800 T smp_call_function_single_async
2000 t smp_call_function_many_cond
2800 t smp_call_function_many_cond
3000 T __smp_call_single_queue
4000 t __mutex_lock
4800 t __mutex_lock
5000 t end
6000 t smp_call_function_many_cond\t[patch]
""")


def test_several_functions_of_one_name_are_all_probed_and_none_of_a_module() -> None:
    """A name stands for the first of them, and the calls of the others were not counted."""
    kernel = OldKernel()
    KprobeObserver(kernel.probe("calls"), TWICE, 2, online=[0, 1], possible=[0, 1]).attach()
    assert kernel.by_address == [(0x2000, False), (0x2800, False)]
    assert "smp_call_function_many_cond" not in kernel.by_name
    kernel = OldKernel()
    MutexObserver(kernel.probe("mutex"), TWICE, 0, 0)._attach()
    assert kernel.by_address == [(0x4000, True), (0x4800, True), (0x4000, False), (0x4800, False)]


def test_one_of_several_functions_that_cannot_be_probed_is_an_error() -> None:
    """Some calls would be missing from the figures."""
    kernel = OldKernel(strict=True)
    with pytest.raises(ObserveError, match=r"kprobe to __mutex_lock failed \(EILSEQ"):
        MutexObserver(kernel.probe("mutex"), TWICE, 0, 0)._attach()


def test_the_error_of_the_name_is_reported_if_the_address_is_refused_as_well() -> None:
    with pytest.raises(ObserveError, match=r"kprobe to smp_call.*EINVAL") as raised:
        kprobes(OldKernel(strict=True)).attach()
    assert "EILSEQ" not in str(raised.value)


def test_without_an_address_only_the_name_is_tried() -> None:
    kernel = OldKernel()
    probe = kernel.probe("calls")
    with pytest.raises(ObserveError, match="EINVAL"):
        probe.attach_kprobe("calls_many", DOTTED)
    assert kernel.by_address == []
