"""What a request was for: from the function the other CPU must run, and the stack of the sender, to plain words.

The table of reasons says of each what it is, since when it is ordinary, or which change made it a fault and which one
ended that. Releases are those of mainline; distributions backport.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from kickwatch.model import Origin, Path
from kickwatch.observe.origins import asked_by
from kickwatch.observe.stacks import is_multi_cpu, is_slab_mutex_stack, matcher, own_part, plain, top_of_stack

__all__ = [
    "BUSY_FUNCS",
    "REASONS",
    "Attribution",
    "RequestReason",
    "attribute",
    "attribute_stack",
    "infer_func",
    "is_multi_cpu",
    "is_slab_mutex_stack",
    "mask_follows_task",
    "patches_text",
    "reason_of",
    "top_of_stack",
]


@dataclass(frozen=True)
class RequestReason:
    """One kind of request. `name` is the newest kernel's name for it, `also` are older ones.

    `origin` follows from the function alone, without a stack; where `origin_is_certain`, no stack is read.
    `busy`: thousands a second on a healthy node, not worth a stack. `follows_task`: the CPUs asked are those where a
    process ran; such a call is never a broadcast, since with 2 CPUs each would be one.
    """

    name: str
    says: str
    history: str
    also: tuple[str, ...] = ()
    origin: Origin | None = None
    origin_is_certain: bool = False
    busy: bool = False
    follows_task: bool = False

    @property
    def funcs(self) -> tuple[str, ...]:
        """Every function of this reason, newest name first."""
        return (self.name, *self.also)


@dataclass(frozen=True)
class Attribution:
    """Why, who and when in a container's life: the identity of a cell."""

    reason: str
    origin: Origin
    path: Path


