"""Origins and paths: who asked, by rank and nearness, on the kernels of ten years."""

import json
from pathlib import Path as FilePath
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickwatch.model import Origin, Path
from kickwatch.observe.origins import RULES, asked_by, rule_of
from kickwatch.observe.reasons import REASONS, attribute

CREATE, DESTROY, OTHER = Path.CREATE, Path.DESTROY, Path.OTHER
FLIP = "static_key_slow_inc_cpuslocked static_key_slow_inc"
PURGE = "flush_tlb_kernel_range __purge_vmap_area_lazy"


@pytest.mark.parametrize(
    ("frames", "origin", "path"),
    [
        # The asker outranks the mechanism.
        (f"{FLIP} mem_cgroup_write kernfs_fop_write_iter", Origin.MEMCG, CREATE),
        ("__static_key_slow_dec_cpuslocked static_key_slow_dec mem_cgroup_css_free", Origin.MEMCG, DESTROY),
        (f"{FLIP} io_uring_setup do_syscall_64", Origin.STATIC_KEY, OTHER),
        ("__static_key_slow_dec_cpuslocked jump_label_update_timeout process_one_work", Origin.STATIC_KEY, OTHER),
        (f"{FLIP} tracepoint_add_func perf_trace_event_init perf_tp_event_init", Origin.TRACING, OTHER),
        (f"{FLIP} account_event __do_sys_perf_event_open", Origin.PERF, OTHER),
        ("static_key_enable_cpuslocked sched_group_set_something tg_set_cfs_bandwidth", Origin.CGROUP, CREATE),
        (f"{FLIP} cpuset_css_online online_css cgroup_mkdir", Origin.CGROUP, CREATE),
        (f"{FLIP} __nf_register_net_hook ops_init setup_net copy_net_ns", Origin.NAMESPACE, CREATE),
        (f"{FLIP} __nf_register_net_hook nf_tables_newchain nfnetlink_rcv", Origin.NET, OTHER),
        # BPF under everything it uses, and not on the creation path where the cgroup only holds the program.
        (f"{PURGE} _vm_unmap_aliases vm_reset_perms vfree bpf_jit_free bpf_prog_free_deferred", Origin.BPF, DESTROY),
        ("set_memory_ro bpf_prog_select_runtime bpf_prepare_filter do_seccomp", Origin.BPF, CREATE),
        ("kick_all_cpus_sync bpf_int_jit_compile bpf_prog_select_runtime bpf_prog_load __sys_bpf", Origin.BPF, OTHER),
        (f"{FLIP} __cgroup_bpf_attach cgroup_bpf_prog_attach __sys_bpf", Origin.BPF, CREATE),
        ("static_key_slow_dec cgroup_bpf_release process_one_work", Origin.BPF, DESTROY),
        (f"{FLIP} bpf_enable_stats __sys_bpf", Origin.BPF, OTHER),
        (f"{FLIP} tracepoint_add_func bpf_raw_tp_link_attach __sys_bpf", Origin.TRACING, OTHER),
        ("text_poke_bp modify_fentry bpf_trampoline_update bpf_tracing_prog_attach __sys_bpf", Origin.TRACING, OTHER),
        # Kernel mappings.
        (f"{PURGE} drain_vmap_area_work process_one_work", Origin.VMALLOC, OTHER),
        (f"{PURGE} alloc_vmap_area __vmalloc_node_range_noprof dup_task_struct copy_process", Origin.VMALLOC, OTHER),
        (f"{PURGE} vm_unmap_aliases change_page_attr_set_clr", Origin.BPF, OTHER),  # a recorder cut it here
        (f"{PURGE} vm_unmap_aliases change_page_attr_set_clr set_memory_wc some_driver", Origin.VMALLOC, OTHER),
        # The percpu allocator: its worker, and its growth in somebody's name.
        ("flush_tlb_kernel_range pcpu_balance_workfn process_one_work", Origin.PERCPU, OTHER),
        (f"{PURGE} pcpu_get_vm_areas pcpu_create_chunk pcpu_balance_workfn", Origin.PERCPU, OTHER),
        (f"{PURGE} pcpu_get_vm_areas pcpu_create_chunk pcpu_alloc_noprof a_driver", Origin.PERCPU, CREATE),
        (f"{PURGE} pcpu_get_vm_areas pcpu_create_chunk pcpu_alloc_noprof mem_cgroup_css_alloc", Origin.MEMCG, CREATE),
        (f"{PURGE} pcpu_create_chunk pcpu_alloc_noprof htab_map_alloc __sys_bpf", Origin.BPF, OTHER),
        # Slab, wherever its caches come and go.
        ("kick_all_cpus_sync __do_tune_cpucache do_tune_cpucache enable_cpucache setup_cpu_cache", Origin.SLAB, CREATE),
        ("kick_all_cpus_sync __do_tune_cpucache do_tune_cpucache slabinfo_write", Origin.SLAB, OTHER),
        ("flush_all __kmem_cache_shutdown shutdown_cache kmem_cache_destroy cleanup_net", Origin.SLAB, DESTROY),
        ("__kmem_cache_create create_cache kmem_cache_create ops_init setup_net copy_net_ns", Origin.SLAB, CREATE),
        ("flush_all __kmem_cache_shrink kmem_cache_shrink shrink_store slab_attr_store", Origin.SLAB, OTHER),
        ("on_each_cpu __kmem_cache_shrink __kmemcg_cache_deactivate mem_cgroup_css_offline", Origin.SLAB, DESTROY),
        # An owner answers for whatever it runs.
        ("kick_all_cpus_sync __do_tune_cpucache kmem_cache_create do_init_module", Origin.MODULE, OTHER),
        ("change_page_attr_set_clr set_memory_ro module_enable_ro load_module", Origin.MODULE, OTHER),
        ("flush_tlb_kernel_range vfree do_free_init process_one_work", Origin.MODULE, OTHER),
        # Cgroups, namespaces, the end of processes.
        ("some_new_broadcast cgroup_migrate_execute cgroup_attach_task __cgroup1_procs_write", Origin.CGROUP, CREATE),
        ("some_new_broadcast sched_destroy_group cpu_cgroup_css_free css_free_rwork_fn", Origin.CGROUP, DESTROY),
        ("some_new_broadcast css_killed_work_fn process_one_work", Origin.CGROUP, DESTROY),
        ("some_new_broadcast perf_cgroup_css_alloc css_create cgroup_mkdir", Origin.CGROUP, CREATE),
        ("some_new_broadcast copy_mnt_ns create_new_namespaces copy_namespaces copy_process", Origin.NAMESPACE, CREATE),
        ("some_new_broadcast create_new_namespaces unshare_nsproxy_namespaces ksys_unshare", Origin.NAMESPACE, CREATE),
        ("some_new_broadcast ovl_fill_super vfs_get_tree path_mount", Origin.NAMESPACE, CREATE),
        ("some_new_broadcast free_nsproxy exit_task_namespaces do_exit", Origin.NAMESPACE, DESTROY),
        ("some_new_broadcast default_device_exit_batch ops_undo_list cleanup_net", Origin.NAMESPACE, DESTROY),
        ("some_new_broadcast some_driver_release __fput task_work_run do_exit", Origin.UNKNOWN, DESTROY),
        (f"{FLIP} freezer_apply_state freezer_change_state freezer_write cgroup_file_write", Origin.CGROUP, OTHER),
        # A creation that fails undoes itself: the innermost explains.
        ("some_new_broadcast mem_cgroup_css_free css_create cgroup_mkdir", Origin.MEMCG, DESTROY),
        ("some_new_broadcast ops_undo_list setup_net copy_net_ns", Origin.NAMESPACE, DESTROY),
        # Memory pressure belongs to nobody's creation; nor does a reclaim on request.
        ("some_new_broadcast shrink_node try_to_free_pages pcpu_alloc_noprof cgroup_mkdir", Origin.MM_USER, OTHER),
        ("some_new_broadcast try_to_free_mem_cgroup_pages mem_cgroup_force_empty_write", Origin.MM_USER, OTHER),
        ("some_new_broadcast mem_cgroup_force_empty_write cgroup_file_write", Origin.MEMCG, DESTROY),
        # Block buffers on a container's mount and unmount: seen, and never its fault.
        ("on_each_cpu_cond_mask invalidate_bh_lrus set_blocksize mount_bdev vfs_get_tree", Origin.NAMESPACE, OTHER),
        # Nothing known.
        ("smp_call_function_many_cond some_driver_write vfs_write", Origin.UNKNOWN, OTHER),
        ("0xffffffffc0123456", Origin.UNKNOWN, OTHER),
        ("", Origin.UNKNOWN, OTHER),
    ],
)
def test_who_asked(frames: str, origin: Origin, path: Path) -> None:
    assert asked_by(frames.split()) == (origin, path)


