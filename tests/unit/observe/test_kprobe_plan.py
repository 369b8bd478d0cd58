"""Which functions the kprobes are attached to on older and newer kernels, and their configuration: no kernel needed."""

import struct
from typing import TYPE_CHECKING, cast

import pytest

from fake_probe import FakeProbe
from kickwatch.errors import ObserveError
from kickwatch.model import Origin, Path
from kickwatch.observe.kprobe import KprobeObserver, entries_of, plan_of
from kickwatch.observe.layouts import CALLS_CONFIG, CELLS_CONFIG
from kickwatch.observe.request_cells import RequestSample, Totals
from kickwatch.observe.symbols import Symbols

if TYPE_CHECKING:
    from kickwatch.observe.bpf import BpfObject


def symbols(*names: str) -> Symbols:
    return Symbols.parse("".join(f"{0x1000 * n:x} t {name}\n" for n, name in enumerate(names, 1)))


SINGLES = ("smp_call_function_single", "smp_call_function_single_async")
X86_6_1 = symbols(
    *SINGLES,
    "smp_call_function_many_cond",
    "smp_call_function_many",
    "on_each_cpu_cond_mask",
    "__smp_call_single_queue",
    "generic_exec_single",
    "native_send_call_func_ipi",
    "send_call_function_single_ipi",
)
X86_4_19 = symbols(*SINGLES, "smp_call_function_many", "generic_exec_single", "on_each_cpu", "on_each_cpu_cond_mask")
X86_5_10 = symbols(*SINGLES, "smp_call_function_many_cond", "on_each_cpu", "__smp_call_single_queue")


def test_on_6_1_each_kind_of_request_has_one_function() -> None:
    plan = plan_of(X86_6_1)
    assert set(plan.probes) == {
        ("calls_many", "smp_call_function_many_cond"),
        ("calls_single", "smp_call_function_single"),
        ("calls_async", "smp_call_function_single_async"),
        ("calls_queued", "__smp_call_single_queue"),
        ("calls_sent_many", "native_send_call_func_ipi"),
        ("calls_sent_one", "send_call_function_single_ipi"),
    }
    assert (plan.has_cond, plan.has_inner, plan.has_sent, plan.has_node) == (True, False, True, True)


def test_on_6_4_and_later_the_function_for_one_chosen_cpu_has_its_new_name() -> None:
    later = symbols(
        *SINGLES,
        "smp_call_function_many_cond",
        "__smp_call_single_queue",
        "native_send_call_func_ipi",
        "call_function_single_prep_ipi",
    )
    assert ("calls_sent_one", "call_function_single_prep_ipi") in plan_of(later).probes


def test_on_4_19_the_older_function_with_its_inner_call() -> None:
    plan = plan_of(X86_4_19)
    assert [program for program, _ in plan.probes] == ["calls_single", "calls_async", "calls_many"]
    assert plan.probes[-1] == ("calls_many", "smp_call_function_many")
    assert (plan.has_cond, plan.has_inner, plan.has_sent, plan.has_node) == (False, True, False, False)
    assert plan.flags == 2


def test_on_5_10_a_call_with_one_target_calls_the_function_for_single_requests() -> None:
    plan = plan_of(X86_5_10)
    assert (plan.has_cond, plan.has_inner, plan.has_sent, plan.has_node) == (True, True, False, True)


def test_chosen_cpus_are_observed_at_both_functions_or_not_at_all() -> None:
    half = symbols(*SINGLES, "smp_call_function_many_cond", "__smp_call_single_queue", "native_send_call_func_ipi")
    plan = plan_of(half)
    assert not plan.has_sent
    assert "calls_sent_many" not in dict(plan.probes)


def test_an_inlined_function_is_an_error_even_with_its_wrapper() -> None:
    with pytest.raises(ObserveError, match="smp_call_function_many_cond") as raised:
        plan_of(symbols(*SINGLES, "smp_call_function_many", "__smp_call_single_queue"))
    assert raised.value.remedy.startswith("another build of this kernel")  # the tracepoint needs the function, too


@pytest.mark.parametrize("missing", SINGLES)
def test_a_missing_function_for_single_requests_is_an_error(missing: str) -> None:
    kept = [name for name in SINGLES if name != missing]
    with pytest.raises(ObserveError, match=missing) as raised:
        plan_of(symbols("smp_call_function_many_cond", *kept))
    assert "the tracepoint csd:csd_queue_cpu (Linux 6.5)" in raised.value.remedy


@pytest.mark.parametrize(
    ("listed", "entered"),
    [
        (["fn"], ["fn"]),
        (["fn.isra.0"], ["fn.isra.0"]),
        (["fn.constprop.0", "fn.constprop.1", "fn.constprop.0.cold"], ["fn.constprop.0", "fn.constprop.1"]),
        (["fn", "fn.constprop.3"], ["fn", "fn.constprop.3"]),
        (["fn", "fn.part.0", "fn.cold"], ["fn"]),
        (["fn.constprop.0", "fn.part.0"], ["fn.constprop.0"]),
        (["fn.part.0", "fn.part.0.cold"], ["fn.part.0"]),
        (["fn.isra.0.part.0"], ["fn.isra.0.part.0"]),
        (["fn.llvm.1234567"], ["fn.llvm.1234567"]),
        (["fn_other", "__fn"], []),
    ],
)
def test_a_function_is_entered_as_itself_or_as_a_clone(listed: list[str], entered: list[str]) -> None:
    """A part is entered from the function itself: with probes on both, a call would count twice."""
    assert list(entries_of(symbols(*listed), "fn")) == entered


