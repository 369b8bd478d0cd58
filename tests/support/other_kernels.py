"""Stacks of other kernels than the recorded ones: from published reports, or as the source says they must be."""

from typing import NamedTuple

from kickwatch.model import Origin, Path

CREATE, DESTROY, OTHER = Path.CREATE, Path.DESTROY, Path.OTHER


class OtherKernel(NamedTuple):
    """A stack, its source, and its right origin and path."""

    source: str
    func: str
    stack: str
    origin: Origin
    path: Path


OTHER_KERNELS = [
    OtherKernel(
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
    OtherKernel(
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
    OtherKernel(
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
    OtherKernel(
        "5.2-rc5, SLUB, lkml CALvZod6V0BTqPaF7dX3oBkFMQ1cU1yPh_4f4ZVY9k-3opYLziA@mail.gmail.com",
        "flush_cpu_slab",
        "on_each_cpu_mask+0x51/0x70 on_each_cpu_cond_mask+0xab/0x100 __kmem_cache_shrink+0x56/0x320"
        " __kmemcg_cache_deactivate_after_rcu+0xe/0x40 kmemcg_cache_deactivate_after_rcu+0xe/0x20"
        " kmemcg_workfn+0x31/0x50 process_one_work+0x23c/0x5e0 worker_thread+0x3c/0x390 kthread+0x11d/0x140",
        Origin.SLAB,
        DESTROY,
    ),
    OtherKernel(
        "5.6-rc2, lkml 000000000000579488059f8dde90@google.com, below vm_unmap_aliases (mm/vmalloc.c)",
        "do_flush_tlb_all",
        "smp_call_function_many on_each_cpu flush_tlb_kernel_range __purge_vmap_area_lazy"
        " _vm_unmap_aliases+0x442/0x480 vm_unmap_aliases+0x19/0x20 change_page_attr_set_clr+0x22e/0x840"
        " set_memory_ro+0x7b/0xa0 bpf_int_jit_compile+0xebd/0x12ce bpf_prog_select_runtime+0x4b9/0x850"
        " bpf_prepare_filter+0x977/0xd60 __get_filter+0x212/0x2c0 sk_attach_filter+0x1e/0xa0",
        Origin.BPF,
        OTHER,
    ),
    OtherKernel(
        "5.6-rc2, the same report: the program freed",
        "do_flush_tlb_all",
        "flush_tlb_kernel_range __purge_vmap_area_lazy+0xf3b/0x1ef0 _vm_unmap_aliases+0x396/0x480 __vunmap+0x4a1/0x950"
        " __vfree+0x41/0xd0 vfree+0x5f/0x90 module_memfree+0x17/0x30 bpf_jit_free_exec+0x16/0x20"
        " bpf_jit_free+0xc9/0x1c0 bpf_prog_free_deferred+0x333/0x450 process_one_work+0xa05/0x17a0",
        Origin.BPF,
        DESTROY,
    ),
    OtherKernel(
        "5.10-rc4 arm64, virtualization 20201117102341.GR47002@unreal: a module",
        "do_nothing",
        "smp_call_function_many_cond+0x3cc/0x3f0 kick_all_cpus_sync+0x4c/0x80 load_module+0x1eec/0x2734"
        " __do_sys_finit_module+0xbc/0x12c __arm64_sys_finit_module+0x28/0x34 el0_svc_common.constprop.0+0x84/0x200"
        " do_el0_svc+0x2c/0x90 el0_svc+0x18/0x50 el0_sync_handler+0xe0/0x350 el0_sync+0x158/0x180",
        Origin.MODULE,
        OTHER,
    ),
    OtherKernel(
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
    OtherKernel(
        "5.10 cgroup v2, by source: kernel/bpf/cgroup.c, __cgroup_bpf_attach(): cgroup_bpf_enabled_key",
        "do_sync_core",
        "smp_call_function_many_cond on_each_cpu text_poke_bp_batch text_poke_finish arch_jump_label_transform_apply"
        " __jump_label_update jump_label_update static_key_slow_inc_cpuslocked static_key_slow_inc __cgroup_bpf_attach"
        " cgroup_bpf_attach cgroup_bpf_prog_attach __do_sys_bpf do_syscall_64 entry_SYSCALL_64_after_hwframe",
        Origin.BPF,
        CREATE,
    ),
    OtherKernel(
        "5.19 arm64, netdev 20220718192844.1805158-8-yury.norov@gmail.com",
        "do_nothing",
        "smp_call_function_many_cond+0x1e8/0x45c kick_all_cpus_sync+0x44/0x80 bpf_int_jit_compile+0x34c/0x5cc"
        " bpf_prog_select_runtime+0x118/0x190 bpf_prepare_filter+0x3dc/0x51c __get_filter+0xd4/0x170"
        " sk_attach_filter+0x18/0xb0 sock_setsockopt+0x5b0/0x1214 __sys_setsockopt+0x144/0x170"
        " invoke_syscall+0x48/0x114 el0_svc+0x2c/0x84 el0t_64_sync_handler+0xbc/0x140 el0t_64_sync+0x18c/0x190",
        Origin.BPF,
        OTHER,
    ),
    OtherKernel(
        "6.1 (linux-next 20221220), lkml 000000000000246aa905f0a0f394@google.com: KFENCE",
        "do_sync_core",
        "smp_call_function_many_cond+0x778/0x1090 on_each_cpu_cond_mask+0x5a/0xa0 text_poke_bp_batch+0x3f1/0x6b0"
        " text_poke_finish+0x1a/0x30 arch_jump_label_transform_apply+0x17/0x30 jump_label_update+0x32f/0x410"
        " static_key_disable_cpuslocked+0x156/0x1b0 static_key_disable+0x1a/0x20 toggle_allocation_gate+0x143/0x230"
        " process_one_work+0x9bf/0x1710 worker_thread+0x669/0x1090 kthread+0x2e8/0x3a0 ret_from_fork+0x1f/0x30",
        Origin.STATIC_KEY,
        OTHER,
    ),
    OtherKernel(
        "6.1, by source: kernel/cgroup/cpuset.c, cpuset_css_online(): cpusets_enabled_key",
        "do_sync_core",
        "smp_call_function_many_cond on_each_cpu_cond_mask text_poke_bp_batch text_poke_finish"
        " arch_jump_label_transform_apply __jump_label_update static_key_slow_inc_cpuslocked cpuset_css_online"
        " online_css cgroup_apply_control_enable cgroup_mkdir kernfs_iop_mkdir",
        Origin.CGROUP,
        CREATE,
    ),
    OtherKernel(
        "6.4-rc5, syzbot+2ab700fe1829880a2ec6@syzkaller.appspotmail.com: freezer_active",
        "do_sync_core",
        "smp_call_function_many_cond on_each_cpu_cond_mask text_poke_bp_batch text_poke_finish"
        " arch_jump_label_transform_apply static_key_slow_inc_cpuslocked static_key_slow_inc+0x12/0x30"
        " freezer_css_online+0x4f/0x150 online_css cgroup_apply_control_enable cgroup_mkdir",
        Origin.CGROUP,
        CREATE,
    ),
    OtherKernel(
        "6.10-rc5, mm-commits 20240728211638.AFD91C116B1@smtp.kernel.org",
        "do_kernel_range_flush",
        "smp_call_function_many_cond+0x1d8/0xbb0 on_each_cpu_cond_mask+0x20/0x40 flush_tlb_kernel_range+0x19b/0x250"
        " purge_vmap_node+0x357/0x820 __purge_vmap_area_lazy+0x5b8/0xa10 drain_vmap_area_work+0x21/0x30"
        " process_one_work+0x661/0x10b0 worker_thread+0x844/0x10e0 kthread+0x2a5/0x370 ret_from_fork+0x30/0x70",
        Origin.VMALLOC,
        OTHER,
    ),
    OtherKernel(
        "6.12.67, github.com/home-assistant/operating-system issue 4573: runc enters a cgroup",
        "remote_function",
        "__smp_call_single_queue generic_exec_single smp_call_function_single perf_cgroup_attach cgroup_migrate_execute"
        " cgroup_attach_task __cgroup_procs_write cgroup_procs_write kernfs_fop_write_iter vfs_write",
        Origin.PERF,
        CREATE,
    ),
    OtherKernel(
        "6.12 arm64, by source: arch/arm64/kernel/jump_label.c, arch_jump_label_transform_apply()",
        "do_nothing",
        "smp_call_function_many_cond kick_all_cpus_sync arch_jump_label_transform_apply __jump_label_update"
        " jump_label_update static_key_slow_inc_cpuslocked static_key_slow_inc mem_cgroup_write kernfs_fop_write_iter"
        " vfs_write ksys_write __arm64_sys_write invoke_syscall el0_svc el0t_64_sync_handler el0t_64_sync",
        Origin.MEMCG,
        CREATE,
    ),
    OtherKernel(
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
