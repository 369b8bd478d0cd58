"""Origins and paths of stacks, by rank and by distance from the request."""

import pytest

from kickwatch.attribution.origins import asked_by, rule_of
from kickwatch.model import Origin, Path

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
        # BPF outranks all that it uses, and is not on the creation path where the cgroup only holds the program.
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
        (f"{PURGE} vm_unmap_aliases change_page_attr_set_clr", Origin.BPF, OTHER),  # cut here by a recorder
        (f"{PURGE} vm_unmap_aliases change_page_attr_set_clr set_memory_wc some_driver", Origin.VMALLOC, OTHER),
        # The percpu allocator: its worker, and chunks allocated on behalf of others.
        ("flush_tlb_kernel_range pcpu_balance_workfn process_one_work", Origin.PERCPU, OTHER),
        (f"{PURGE} pcpu_get_vm_areas pcpu_create_chunk pcpu_balance_workfn", Origin.PERCPU, OTHER),
        (f"{PURGE} pcpu_get_vm_areas pcpu_create_chunk pcpu_alloc_noprof a_driver", Origin.PERCPU, CREATE),
        (f"{PURGE} pcpu_get_vm_areas pcpu_create_chunk pcpu_alloc_noprof mem_cgroup_css_alloc", Origin.MEMCG, CREATE),
        (f"{PURGE} pcpu_create_chunk pcpu_alloc_noprof htab_map_alloc __sys_bpf", Origin.BPF, OTHER),
        # Slab, wherever its caches are created and destroyed.
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
        (f"{FLIP} freezer_apply_state freezer_change_state freezer_write cgroup_file_write", Origin.FREEZER, OTHER),
        # A creation that fails is undone: the innermost frame explains.
        ("some_new_broadcast mem_cgroup_css_free css_create cgroup_mkdir", Origin.MEMCG, DESTROY),
        ("some_new_broadcast ops_undo_list setup_net copy_net_ns", Origin.NAMESPACE, DESTROY),
        # Memory pressure is no part of a creation; a reclaim on request is not one either.
        ("some_new_broadcast shrink_node try_to_free_pages pcpu_alloc_noprof cgroup_mkdir", Origin.MM_USER, OTHER),
        ("some_new_broadcast try_to_free_mem_cgroup_pages mem_cgroup_force_empty_write", Origin.MM_USER, OTHER),
        ("some_new_broadcast mem_cgroup_force_empty_write cgroup_file_write", Origin.MEMCG, DESTROY),
        # Block buffers on a container's mount and unmount: counted, but never on the creation path.
        ("on_each_cpu_cond_mask invalidate_bh_lrus set_blocksize mount_bdev vfs_get_tree", Origin.NAMESPACE, OTHER),
        # Nothing is known.
        ("smp_call_function_many_cond some_driver_write vfs_write", Origin.UNKNOWN, OTHER),
        ("0xffffffffc0123456", Origin.UNKNOWN, OTHER),
        ("", Origin.UNKNOWN, OTHER),
    ],
)
def test_origin_and_path_of_frames(frames: str, origin: Origin, path: Path) -> None:
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
def test_frames_that_explain_nothing(frame: str) -> None:
    """They are in stacks of every kind: traced functions, allocations, outermost frames."""
    assert rule_of(frame) is None