REASONS: tuple[RequestReason, ...] = (
    RequestReason(
        "kick_all_cpus_sync",
        "every CPU made to pass through an interrupt, so that nobody still uses what was replaced",
        'For each new SLAB cache since "mm/slab: use percpu allocator for cpu cache" (3.18): the fault of 2017, ended'
        ' by "slab: avoid IPIs when creating kmem caches" (4.12). Ordinary on arm64: for modules and BPF programs since'
        ' "arm64: IPI each CPU after invalidating the I-cache for kernel mappings" (4.19), for static keys since'
        ' "arm64: jump_label: Ensure patched jump_labels are visible to all CPUs" (6.11)',
        also=("do_nothing",),
    ),
    RequestReason(
        "flush_tlb_func",
        "TLB shootdown of a process's memory, on the CPUs where it ran",
        'Ordinary. flush_tlb_func_remote until "x86/mm/tlb: Unify flush_tlb_func_local() and flush_tlb_func_remote()"'
        " (5.13)",
        also=("flush_tlb_func_remote",),
        origin=Origin.MM_USER,
        origin_is_certain=True,
        busy=True,
        follows_task=True,
    ),
    RequestReason(
        "sched_ttwu_pending",
        "remote wakeup: a task is to run on another CPU",
        'Ordinary. A call-function request since "sched: Replace rq::wake_list" (5.8), a reschedule IPI before',
        origin=Origin.SCHED,
        origin_is_certain=True,
        busy=True,
    ),
    RequestReason(
        "nohz_csd_func",
        "an idle CPU asked to balance the load of others",
        'Ordinary. A call-function request since "sched: Clean up scheduler_ipi()" (5.8), a reschedule IPI before',
        origin=Origin.SCHED,
        origin_is_certain=True,
        busy=True,
    ),
    RequestReason(
        "__hrtick_start",
        "remote wakeup: the other CPU arms a timer for the end of the task's slice",
        'Ordinary where the scheduler\'s HRTICK is on: "sched: high-res preemption tick" (2.6.25). Off by default for'
        " long; Debian's 7.2 sends them",
        origin=Origin.SCHED,
        origin_is_certain=True,
    ),
    RequestReason(
        "do_sync_core",
        "kernel text was patched (static key, static call, tracepoint): every CPU must fetch it anew",
        'Three calls for a batch of places since "x86/alternative: Batch of patch operations" (5.3); before, three for'
        " each place. Ordinary once per boot and key; a fault for each container",
    ),
    RequestReason(
        "rcu_exp_handler",
        "expedited RCU: a CPU that is not idle must report a quiescent state at once",
        'Ordinary: single requests since "rcu: Use single-stage IPI algorithm for RCU expedited grace period" (4.4).'
        ' Removing a container costs more of them since "net: expedite synchronize_net() for cleanup_net()" (6.14)',
        also=("sync_rcu_exp_handler", "sync_sched_exp_handler"),
        origin=Origin.RCU,
        origin_is_certain=True,
    ),
    RequestReason(
        "rcu_barrier_handler",
        "rcu_barrier(): wait for the callbacks of each CPU that has some",
        'Ordinary: CPUs without callbacks are left alone since "rcu: Make rcu_barrier() less disruptive" (3.5).'
        ' rcu_barrier_func until "rcu: Rework rcu_barrier() and callback-migration logic" (5.18)',
        also=("rcu_barrier_func",),
        origin=Origin.RCU,
        origin_is_certain=True,
    ),
    RequestReason(
        "trc_read_check_handler",
        "RCU Tasks Trace: is this CPU's task reading?",
        'Ordinary where BPF programs that sleep are freed, since "rcu-tasks: Add an RCU Tasks Trace to simplify'
        ' protection of tracing hooks" (5.8)',
        origin=Origin.RCU,
        origin_is_certain=True,
    ),
    RequestReason(
        "do_flush_tlb_all",
        "flush of every TLB: kernel mappings given back, many at once",
        'Ordinary, seldom: unmapped areas gather since "mm: rewrite vmap layer" (2.6.28). About four for a seccomp'
        ' filter, with __cpa_flush_all, until "bpf: Introduce bpf_prog_pack allocator" (5.18)',
    ),
    RequestReason(
        "do_kernel_range_flush",
        "flush of a few kernel mappings from every TLB",
        'As do_flush_tlb_all, for small ranges ("mm: rewrite vmap layer", 2.6.28)',
    ),
    RequestReason(
        "__cpa_flush_all",
        "attributes of kernel mappings changed (read-only, executable): every TLB is flushed",
        'Ordinary for modules; for each seccomp filter until "bpf: Introduce bpf_prog_pack allocator" (5.18)',
        also=("__cpa_flush_range", "__cpa_flush_tlb"),
    ),
    RequestReason(
        "do_drain",
        "SLAB: give the CPU's cached objects back",
        'For each cache of a removed memcg, in "slab: introduce __kmemcg_cache_deactivate()" (4.11), until "mm:'
        ' memcg/slab: use a single set of kmem_caches for all accounted allocations" (5.9). Gone with "mm/slab: remove'
        ' CONFIG_SLAB from all Kconfig and Makefile" (6.8)',
        origin=Origin.SLAB,
    ),
    RequestReason(
        "flush_cpu_slab",
        "SLUB: give the CPU's cached objects back",
        'Only to CPUs that have some since "slub: only IPI CPUs that have per cpu obj to flush" (3.4); per-CPU work, no'
        ' IPI, since "mm: slub: move flush_cpu_slab() invocations __free_slab() invocations out of IRQ context" (5.15)',
        origin=Origin.SLAB,
    ),
    RequestReason(
        "remote_function",
        "perf: read, install or switch an event on its CPU",
        'Ordinary. One for each task moved between cgroups while cgroup events exist: "perf: Add cgroup support"'
        " (2.6.39)",
        also=("__perf_event_read",),
        origin=Origin.PERF,
    ),
    RequestReason(
        "ipi_mb",
        "membarrier(): a memory barrier on the CPUs where the process's threads run",
        'Ordinary since "membarrier: Provide expedited private command" (4.14)',
        origin=Origin.MEMBARRIER,
        origin_is_certain=True,
        follows_task=True,
    ),
    RequestReason(
        "ipi_sync_core",
        "membarrier(): the process's code changed",
        'Ordinary since "membarrier: Provide core serializing command, *_SYNC_CORE" (4.16)',
        origin=Origin.MEMBARRIER,
        origin_is_certain=True,
        follows_task=True,
    ),
    RequestReason(
        "ipi_rseq",
        "membarrier(): restart restartable sequences",
        'Ordinary since "rseq/membarrier: Add MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ" (5.10)',
        origin=Origin.MEMBARRIER,
        origin_is_certain=True,
        follows_task=True,
    ),
    RequestReason(
        "ipi_sync_rq_state",
        "membarrier(): a process registers",
        'Ordinary since "sched/membarrier: Fix p->mm->membarrier_state racy load" (5.4)',
        origin=Origin.MEMBARRIER,
        origin_is_certain=True,
        follows_task=True,
    ),
    RequestReason(
        "tlb_remove_table_smp_sync",
        "page tables about to be freed: nobody may still walk them",
        'Ordinary where huge pages collapse, since "mm/khugepaged: fix GUP-fast interaction by sending IPI" (6.1)',
        origin=Origin.MM_USER,
    ),
    RequestReason(
        "invalidate_bh_lru",
        "a block device's cached buffers are dropped",
        'Ordinary with mounts: only CPUs that hold some, "fs: only send IPI to invalidate LRU BH when needed" (3.4)',
        origin=Origin.MM_USER,
    ),
    RequestReason(
        "drain_local_pages",
        "give the CPU's cached pages back: memory is short",
        'Ordinary under pressure ("mm: only IPI CPUs to drain local pages if they exist", 3.4) until "mm, page_alloc:'
        ' drain per-cpu pages from workqueue context" (4.11)',
        origin=Origin.MM_USER,
    ),
    RequestReason(
        "retrigger_next_event",
        "the clock was set: timers must be armed anew",
        'Ordinary when time is stepped; only CPUs whose timers change since "hrtimer: Avoid more SMP function calls in'
        ' clock_was_set()" (5.15)',
        origin=Origin.SCHED,
    ),
    RequestReason(
        "rps_trigger_softirq",
        "packets handed to another CPU",
        'Ordinary where RPS is configured: "rps: Receive Packet Steering" (2.6.35)',
        origin=Origin.NET,
    ),
    RequestReason(
        "__blk_mq_complete_request_remote",
        "a block request completed on the CPU that submitted it",
        'Ordinary since "blk-mq: new multi-queue block IO queueing mechanism" (3.13)',
        origin=Origin.IRQ,
    ),
)

