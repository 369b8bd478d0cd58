"""Reads a kernel stack: plain function names, where an interrupt began, and what the innermost frames are.

A stack is a sequence of frames, innermost first, as kallsyms, bpftrace or an oops name them: `name`, `name+176`,
`name+0x1f/0x260 [module]`, `name.constprop.0`. Only the plain name is compared.
"""

import re
from collections.abc import Sequence
from fnmatch import translate
from functools import lru_cache
from itertools import dropwhile

Matcher = re.Pattern[str]


def matcher(globs: str) -> Matcher:
    """A pattern whose `match` accepts a plain name that fits one of the globs, which are separated by blanks."""
    return re.compile("|".join(map(translate, globs.split())))


# Where an interrupt or a softirq begins. An exception is not one of them: a page fault inside mkdir() is part of
# mkdir(). In this order: x86 since "x86/entry: Provide IDTENTRY_SYSVEC" (5.8); x86 before; Xen; NMI; arm64, newer and
# older names; other architectures; the generic layer, which all of them pass through; softirqs; the handling of
# received requests, which an idle CPU also does without an interrupt.
_ENTRIES = matcher(
    """
    asm_sysvec_* sysvec_* __sysvec_* instr_sysvec_* fred_sysvec_* fred_extint asm_common_interrupt common_interrupt
    __common_interrupt asm_spurious_interrupt spurious_interrupt asm_call_on_stack asm_call_irq_on_stack
    asm_call_sysvec_on_stack
    apic_timer_interrupt reschedule_interrupt call_function_interrupt call_function_single_interrupt
    irq_work_interrupt smp_*_interrupt ret_from_intr x86_platform_ipi threshold_interrupt thermal_interrupt
    deferred_error_interrupt error_interrupt hyperv_callback_vector
    asm_exc_xen_hypervisor_callback xen_hvm_callback_vector xen_do_hypervisor_callback xen_hypervisor_callback
    xen_evtchn_do_upcall __xen_evtchn_do_upcall
    asm_exc_nmi exc_nmi nmi do_nmi end_repeat_nmi
    el1h_64_irq* el1t_64_irq* el0t_64_irq* el0t_32_irq* el1h_64_fiq* el0t_64_fiq* el1_interrupt el0_interrupt
    el1_irq el0_irq el0_irq_naked gic_handle_irq call_on_irq_stack do_interrupt_handler
    do_IRQ do_irq handle_riscv_irq riscv_intc_irq timer_interrupt decrementer_common* hardware_interrupt_common*
    do_ext_irq do_io_irq do_irq_async ext_int_handler io_int_handler
    generic_handle_irq* generic_handle_domain_irq handle_domain_irq __handle_domain_irq handle_irq_event*
    __handle_irq_event_percpu irq_thread do_handle_IPI handle_IPI ipi_handler
    __do_softirq handle_softirqs do_softirq do_softirq_own_stack irq_exit irq_exit_rcu __irq_exit_rcu run_ksoftirqd
    flush_smp_call_function_queue __flush_smp_call_function_queue flush_smp_call_function_from_idle
    generic_smp_call_function_single_interrupt generic_smp_call_function_interrupt
    """
)
# The way out of an interrupt, where a task works for itself again: signals, exit, task work, preemption. A container's
# init that is killed while it computes leaves its namespaces with the timer interrupt's entry further out in the stack.
_BACK_IN_TASK = matcher(
    """
    irqentry_exit irqentry_exit_* exit_to_user_mode_loop exit_to_user_mode_prepare exit_to_usermode_loop
    prepare_exit_to_usermode retint_user do_notify_resume do_work_pending
    preempt_schedule_irq arm64_preempt_schedule_irq raw_irqentry_exit_cond_resched
    """
)
# Functions that send requests or patch text for others: they never ask for a request themselves.
_MECHANISM = matcher(
    """
    smp_call_* on_each_cpu* generic_exec_single __smp_call_single_queue __smp_call_function_single
    kick_all_cpus_sync native_flush_tlb_others native_flush_tlb_multi
    text_poke* smp_text_poke* aarch64_insn_patch_text*
    arch_jump_label_* __jump_label_transform __jump_label_update jump_label_update
    static_key_* __static_key_* arch_static_call_* __static_call_*
    """
)
# The recorder itself. With two probes on a tracepoint the kernel calls them from `__traceiter_<event>`, and that frame
# comes first; with one probe it is not in the stack.
_RECORDER = matcher(
    """
    __traceiter_* __bpf_trace_* bpf_trace_run* perf_trace_* trace_event_raw_event_* bpf_trampoline_[0-9]*
    bpf_prog_[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]*
    bpf_get_stack* kprobe_ftrace_handler aggr_pre_handler pre_handler_kretprobe ftrace_trampoline ftrace_*caller
    """
)
_MUTEX_LOCK = matcher(
    """
    __mutex_lock* _mutex_lock* mutex_lock* mutex_optimistic_spin __ww_mutex_lock* rt_mutex_* __rt_mutex_* osq_lock
    schedule_preempt_disabled schedule __schedule
    """
)
_MUTEX_ENTRY = matcher("__mutex_lock* _mutex_lock* mutex_lock* __ww_mutex_lock* rt_mutex_* __rt_mutex_*")
# Functions that take slab_mutex and no other mutex (mm/slab_common.c, mm/slab.c, mm/slub.c).
_SLAB_MUTEX_TAKERS = matcher(
    """
    slab_start memcg_slab_start slabinfo_write kmem_cache_create* __kmem_cache_create* kmem_cache_destroy
    kmem_cache_shrink memcg_*cache* slab_caches_to_rcu_destroy_workfn
    """
)


