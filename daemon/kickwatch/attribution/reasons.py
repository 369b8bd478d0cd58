"""The functions that other CPUs are asked to run, and what each is for.

The table gives the meaning of each function, since when it is expected, or which change made it a fault and which one
ended that. Releases are those of mainline; distributions backport.
"""

from dataclasses import dataclass

from kickwatch.attribution.stacks import plain
from kickwatch.model import Origin


@dataclass(frozen=True)
class RequestReason:
    """One kind of request. `name` is the newest kernel's name for it, `also` are older names.

    `meaning` is a predicate with `name` as its subject. `origin` follows from the function alone, without a stack; if
    `origin_is_certain`, the stack is not looked at. `busy`: thousands a second on a healthy node, too many to take
    stacks. `follows_task`: the CPUs asked are those where a process ran; such a call is never a broadcast, since with
    2 CPUs each would be one.
    """

    name: str
    meaning: str
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

    @property
    def sentence(self) -> str:
        """The meaning as a sentence; empty for a function that is not in the table."""
        return f"{self.name} {self.meaning}" if self.meaning else ""


REASONS: tuple[RequestReason, ...] = (
    RequestReason(
        "kick_all_cpus_sync",
        "interrupts every CPU so that none still uses data that was just replaced",
        'A fault when sent for each new SLAB cache: since "mm/slab: use percpu allocator for cpu cache" (3.18), until'
        ' "slab: avoid IPIs when creating kmem caches" (4.12); this is the fault of 2017. Expected on arm64: for'
        ' modules and BPF programs since "arm64: IPI each CPU after invalidating the I-cache for kernel mappings"'
        ' (4.19), for static keys since "arm64: jump_label: Ensure patched jump_labels are visible to all CPUs" (6.11)',
        also=("do_nothing",),
    ),
    RequestReason(
        "flush_tlb_func",
        "flushes a process's memory mappings from the TLBs of the CPUs where it ran (TLB shootdown)",
        'Expected. Named flush_tlb_func_remote until "x86/mm/tlb: Unify flush_tlb_func_local() and'
        ' flush_tlb_func_remote()" (5.13)',
        also=("flush_tlb_func_remote",),
        origin=Origin.MM_USER,
        origin_is_certain=True,
        busy=True,
        follows_task=True,
    ),
    RequestReason(
        "sched_ttwu_pending",
        "wakes up a task on another CPU (remote wakeup)",
        'Expected. A call-function request since "sched: Replace rq::wake_list" (5.8), a reschedule IPI before',
        origin=Origin.SCHED,
        origin_is_certain=True,
        busy=True,
    ),
    RequestReason(
        "nohz_csd_func",
        "asks an idle CPU to balance the load of the others",
        'Expected. A call-function request since "sched: Clean up scheduler_ipi()" (5.8), a reschedule IPI before',
        origin=Origin.SCHED,
        origin_is_certain=True,
        busy=True,
    ),
    RequestReason(
        "__hrtick_start",
        "sets a timer on another CPU for the end of a task's time slice",
        'Expected where the scheduler\'s HRTICK is on: "sched: high-res preemption tick" (2.6.25). Off by default for'
        " many years; Debian's 7.2 sends them",
        origin=Origin.SCHED,
        origin_is_certain=True,
    ),
    RequestReason(
        "do_sync_core",
        "makes every CPU fetch kernel code again after it was patched (static key, static call, tracepoint)",
        'Three calls for a batch of patched places since "x86/alternative: Batch of patch operations" (5.3), three for'
        " each place before. Expected once per boot and key; a fault if it comes with each container",
    ),
    RequestReason(
        "rcu_exp_handler",
        "asks a CPU that is not idle to report a quiescent state at once (expedited RCU)",
        'Expected, as single requests, since "rcu: Use single-stage IPI algorithm for RCU expedited grace period"'
        ' (4.4). Removing a container costs more of them since "net: expedite synchronize_net() for cleanup_net()"'
        " (6.14)",
        also=("sync_rcu_exp_handler", "sync_sched_exp_handler"),
        origin=Origin.RCU,
        origin_is_certain=True,
    ),
    RequestReason(
        "rcu_barrier_handler",
        "waits for the RCU callbacks of a CPU that has some (rcu_barrier())",
        'Expected. CPUs without callbacks are not interrupted since "rcu: Make rcu_barrier() less disruptive" (3.5).'
        ' Named rcu_barrier_func until "rcu: Rework rcu_barrier() and callback-migration logic" (5.18)',
        also=("rcu_barrier_func",),
        origin=Origin.RCU,
        origin_is_certain=True,
    ),
    RequestReason(
        "trc_read_check_handler",
        "asks whether a CPU's current task is an RCU Tasks Trace reader",
        'Expected where BPF programs that can sleep are freed, since "rcu-tasks: Add an RCU Tasks Trace to simplify'
        ' protection of tracing hooks" (5.8)',
        origin=Origin.RCU,
        origin_is_certain=True,
    ),
    RequestReason(
        "do_flush_tlb_all",
        "flushes the whole TLB of every CPU after many kernel mappings were freed",
        'Expected, but rarely: freed areas are collected since "mm: rewrite vmap layer" (2.6.28). About four for a'
        ' seccomp filter, together with __cpa_flush_all, until "bpf: Introduce bpf_prog_pack allocator" (5.18)',
    ),
    RequestReason(
        "do_kernel_range_flush",
        "flushes a few kernel mappings from the TLB of every CPU",
        'As do_flush_tlb_all, for small ranges ("mm: rewrite vmap layer", 2.6.28)',
    ),
    RequestReason(
        "__cpa_flush_all",
        "flushes the TLB of every CPU after attributes of kernel mappings changed (read-only, executable)",
        'Expected for modules; for each seccomp filter until "bpf: Introduce bpf_prog_pack allocator" (5.18)',
        also=("__cpa_flush_range", "__cpa_flush_tlb"),
    ),
    RequestReason(
        "do_drain",
        "returns the objects that a CPU has cached to their SLAB cache",
        'Sent for each cache of a removed memcg since "slab: introduce __kmemcg_cache_deactivate()" (4.11), until "mm:'
        ' memcg/slab: use a single set of kmem_caches for all accounted allocations" (5.9). Gone with "mm/slab: remove'
        ' CONFIG_SLAB from all Kconfig and Makefile" (6.8)',
        origin=Origin.SLAB,
    ),
    RequestReason(
        "flush_cpu_slab",
        "returns the objects that a CPU has cached to their SLUB cache",
        'Sent only to CPUs that have some since "slub: only IPI CPUs that have per cpu obj to flush" (3.4); per-CPU'
        ' work without an IPI since "mm: slub: move flush_cpu_slab() invocations __free_slab() invocations out of IRQ'
        ' context" (5.15)',
        origin=Origin.SLAB,
    ),
    RequestReason(
        "remote_function",
        "reads, installs or switches a perf event on its CPU",
        'Expected. One for each task that moves between cgroups while cgroup events exist: "perf: Add cgroup support"'
        " (2.6.39)",
        also=("__perf_event_read",),
        origin=Origin.PERF,
    ),
    RequestReason(
        "ipi_mb",
        "makes a memory barrier on the CPUs where a process's threads run (membarrier())",
        'Expected since "membarrier: Provide expedited private command" (4.14)',
        origin=Origin.MEMBARRIER,
        origin_is_certain=True,
        follows_task=True,
    ),
    RequestReason(
        "ipi_sync_core",
        "makes the CPUs where a process's threads run fetch its code again (membarrier())",
        'Expected since "membarrier: Provide core serializing command, *_SYNC_CORE" (4.16)',
        origin=Origin.MEMBARRIER,
        origin_is_certain=True,
        follows_task=True,
    ),
    RequestReason(
        "ipi_rseq",
        "restarts the restartable sequences of a process's threads (membarrier())",
        'Expected since "rseq/membarrier: Add MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ" (5.10)',
        origin=Origin.MEMBARRIER,
        origin_is_certain=True,
        follows_task=True,
    ),
    RequestReason(
        "ipi_sync_rq_state",
        "registers a process for membarrier() on the CPUs where its threads run",
        'Expected since "sched/membarrier: Fix p->mm->membarrier_state racy load" (5.4)',
        origin=Origin.MEMBARRIER,
        origin_is_certain=True,
        follows_task=True,
    ),
    RequestReason(
        "tlb_remove_table_smp_sync",
        "makes sure that no CPU walks page tables that are about to be freed",
        'Expected where huge pages collapse, since "mm/khugepaged: fix GUP-fast interaction by sending IPI" (6.1)',
        origin=Origin.MM_USER,
    ),
    RequestReason(
        "invalidate_bh_lru",
        "drops a CPU's cached buffers of a block device",
        'Expected with mounts; only CPUs that hold some are asked: "fs: only send IPI to invalidate LRU BH when needed"'
        " (3.4)",
        origin=Origin.MM_USER,
    ),
    RequestReason(
        "drain_local_pages",
        "returns the free pages that a CPU has cached, since memory is short",
        'Expected under pressure ("mm: only IPI CPUs to drain local pages if they exist", 3.4) until "mm, page_alloc:'
        ' drain per-cpu pages from workqueue context" (4.11)',
        origin=Origin.MM_USER,
    ),
    RequestReason(
        "retrigger_next_event",
        "sets a CPU's timers again after the clock was set",
        'Expected when the clock is stepped; only CPUs whose timers change are asked since "hrtimer: Avoid more SMP'
        ' function calls in clock_was_set()" (5.15)',
        origin=Origin.SCHED,
    ),
    RequestReason(
        "rps_trigger_softirq",
        "hands received packets to another CPU",
        'Expected where RPS is configured: "rps: Receive Packet Steering" (2.6.35)',
        origin=Origin.NET,
    ),
    RequestReason(
        "__blk_mq_complete_request_remote",
        "completes a block request on the CPU that submitted it",
        'Expected since "blk-mq: new multi-queue block IO queueing mechanism" (3.13)',
        origin=Origin.IRQ,
    ),
)

_BY_FUNC = {func: reason for reason in REASONS for func in reason.funcs}

BUSY_FUNCS: tuple[str, ...] = tuple(func for reason in REASONS if reason.busy for func in reason.funcs)
"""Functions whose requests are counted without a stack."""


def reason_of(func: str) -> RequestReason:
    """The reason of a function; one that is not in the table is its own reason, without a meaning."""
    name = plain(func)
    return _BY_FUNC.get(name) or RequestReason(name or "unknown", "", "")


def explain(func: str) -> str:
    """What a request for `func` is for, and on which kernels it is expected, or a fault. Sentences, on one line."""
    reason = reason_of(func)
    if not reason.meaning:
        return f"{reason.name} is not in kickwatch's table of kernel functions."
    return f"{reason.sentence}. {reason.history}."


def mask_follows_task(func: str) -> bool:
    """True if calls for this function are never broadcasts: they go where a process ran."""
    return reason_of(func).follows_task
