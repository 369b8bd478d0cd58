"""What the stacks of recordings tell about the function that was asked for."""

import pytest

from kickwatch.attribution.attribute import Attribution
from kickwatch.model import Origin, Path
from recorded_stacks import attribute_stack, infer_func, is_multi_cpu


@pytest.mark.parametrize(
    ("stack", "func"),
    [
        ("smp_call_function_many kick_all_cpus_sync __do_tune_cpucache", "do_nothing"),
        ("native_flush_tlb_others flush_tlb_mm_range tlb_finish_mmu exit_mmap", "flush_tlb_func"),
        ("smp_call_function_many on_each_cpu text_poke_bp __jump_label_transform", "do_sync_core"),
        ("on_each_cpu __kmem_cache_shrink __kmemcg_cache_deactivate", "do_drain"),
        ("on_each_cpu_mask on_each_cpu_cond __kmem_cache_shrink __kmemcg_cache_deactivate", "flush_cpu_slab"),
        ("on_each_cpu_cond_mask flush_all __kmem_cache_shutdown kmem_cache_destroy", "flush_cpu_slab"),
        ("on_each_cpu flush_tlb_kernel_range __purge_vmap_area_lazy vm_unmap_aliases", "do_flush_tlb_all"),
        ("on_each_cpu flush_tlb_kernel_range pcpu_unmap_pages", "do_kernel_range_flush"),
        ("on_each_cpu change_page_attr_set_clr set_memory_ro", "__cpa_flush_all"),
        ("on_each_cpu flush_tlb_all __change_page_attr_set_clr change_page_attr_set_clr", "do_flush_tlb_all"),
        ("smp_call_function_single sync_rcu_exp_select_node_cpus sync_rcu_exp_select_cpus", "rcu_exp_handler"),
        ("smp_call_function_single _rcu_barrier rcu_barrier cleanup_net", "rcu_barrier_handler"),
        ("smp_call_function_single perf_cgroup_attach cgroup_migrate_execute", "remote_function"),
        ("smp_call_function_many membarrier_private_expedited __x64_sys_membarrier", "ipi_mb"),
        ("smp_call_function_many some_driver_write", ""),
        # The frames that an interrupt broke into do not tell what the interrupt asked for.
        ("smp_call_function_single some_timer apic_timer_interrupt kick_all_cpus_sync __do_tune_cpucache", ""),
        ("", ""),
    ],
)
def test_the_function_follows_from_its_callers(stack: str, func: str) -> None:
    assert infer_func(stack.split()) == func


def test_an_unknown_caller_has_no_reason() -> None:
    stack = ["smp_call_function_many_cond+800", "on_each_cpu_cond_mask+32", "some_driver_write+12", "vfs_write+202"]
    assert attribute_stack(stack) == Attribution("unknown", Origin.UNKNOWN, Path.OTHER)


def test_only_the_direct_caller_tells_a_multi_cpu_call() -> None:
    assert is_multi_cpu(["smp_call_function_many_cond+800", "on_each_cpu_cond_mask"])
    assert is_multi_cpu(["smp_call_function_many", "on_each_cpu"])
    assert not is_multi_cpu(["__smp_call_single_queue", "smp_call_function_many_cond"])
    assert not is_multi_cpu([])
