"""Stacks: plain names, where an interrupt began, and what the innermost frames are."""

import pytest

from kickwatch.attribution.stacks import frames_of, is_slab_mutex_stack, own_part, plain, top_of_stack


@pytest.mark.parametrize(
    ("frame", "name"),
    [
        ("slab_start+21", "slab_start"),
        ("__mutex_lock.constprop.0+497", "__mutex_lock"),
        ("virtnet_poll+0xac/0x360 [virtio_net]", "virtnet_poll"),
        ("do_setlink.isra.0", "do_setlink"),
        ("io_uring_setup.cold", "io_uring_setup"),
        ("memcg_offline_kmem.part.0", "memcg_offline_kmem"),
        ("bpf_prog_6deef7357e7b4530_sd_devices [bpf]", "bpf_prog_6deef7357e7b4530_sd_devices"),
        ("0xffffffffc0123456", "0xffffffffc0123456"),
        ("", ""),
    ],
)
def test_plain_name(frame: str, name: str) -> None:
    assert plain(frame) == name


@pytest.mark.parametrize(
    "entry",
    [
        "asm_sysvec_apic_timer_interrupt+22",
        "asm_common_interrupt",
        "common_interrupt",
        "apic_timer_interrupt",
        "smp_reschedule_interrupt",
        "call_function_single_interrupt",
        "smp_call_function_interrupt",
        "do_IRQ",
        "__do_softirq",
        "handle_softirqs+205",
        "el1h_64_irq",
        "el0t_64_irq",
        "el1_irq",
        "gic_handle_irq",
        "decrementer_common",
        "__flush_smp_call_function_queue",
    ],
)
def test_frames_end_at_the_entry_of_an_interrupt(entry: str) -> None:
    assert own_part(["try_to_wake_up+1", "a_handler", entry, "cgroup_mkdir"]) == (("try_to_wake_up", "a_handler"), True)


@pytest.mark.parametrize(
    "frame",
    [
        "asm_exc_page_fault",
        "exc_page_fault",
        "asm_exc_int3",
        "page_fault",
        "el1h_64_sync",
        "smp_call_function_many",
        "smp_call_function_single",
        "entry_SYSCALL_64_after_hwframe",
        "ret_from_fork",
        "kthread",
    ],
)
def test_exceptions_system_calls_and_senders_are_not_interrupts(frame: str) -> None:
    assert own_part([frame, "cgroup_mkdir"]) == ((frame, "cgroup_mkdir"), False)


def test_a_task_works_for_itself_on_the_way_out_of_an_interrupt() -> None:
    """A container's init is killed while it computes: it exits behind the timer interrupt, not in it."""
    stack = [
        "static_key_slow_dec",
        "exit_task_namespaces",
        "do_exit",
        "get_signal",
        "exit_to_user_mode_loop",
        "irqentry_exit_to_user_mode",
        "asm_sysvec_apic_timer_interrupt",
    ]
    assert own_part(stack) == (tuple(stack[:-1]), False)


def test_a_softirq_on_the_way_out_of_an_interrupt_is_an_interrupt() -> None:
    stack = ["try_to_wake_up", "run_timer_softirq", "handle_softirqs", "__irq_exit_rcu", "sysvec_apic_timer_interrupt"]
    assert own_part(stack) == (("try_to_wake_up", "run_timer_softirq"), True)


@pytest.mark.parametrize("recorder", ["__traceiter_csd_queue_cpu+65", "bpf_prog_0123456789abcdef_csd [bpf]"])
def test_frames_of_the_recorder_are_skipped(recorder: str) -> None:
    """With a second tracer on the tracepoint the kernel's iterator comes first."""
    assert frames_of([recorder, "smp_call_function_many_cond+800"]) == ("smp_call_function_many_cond",)
    assert is_slab_mutex_stack([recorder, "__mutex_lock.constprop.0+497", "slab_start+21"])
    assert top_of_stack([recorder, "smp_call_function_many_cond+800", "mem_cgroup_write+1"]) == "mem_cgroup_write"


@pytest.mark.parametrize(
    "stack",
    [
        "__mutex_lock.constprop.0+497 slab_start+21 seq_read_iter+264",
        "mutex_lock kmem_cache_create_usercopy.part.0 kmem_cache_create",
        "__mutex_lock mutex_lock_nested __kmem_cache_create_args",
        "osq_lock mutex_optimistic_spin __mutex_lock_slowpath mutex_lock kmem_cache_destroy",
        "schedule schedule_preempt_disabled __mutex_lock mutex_lock memcg_create_kmem_cache",
        "__mutex_lock memcg_deactivate_kmem_caches memcg_offline_kmem",
        "__mutex_lock slab_caches_to_rcu_destroy_workfn process_one_work",
        "rt_mutex_slowlock_block __rt_mutex_slowlock_locked kmem_cache_destroy",
    ],
)
def test_slab_mutex_is_recognised_by_the_functions_that_take_it(stack: str) -> None:
    assert is_slab_mutex_stack(stack.split())


@pytest.mark.parametrize(
    "stack",
    [
        "",
        "__mutex_lock",
        "slab_start seq_read_iter",  # no lock at all
        "schedule kmem_cache_destroy",  # sleeps for another reason
        "__mutex_lock get_online_cpus kmem_cache_create",  # another lock, taken on the way
        "__mutex_lock pcpu_alloc memcg_create_kmem_cache",
        "__mutex_lock rcu_barrier kmem_cache_destroy",
        "__mutex_lock seq_read_iter slab_start",
    ],
)
def test_other_mutexes_are_not_slab_mutex(stack: str) -> None:
    assert not is_slab_mutex_stack(stack.split())


FLIPPED_KEY = """
    smp_call_function_many_cond+800 on_each_cpu_cond_mask+32 smp_text_poke_batch_finish+785
    arch_jump_label_transform_apply+22 static_key_slow_inc_cpuslocked+88 static_key_slow_inc+25 mem_cgroup_write+391
"""


@pytest.mark.parametrize(
    ("stack", "top"),
    [
        ("smp_call_function_many kick_all_cpus_sync __do_tune_cpucache enable_cpucache", "__do_tune_cpucache"),
        (FLIPPED_KEY, "mem_cgroup_write"),
        ("__smp_call_single_queue generic_exec_single smp_call_function_single rcu_barrier", "rcu_barrier"),
        ("__mutex_lock.constprop.0+497 slab_start+21", "slab_start"),
        ("smp_call_function_many on_each_cpu", "on_each_cpu"),
        ("", ""),
    ],
)
def test_top_of_stack(stack: str, top: str) -> None:
    assert top_of_stack(stack.split()) == top