_PATCHING = matcher("static_key_* jump_label_* __jump_label_update arch_jump_label_* __static_call_update")
_BY_FUNC = {func: reason for reason in REASONS for func in reason.funcs}

BUSY_FUNCS: tuple[str, ...] = tuple(func for reason in REASONS if reason.busy for func in reason.funcs)
"""Functions whose requests are counted without a stack."""

# Kernels without csd:csd_queue_cpu (before 6.5) may leave only the stack. The function then follows from the innermost
# frame here; a pair (frame, its caller) goes before the frame alone.
_FUNC_OF_CALLER: dict[str, str] = {
    "kick_all_cpus_sync": "do_nothing",
    "native_flush_tlb_others": "flush_tlb_func",
    "native_flush_tlb_multi": "flush_tlb_func",
    "flush_tlb_mm_range": "flush_tlb_func",
    "flush_tlb_page": "flush_tlb_func",
    "arch_tlbbatch_flush": "flush_tlb_func",
    "flush_tlb_all": "do_flush_tlb_all",
    "flush_tlb_kernel_range": "do_kernel_range_flush",
    "__purge_vmap_area_lazy": "do_flush_tlb_all",
    "change_page_attr_set_clr": "__cpa_flush_all",
    "cpa_flush": "__cpa_flush_all",
    "text_poke_bp": "do_sync_core",
    "text_poke_bp_batch": "do_sync_core",
    "text_poke_finish": "do_sync_core",
    "text_poke_sync": "do_sync_core",
    "smp_text_poke_batch_finish": "do_sync_core",
    "drain_cpu_caches": "do_drain",
    "__kmem_cache_shrink": "flush_cpu_slab",
    "__kmem_cache_shutdown": "flush_cpu_slab",
    "flush_all": "flush_cpu_slab",
    "sync_rcu_exp_select_node_cpus": "rcu_exp_handler",
    "__sync_rcu_exp_select_node_cpus": "rcu_exp_handler",
    "sync_rcu_exp_select_cpus": "rcu_exp_handler",
    "_rcu_barrier": "rcu_barrier_handler",
    "rcu_barrier": "rcu_barrier_handler",
    "perf_cgroup_attach": "remote_function",
    "perf_install_in_context": "remote_function",
    "event_function_call": "remote_function",
    "membarrier_private_expedited": "ipi_mb",
    "membarrier_global_expedited": "ipi_mb",
    "invalidate_bh_lrus": "invalidate_bh_lru",
    "tlb_remove_table_sync_one": "tlb_remove_table_smp_sync",
    "drain_all_pages": "drain_local_pages",
    "net_rps_send_ipi": "rps_trigger_softirq",
}
_FUNC_OF_PAIR: dict[tuple[str, str], str] = {
    # The lazy purge flushes from the lowest to the highest area that has gathered: never a few pages.
    ("flush_tlb_kernel_range", "__purge_vmap_area_lazy"): "do_flush_tlb_all",
    # SLAB asks all CPUs, SLUB those with something to give back.
    ("on_each_cpu", "__kmem_cache_shrink"): "do_drain",
    ("on_each_cpu", "__kmem_cache_shutdown"): "do_drain",
}