@lru_cache(maxsize=8192)
def plain(frame: str) -> str:
    """The name of the function alone, without offset, module and compiler suffix."""
    name = frame.split("+", 1)[0].split(maxsplit=1)[0] if frame.strip() else ""
    return name.split(".", 1)[0]


def frames_of(stack: Sequence[str]) -> tuple[str, ...]:
    """The plain names of a stack, without the innermost frames of the recorder."""
    return tuple(dropwhile(_is_recorder, map(plain, stack)))


@lru_cache(maxsize=8192)
def _is_recorder(name: str) -> bool:
    return _RECORDER.match(name) is not None


@lru_cache(maxsize=8192)
def _border(name: str) -> str:
    return "entry" if _ENTRIES.match(name) else "back" if _BACK_IN_TASK.match(name) else ""


def own_part(stack: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    """(plain names of the frames that explain the request, whether an interrupt sent it).

    The frames end where the innermost interrupt was entered; the frames beyond belong to the task that it interrupted.
    If the task already worked for itself on the way out of that interrupt, the task sent the request.
    """
    frames: list[str] = []
    back = False
    for name in frames_of(stack):
        border = _border(name)
        if border == "entry":
            return tuple(frames), not back
        back = back or border == "back"
        frames.append(name)
    return tuple(frames), False


def is_slab_mutex_stack(stack: Sequence[str]) -> bool:
    """True for a wait for slab_mutex: the direct caller of the lock functions is one that takes no other mutex."""
    names = frames_of(stack)
    depth = next((index for index, name in enumerate(names) if not _MUTEX_LOCK.match(name)), len(names))
    locked = any(_MUTEX_ENTRY.match(name) for name in names[:depth])
    return locked and depth < len(names) and bool(_SLAB_MUTEX_TAKERS.match(names[depth]))


def top_of_stack(stack: Sequence[str]) -> str:
    """The frame to show: the innermost that neither sends, patches text nor takes a mutex; empty for no stack."""
    names = frames_of(stack)
    return next(
        (name for name in names if not (_MECHANISM.match(name) or _MUTEX_ENTRY.match(name))), "".join(names[-1:])
    )
