"""The recordings of real kernels hold stacks without the function that was asked for: what the stacks alone tell.

The daemon's probes always have the function, so nothing in the package needs this.
"""

from collections.abc import Sequence
from itertools import pairwise

from kickwatch.attribution.attribute import Attribution, attribute
from kickwatch.attribution.stacks import frames_of, own_part

_MULTI_CPU_CALLERS = frozenset({"smp_call_function_many_cond", "smp_call_function_many"})
# The function follows from the innermost frame that is listed here; a pair (frame, its caller) goes before the frame.
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
    # The lazy purge flushes from the lowest to the highest area that was collected: never a few pages.
    ("flush_tlb_kernel_range", "__purge_vmap_area_lazy"): "do_flush_tlb_all",
    # SLAB asks all CPUs, SLUB only those that have objects to return.
    ("on_each_cpu", "__kmem_cache_shrink"): "do_drain",
    ("on_each_cpu", "__kmem_cache_shutdown"): "do_drain",
}


def is_multi_cpu(stack: Sequence[str]) -> bool:
    """True if the request belongs to a multi-CPU call: its direct caller is smp_call_function_many*.

    Further out in the stack that function may be a spin-wait which an interrupt broke into. It is named
    smp_call_function_many_cond since "smp: Add a smp_cond_func_t argument to smp_call_function_many()" (5.6).
    """
    return bool(_MULTI_CPU_CALLERS.intersection(frames_of(stack)[:1]))


def infer_func(stack: Sequence[str]) -> str:
    """The function that was asked for; empty if the stack does not tell."""
    frames, _ = own_part(stack)
    known = (
        _FUNC_OF_PAIR.get((frame, caller)) or _FUNC_OF_CALLER.get(frame) for frame, caller in pairwise((*frames, ""))
    )
    return next(filter(None, known), "")


def attribute_stack(stack: Sequence[str]) -> Attribution:
    """As `attribute`, with the function taken from the stack."""
    return attribute(infer_func(stack), stack)