def reason_of(func: str) -> RequestReason:
    """The reason of a function; a function without an entry is its own reason, nothing else known of it."""
    name = plain(func)
    return _BY_FUNC.get(name) or RequestReason(name or "unknown", "", "")


def mask_follows_task(func: str) -> bool:
    """True if calls for this function are never broadcasts: they go where a process ran."""
    return reason_of(func).follows_task


def patches_text(func: str, stack: Sequence[str]) -> bool:
    """True for a request that makes other CPUs see patched text: by its function on x86, by its stack elsewhere."""
    return reason_of(func).name == "do_sync_core" or any(map(_PATCHING.match, own_part(stack)[0]))


def attribute(func: str, stack: Sequence[str]) -> Attribution:
    """Reason, origin and path of a request for `func`, sent with `stack` (innermost first; empty if it was not taken).

    An interrupt's request is `irq` and `other`, whatever task it broke into. Without a stack, or with one that explains
    nothing, the function alone must tell.
    """
    reason = reason_of(func)
    if reason.origin_is_certain and reason.origin:
        return Attribution(reason.name, reason.origin, Path.OTHER)
    frames, interrupt = own_part(stack)
    if interrupt:
        return Attribution(reason.name, Origin.IRQ, Path.OTHER)
    origin, path = asked_by(frames)
    if origin is Origin.UNKNOWN and reason.origin:
        origin = reason.origin
    return Attribution(reason.name, origin, path)


def infer_func(stack: Sequence[str]) -> str:
    """The function asked for, from the sender's stack alone; empty if the stack does not tell."""
    frames, _ = own_part(stack)
    known = (
        _FUNC_OF_PAIR.get((frame, caller)) or _FUNC_OF_CALLER.get(frame) for frame, caller in pairwise((*frames, ""))
    )
    return next(filter(None, known), "")


def attribute_stack(stack: Sequence[str]) -> Attribution:
    """As `attribute`, for recordings that hold only the callers of smp_call_function_many and the like."""
    return attribute(infer_func(stack), stack)