def test_a_name_in_the_kernel_and_in_a_module_is_probed_once() -> None:
    both = Symbols.parse("1000 t fn\n2000 t end\n3000 t fn\t[module]\n")
    assert entries_of(both, "fn") == ("fn",)


KALLSYMS = """\
1000 t smp_call_function_many_cond
2000 T smp_call_function_single
2800 T smp_call_function_single_async
3000 t flush_tlb_func
4000 t sched_ttwu_pending
5000 t do_sync_core
6000 t mem_cgroup_write
7000 t on_each_cpu_cond_mask
8000 T __smp_call_single_queue
9000 t end
"""


def observer(online: list[int]) -> tuple[KprobeObserver, FakeProbe]:
    probe = FakeProbe()
    made = KprobeObserver(
        cast("BpfObject", probe), Symbols.parse(KALLSYMS), len(online), online=online, possible=list(range(72))
    )
    return made, probe


def test_the_configuration_has_the_form_that_the_probe_reads() -> None:
    observed, probe = observer([0, 1, 2, 65])
    observed.set_slab_mutex(0xFFFF)
    value = probe.map("config").get(struct.pack("=I", 0))
    assert value is not None
    frequent = (0x3000, 0, 0x4000, 0, 0, 0)
    head = (*frequent, 0, 0, 0, 3, 0xFFFF, 0xFFFF, 72 - 64, 0)  # the owner is a mutex's first word
    assert struct.unpack_from("=6QIIIIQQII", value) == head
    assert struct.unpack_from("=II16Q", value, CELLS_CONFIG.size) == (2, 1 | 8, 0b111, 0b10, *[0] * 14)
    assert len(value) == CALLS_CONFIG.size


def test_the_probe_gets_a_new_mask_if_other_cpus_are_online() -> None:
    observed, probe = observer([0, 1])
    observed.follow_cpus([0, 3], ())
    value = probe.map("config").get(struct.pack("=I", 0))
    assert value is not None
    assert struct.unpack_from("=Q", value, CALLS_CONFIG.offset_of("online")) == (0b1001,)


def test_totals_become_the_same_cells_as_on_the_first_rung() -> None:
    observed, probe = observer([0, 1, 2, 3])
    frames = struct.pack("=48Q", 0x1001, 0x7010, 0x6010, *[0] * 45)
    probe.map("stacks").put(struct.pack("=I", 7), frames)
    totals = {
        struct.pack("=QiI8x", 0x5000, 7, 1): Totals(6, 2, 2),
        struct.pack("=QiI8x", 0x5000, 7, 1 | 2): Totals(3, 1, 1),
        struct.pack("=QiI8x", 0x3000, 0, 0): Totals(5, 4, 1),
        struct.pack("=QiI8x", 0x4000, 0, 0): Totals(9, 0, 0),
    }
    cells = {cell.func: cell for cell in observed.cells(RequestSample({}), RequestSample(totals))}
    sync = cells["do_sync_core"]
    assert (sync.requests, sync.calls, sync.broadcasts, sync.under_slab_mutex) == (9, 3, 3, 3)
    assert (sync.origin, sync.path) == (Origin.MEMCG, Path.CREATE)
    assert sync.stack == ("smp_call_function_many_cond", "on_each_cpu_cond_mask", "mem_cgroup_write")
    assert (cells["flush_tlb_func"].calls, cells["flush_tlb_func"].broadcasts) == (4, 0)
    assert cells["sched_ttwu_pending"].requests == 9
    assert observed.creation_broadcasts(RequestSample(totals)) == 3


def test_the_text_tells_if_chosen_cpus_cannot_be_observed() -> None:
    assert "no broadcasts" in observer([0, 1])[0].places
    assert "no broadcasts" not in plan_words(X86_6_1)


def plan_words(found: Symbols) -> str:
    return KprobeObserver(cast("BpfObject", FakeProbe()), found, 2, online=[0, 1], possible=[0, 1]).places


def test_under_xen_both_sending_functions_are_probed() -> None:
    """smp_ops decides at boot which of them is called; both are in kallsyms."""
    xen = symbols(
        *SINGLES,
        "smp_call_function_many_cond",
        "__smp_call_single_queue",
        "native_send_call_func_ipi",
        "xen_smp_send_call_function_ipi",
        "send_call_function_single_ipi",
    )
    sent = {function for program, function in plan_of(xen).probes if program == "calls_sent_many"}
    assert sent == {"native_send_call_func_ipi", "xen_smp_send_call_function_ipi"}