@pytest.mark.parametrize(
    "frame",
    [
        "bpf_prog_6deef7357e7b4530_sd_devices",
        "bpf_trampoline_6442533025",
        "ftrace_trampoline",
        "ftrace_regs_call",
        "kprobe_ftrace_handler",
        "kmem_cache_alloc_noprof",
        "kernfs_fop_write_iter",
        "process_one_work",
        "do_syscall_64",
        "__memcg_slab_post_alloc_hook",
        "copy_process",
        "vfs_write",
    ],
)
def test_bystanders_explain_nothing(frame: str) -> None:
    """They stand in stacks of any kind: traced functions, allocations, roots."""
    assert rule_of(frame) is None


class Elsewhere(NamedTuple):
    """A stack that another kernel left, or must leave by its source, and how it is to be read."""

    source: str
    func: str
    stack: str
    origin: Origin
    path: Path


ELSEWHERE = [
    Elsewhere(
        "4.9.36, linux-mm 20170726165022.10326-1-dmitriyz@waymo.com",
        "do_sync_core",
        "smp_call_function_many+0x1f9/0x260 smp_call_function+0x3b/0x70 on_each_cpu+0x2f/0x90 text_poke_bp+0x87/0xd0"
        " arch_jump_label_transform+0x93/0x100 __jump_label_update+0x77/0x90 jump_label_update+0xaa/0xc0"
        " static_key_slow_inc+0x9e/0xb0 cpuset_css_online+0x70/0x2e0 online_css+0x2c/0xa0"
        " cgroup_apply_control_enable+0x27f/0x3d0 cgroup_mkdir+0x2b7/0x420 kernfs_iop_mkdir+0x5a/0x80"
        " vfs_mkdir+0xf6/0x1a0 SyS_mkdir+0xb7/0xe0 entry_SYSCALL_64_fastpath+0x18/0xad",
        Origin.CGROUP,
        CREATE,
    ),
    Elsewhere(
        "4.14.195 arm64, stable CA+G9fYvi6KSGcZMr4ejFfHee2_NBdXBkYvMm=sVyb174qQ9Dtg@mail.gmail.com",
        "do_nothing",
        "smp_call_function_many+0x2ac/0x348 smp_call_function+0x48/0x90 kick_all_cpus_sync+0x28/0x30"
        " aarch64_insn_patch_text+0xb0/0xc0 arch_jump_label_transform+0x70/0x80 __jump_label_update+0x84/0xa0"
        " jump_label_update+0xdc/0x110 static_key_slow_inc_cpuslocked+0xbc/0xe8 static_key_slow_inc+0x24/0x38"
        " tracepoint_probe_register_prio+0x20c/0x278 tracepoint_probe_register+0x38/0x48 trace_event_reg+0x88/0x98"
        " __ftrace_event_enable_disable+0x15c/0x2e8 __ftrace_set_clr_event_nolock+0xd4/0x130"
        " system_enable_write+0xac/0xf0 __vfs_write+0x48/0x130 vfs_write+0xb0/0x1b8 SyS_write+0x5c/0xc8",
        Origin.TRACING,
        OTHER,
    ),
    Elsewhere(
        "4.15 powerpc, github.com/open-power/op-build issue 2035",
        "set_pstate",
        "smp_call_function_single+0x110/0x180 smp_call_function_any+0x180/0x250 gpstate_timer_handler+0x1e8/0x580"
        " call_timer_fn+0x50/0x1c0 expire_timers+0x138/0x1f0 run_timer_softirq+0x1e8/0x270 __do_softirq+0x158/0x3e4"
        " irq_exit+0xe8/0x120 timer_interrupt+0x9c/0xe0 decrementer_common+0x114/0x120 doorbell_global_ipi+0x34/0x50"
        " arch_send_call_function_ipi_mask+0x4c/0x130 smp_call_function_many+0x340/0x450 pmdp_invalidate+0x98/0xe0"
        " change_huge_pmd+0xe0/0x270 change_protection_range+0xb88/0xe40 mprotect_fixup+0x140/0x340",
        Origin.IRQ,
        OTHER,
    ),
    Elsewhere(
        "5.2-rc5, SLUB, lkml CALvZod6V0BTqPaF7dX3oBkFMQ1cU1yPh_4f4ZVY9k-3opYLziA@mail.gmail.com",
        "flush_cpu_slab",
        "on_each_cpu_mask+0x51/0x70 on_each_cpu_cond_mask+0xab/0x100 __kmem_cache_shrink+0x56/0x320"
        " __kmemcg_cache_deactivate_after_rcu+0xe/0x40 kmemcg_cache_deactivate_after_rcu+0xe/0x20"
        " kmemcg_workfn+0x31/0x50 process_one_work+0x23c/0x5e0 worker_thread+0x3c/0x390 kthread+0x11d/0x140",
        Origin.SLAB,
        DESTROY,
    ),
    Elsewhere(
        "5.6-rc2, lkml 000000000000579488059f8dde90@google.com, below vm_unmap_aliases (mm/vmalloc.c)",
        "do_flush_tlb_all",
        "smp_call_function_many on_each_cpu flush_tlb_kernel_range __purge_vmap_area_lazy"
        " _vm_unmap_aliases+0x442/0x480 vm_unmap_aliases+0x19/0x20 change_page_attr_set_clr+0x22e/0x840"
        " set_memory_ro+0x7b/0xa0 bpf_int_jit_compile+0xebd/0x12ce bpf_prog_select_runtime+0x4b9/0x850"
        " bpf_prepare_filter+0x977/0xd60 __get_filter+0x212/0x2c0 sk_attach_filter+0x1e/0xa0",
        Origin.BPF,
        OTHER,
    ),
    Elsewhere(
        "5.6-rc2, the same report: the program freed",
        "do_flush_tlb_all",
        "flush_tlb_kernel_range __purge_vmap_area_lazy+0xf3b/0x1ef0 _vm_unmap_aliases+0x396/0x480 __vunmap+0x4a1/0x950"
        " __vfree+0x41/0xd0 vfree+0x5f/0x90 module_memfree+0x17/0x30 bpf_jit_free_exec+0x16/0x20"
        " bpf_jit_free+0xc9/0x1c0 bpf_prog_free_deferred+0x333/0x450 process_one_work+0xa05/0x17a0",
        Origin.BPF,
        DESTROY,
    ),
    Elsewhere(
        "5.10-rc4 arm64, virtualization 20201117102341.GR47002@unreal: a module",
        "do_nothing",
        "smp_call_function_many_cond+0x3cc/0x3f0 kick_all_cpus_sync+0x4c/0x80 load_module+0x1eec/0x2734"
        " __do_sys_finit_module+0xbc/0x12c __arm64_sys_finit_module+0x28/0x34 el0_svc_common.constprop.0+0x84/0x200"
        " do_el0_svc+0x2c/0x90 el0_svc+0x18/0x50 el0_sync_handler+0xe0/0x350 el0_sync+0x158/0x180",
        Origin.MODULE,
        OTHER,
    ),
    Elsewhere(
        "5.10-rc4 arm64, the same report: a timer broke into the module's spin-wait",
        "some_timer_request",
        "hrtimer_interrupt+0x290/0x294 arch_timer_handler_virt+0x3c/0x50 handle_percpu_devid_irq+0x94/0x164"
        " __handle_domain_irq+0x84/0xf0 gic_handle_irq+0xd4/0x320 el1_irq+0xd0/0x180 __do_softirq+0x108/0x638"
        " __irq_exit_rcu+0x17c/0x1b0 irq_exit+0x18/0x44 __handle_domain_irq+0x88/0xf0 gic_handle_irq+0xd4/0x320"
        " el1_irq+0xd0/0x180 smp_call_function_many_cond+0x3cc/0x3f0 kick_all_cpus_sync+0x4c/0x80"
        " load_module+0x1eec/0x2734",
        Origin.IRQ,
        OTHER,
    ),
    Elsewhere(
        "5.10 cgroup v2, by source: kernel/bpf/cgroup.c, __cgroup_bpf_attach(): cgroup_bpf_enabled_key",
        "do_sync_core",
        "smp_call_function_many_cond on_each_cpu text_poke_bp_batch text_poke_finish arch_jump_label_transform_apply"
        " __jump_label_update jump_label_update static_key_slow_inc_cpuslocked static_key_slow_inc __cgroup_bpf_attach"
        " cgroup_bpf_attach cgroup_bpf_prog_attach __do_sys_bpf do_syscall_64 entry_SYSCALL_64_after_hwframe",
        Origin.BPF,
        CREATE,
    ),
    Elsewhere(
        "5.19 arm64, netdev 20220718192844.1805158-8-yury.norov@gmail.com",
        "do_nothing",
        "smp_call_function_many_cond+0x1e8/0x45c kick_all_cpus_sync+0x44/0x80 bpf_int_jit_compile+0x34c/0x5cc"
        " bpf_prog_select_runtime+0x118/0x190 bpf_prepare_filter+0x3dc/0x51c __get_filter+0xd4/0x170"
        " sk_attach_filter+0x18/0xb0 sock_setsockopt+0x5b0/0x1214 __sys_setsockopt+0x144/0x170"
        " invoke_syscall+0x48/0x114 el0_svc+0x2c/0x84 el0t_64_sync_handler+0xbc/0x140 el0t_64_sync+0x18c/0x190",
        Origin.BPF,
        OTHER,
    ),
    Elsewhere(
        "6.1 (linux-next 20221220), lkml 000000000000246aa905f0a0f394@google.com: KFENCE",
        "do_sync_core",
        "smp_call_function_many_cond+0x778/0x1090 on_each_cpu_cond_mask+0x5a/0xa0 text_poke_bp_batch+0x3f1/0x6b0"
        " text_poke_finish+0x1a/0x30 arch_jump_label_transform_apply+0x17/0x30 jump_label_update+0x32f/0x410"
        " static_key_disable_cpuslocked+0x156/0x1b0 static_key_disable+0x1a/0x20 toggle_allocation_gate+0x143/0x230"
        " process_one_work+0x9bf/0x1710 worker_thread+0x669/0x1090 kthread+0x2e8/0x3a0 ret_from_fork+0x1f/0x30",
        Origin.STATIC_KEY,
        OTHER,
    ),
    Elsewhere(
        "6.1, by source: kernel/cgroup/cpuset.c, cpuset_css_online(): cpusets_enabled_key",
        "do_sync_core",
        "smp_call_function_many_cond on_each_cpu_cond_mask text_poke_bp_batch text_poke_finish"
        " arch_jump_label_transform_apply __jump_label_update static_key_slow_inc_cpuslocked cpuset_css_online"
        " online_css cgroup_apply_control_enable cgroup_mkdir kernfs_iop_mkdir",
        Origin.CGROUP,
        CREATE,
    ),
    Elsewhere(
        "6.4-rc5, syzbot+2ab700fe1829880a2ec6@syzkaller.appspotmail.com: freezer_active",
        "do_sync_core",
        "smp_call_function_many_cond on_each_cpu_cond_mask text_poke_bp_batch text_poke_finish"
        " arch_jump_label_transform_apply static_key_slow_inc_cpuslocked static_key_slow_inc+0x12/0x30"
        " freezer_css_online+0x4f/0x150 online_css cgroup_apply_control_enable cgroup_mkdir",
        Origin.CGROUP,
        CREATE,
    ),
    Elsewhere(
        "6.10-rc5, mm-commits 20240728211638.AFD91C116B1@smtp.kernel.org",
        "do_kernel_range_flush",
        "smp_call_function_many_cond+0x1d8/0xbb0 on_each_cpu_cond_mask+0x20/0x40 flush_tlb_kernel_range+0x19b/0x250"
        " purge_vmap_node+0x357/0x820 __purge_vmap_area_lazy+0x5b8/0xa10 drain_vmap_area_work+0x21/0x30"
        " process_one_work+0x661/0x10b0 worker_thread+0x844/0x10e0 kthread+0x2a5/0x370 ret_from_fork+0x30/0x70",
        Origin.VMALLOC,
        OTHER,
    ),
    Elsewhere(
        "6.12.67, github.com/home-assistant/operating-system issue 4573: runc enters a cgroup",
        "remote_function",
        "__smp_call_single_queue generic_exec_single smp_call_function_single perf_cgroup_attach cgroup_migrate_execute"
        " cgroup_attach_task __cgroup_procs_write cgroup_procs_write kernfs_fop_write_iter vfs_write",
        Origin.PERF,
        CREATE,
    ),
    Elsewhere(
        "6.12 arm64, by source: arch/arm64/kernel/jump_label.c, arch_jump_label_transform_apply()",
        "do_nothing",
        "smp_call_function_many_cond kick_all_cpus_sync arch_jump_label_transform_apply __jump_label_update"
        " jump_label_update static_key_slow_inc_cpuslocked static_key_slow_inc mem_cgroup_write kernfs_fop_write_iter"
        " vfs_write ksys_write __arm64_sys_write invoke_syscall el0_svc el0t_64_sync_handler el0t_64_sync",
        Origin.MEMCG,
        CREATE,
    ),
    Elsewhere(
        "powerpc, commit 547b9ad698b4: ext4 unmounted",
        "invalidate_bh_lru",
        "on_each_cpu_mask+0xa8/0x130 on_each_cpu_cond_mask+0x130/0x170 invalidate_bh_lrus+0x44/0x60"
        " invalidate_bdev+0x38/0x70 ext4_put_super+0x294/0x560 generic_shutdown_super+0xb0/0x170"
        " kill_block_super+0x38/0xb0 deactivate_locked_super+0xa4/0xf0 cleanup_mnt+0x164/0x1d0"
        " task_work_run+0x110/0x160",
        Origin.NAMESPACE,
        OTHER,
    ),
]


