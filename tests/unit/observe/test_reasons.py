"""Reasons: what each function is for, what it tells without a stack, and what a stack tells without the function."""

import re

import pytest

from kickwatch.model import Origin, Path
from kickwatch.observe.reasons import (
    BUSY_FUNCS,
    REASONS,
    Attribution,
    attribute,
    attribute_stack,
    infer_func,
    mask_follows_task,
    patches_text,
    reason_of,
)

UNEXPLAINED = ["smp_call_function_many_cond+800", "on_each_cpu_cond_mask+32", "some_driver_write+12", "vfs_write+202"]


@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: reason.name)
def test_each_reason_reads_for_a_person_and_cites_its_history(reason: object) -> None:
    entry = next(candidate for candidate in REASONS if candidate is reason)
    assert " " in entry.says
    assert re.search(r'"[^"]+"[ ,(]+\d\.\d+(\.\d+)?\)', entry.history), "no commit subject with its release"


def test_no_function_has_two_reasons() -> None:
    funcs = [func for reason in REASONS for func in reason.funcs]
    assert len(funcs) == len(set(funcs))


def test_settled_reasons_know_their_origin() -> None:
    assert all(reason.origin for reason in REASONS if reason.origin_is_certain or reason.busy)


def test_busy_functions() -> None:
    assert set(BUSY_FUNCS) == {"flush_tlb_func", "flush_tlb_func_remote", "sched_ttwu_pending", "nohz_csd_func"}


@pytest.mark.parametrize(
    ("func", "name"),
    [
        ("do_nothing", "kick_all_cpus_sync"),
        ("flush_tlb_func_remote", "flush_tlb_func"),
        ("sync_sched_exp_handler", "rcu_exp_handler"),
        ("rcu_barrier_func", "rcu_barrier_handler"),
        ("do_sync_core.constprop.0", "do_sync_core"),
        ("ack_kick", "ack_kick"),
        ("0xffffffffc0123456", "0xffffffffc0123456"),
        ("", "unknown"),
    ],
)
def test_reason_is_the_newest_name_of_the_function(func: str, name: str) -> None:
    assert reason_of(func).name == name


@pytest.mark.parametrize("func", ["flush_tlb_func", "ipi_mb", "ipi_sync_core", "ipi_rseq", "ipi_sync_rq_state"])
def test_masks_that_follow_a_task_are_never_broadcasts(func: str) -> None:
    assert mask_follows_task(func)


@pytest.mark.parametrize("func", ["do_nothing", "do_sync_core", "do_flush_tlb_all", "flush_cpu_slab", "ack_kick", ""])
def test_other_masks_do_not_follow_a_task(func: str) -> None:
    assert not mask_follows_task(func)


@pytest.mark.parametrize(
    ("func", "origin"),
    [
        ("flush_tlb_func", Origin.MM_USER),
        ("sched_ttwu_pending", Origin.SCHED),
        ("nohz_csd_func", Origin.SCHED),
        ("rcu_exp_handler", Origin.RCU),
        ("rcu_barrier_handler", Origin.RCU),
        ("remote_function", Origin.PERF),
        ("ipi_mb", Origin.MEMBARRIER),
        ("do_drain", Origin.SLAB),
        ("flush_cpu_slab", Origin.SLAB),
        ("do_sync_core", Origin.UNKNOWN),
        ("do_nothing", Origin.UNKNOWN),
        ("do_flush_tlb_all", Origin.UNKNOWN),
        ("ack_kick", Origin.UNKNOWN),
    ],
)
@pytest.mark.parametrize("stack", [(), UNEXPLAINED], ids=["no stack", "unexplained stack"])
def test_without_an_explaining_stack_the_function_alone_tells(func: str, origin: Origin, stack: list[str]) -> None:
    assert attribute(func, stack) == Attribution(reason_of(func).name, origin, Path.OTHER)


@pytest.mark.parametrize("func", ["rcu_exp_handler", "rcu_barrier_handler", *BUSY_FUNCS])
def test_settled_reasons_do_not_ask_the_stack(func: str) -> None:
    stack = ["smp_call_function_single", "cleanup_net", "mem_cgroup_css_alloc", "cgroup_mkdir"]
    told = attribute(func, stack)
    assert told.origin in {Origin.RCU, Origin.SCHED, Origin.MM_USER}
    assert told.path is Path.OTHER


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
        # What an interrupt broke into is not what it asked for.
        ("smp_call_function_single some_timer apic_timer_interrupt kick_all_cpus_sync __do_tune_cpucache", ""),
        ("", ""),
    ],
)
def test_function_follows_from_the_callers(stack: str, func: str) -> None:
    assert infer_func(stack.split()) == func


def test_attribution_by_stack_alone_of_an_unknown_caller() -> None:
    assert attribute_stack(UNEXPLAINED) == Attribution("unknown", Origin.UNKNOWN, Path.OTHER)


@pytest.mark.parametrize(
    ("func", "stack", "patches"),
    [
        ("do_sync_core", (), True),
        ("do_nothing", ("kick_all_cpus_sync", "arch_jump_label_transform_apply", "static_key_slow_inc"), True),
        ("do_nothing", ("kick_all_cpus_sync", "bpf_int_jit_compile", "bpf_prog_select_runtime"), False),
        ("do_nothing", ("smp_call_function_many_cond", "asm_sysvec_call_function", "static_key_slow_inc"), False),
    ],
)
def test_text_patching_is_known_by_function_or_by_stack(func: str, stack: tuple[str, ...], patches: bool) -> None:
    """arm64 kicks all CPUs for a static key as it does for a BPF program."""
    assert patches_text(func, stack) is patches