@pytest.mark.parametrize("case", ELSEWHERE, ids=lambda case: case.source)
def test_other_kernels(case: Elsewhere) -> None:
    told = attribute(case.func, case.stack.split())
    assert (told.origin, told.path) == (case.origin, case.path)


# Properties, over stacks that were recorded and frames that were not.
RECORDED = FilePath(__file__).parents[2] / "fixtures" / "captures" / "6.18-slub-docker.json"
STACKS = [
    (row["func"], [frame.split("+")[0] for frame in row["stack"]])
    for window in json.loads(RECORDED.read_text())["windows"]
    for row in window["requests"]
] + [(case.func, [frame.split("+")[0] for frame in case.stack.split()]) for case in ELSEWHERE]
FUNCS = [func for reason in REASONS for func in reason.funcs]
FRAMES = sorted({frame for _, stack in STACKS for frame in stack})
ENTRIES = ["asm_sysvec_apic_timer_interrupt", "asm_common_interrupt", "apic_timer_interrupt", "el1h_64_irq", "el1_irq"]

recorded = st.sampled_from(STACKS)
funcs = st.sampled_from(FUNCS)
frames = st.lists(st.sampled_from(FRAMES), max_size=12)
decorations = st.sampled_from(["", ".isra.0", ".constprop.0", ".part.0", ".cold", ".constprop.0.isra.0"])
offsets = st.sampled_from(["", "+0", "+176", "+0x1f/0x260", "+0x12/0x30 [veth]"])


@given(funcs, frames, st.sampled_from(ENTRIES), frames, frames)
def test_frames_below_an_interrupt_entry_change_nothing(
    func: str, inside: list[str], entry: str, below: list[str], other: list[str]
) -> None:
    assert attribute(func, [*inside, entry, *below]) == attribute(func, [*inside, entry, *other])


@given(recorded, st.data())
def test_suffixes_and_offsets_change_nothing(row: tuple[str, list[str]], data: st.DataObject) -> None:
    func, stack = row
    decorated = [frame + data.draw(decorations) + data.draw(offsets) for frame in stack]
    assert attribute(func + data.draw(decorations), decorated) == attribute(func, stack)


@given(recorded, st.lists(st.sampled_from(["vfs_write", "process_one_work", "do_syscall_64", "kthread"]), max_size=4))
def test_roots_change_nothing(row: tuple[str, list[str]], roots: list[str]) -> None:
    func, stack = row
    assert attribute(func, [*stack, *roots]) == attribute(func, stack)


@given(frames)
def test_a_frame_of_higher_rank_is_never_outvoted(stack: list[str]) -> None:
    """Whatever stands around it, a loading module answers."""
    assert asked_by([*stack, "load_module"])[0] is Origin.MODULE


def test_every_rule_tells_something_and_is_reachable() -> None:
    assert all(rule.origin or rule.path for rule in RULES)
    seen = {rule_of(frame) for _, stack in STACKS for frame in stack}
    assert len(seen - {None}) > len(RULES) // 2


@pytest.mark.parametrize(
    ("innermost", "outermost", "path"),
    [
        ("alloc_shrinker_info", "mem_cgroup_css_online", Path.CREATE),
        ("memcg_expand_one_shrinker_map", "mem_cgroup_css_online", Path.CREATE),
        ("free_shrinker_info", "mem_cgroup_css_free", Path.DESTROY),
        ("memcg_free_shrinker_maps", "mem_cgroup_css_free", Path.DESTROY),
    ],
)
def test_what_is_made_with_a_memcg_is_given_back_with_it(innermost: str, outermost: str, path: Path) -> None:
    stack = ("smp_call_function_many_cond", "on_each_cpu_cond_mask", "flush_tlb_kernel_range", "vfree", "kvfree")
    told = attribute("do_kernel_range_flush", (*stack, innermost, outermost))
    assert (told.origin, told.path) == (Origin.MEMCG, path)
