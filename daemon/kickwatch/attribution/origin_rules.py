"""Which part of the kernel, and which end of a container's life, each kernel function tells: the table of origins.

Each frame of a stack is looked up here, the first match wins; `origins` weighs what the frames tell.
"""

from dataclasses import dataclass
from enum import IntEnum

from kickwatch.attribution.stacks import Matcher, matcher
from kickwatch.model import Origin, Path


class Rank(IntEnum):
    """Which frames of a stack explain a request first: the lowest rank."""

    OWNER = 0
    ASKER = 1
    SERVICE = 2
    MECHANISM = 3


@dataclass(frozen=True)
class OriginRule:
    """What a frame of one of these functions tells about the request. None: nothing, other frames may tell."""

    rank: Rank
    origin: Origin | None
    path: Path | None
    functions: Matcher


def _rule(rank: Rank, origin: Origin | None, path: Path | None, functions: str) -> OriginRule:
    return OriginRule(rank, origin, path, matcher(functions))


_CREATE, _DESTROY, _OTHER = Path.CREATE, Path.DESTROY, Path.OTHER
_OWNER, _ASKER, _SERVICE, _MECHANISM = Rank.OWNER, Rank.ASKER, Rank.SERVICE, Rank.MECHANISM

RULES: tuple[OriginRule, ...] = (
    # A module loads once, whichever task needs it first. On arm64 every load interrupts all CPUs: "arm64: IPI each CPU
    # after invalidating the I-cache for kernel mappings" (4.19).
    _rule(
        _OWNER,
        Origin.MODULE,
        _OTHER,
        "load_module do_init_module init_module_from_file idempotent_init_module free_module do_free_init"
        " *_sys_init_module *_sys_finit_module *_sys_delete_module complete_formation",
    ),
    # A probe is armed or disarmed: each tracepoint is a static key, and also a static call since "tracepoint: Optimize
    # using static_call()" (5.10). Listed one by one, since ftrace_*, kprobe_* and bpf_trampoline_<n> are also in the
    # stacks of functions that are being traced.
    _rule(
        _ASKER,
        Origin.TRACING,
        _OTHER,
        "tracepoint_* trace_event_reg *ftrace_event_enable_disable __ftrace_set_clr_event* event_enable_write"
        " system_enable_write tracing_* ftrace_startup ftrace_shutdown ftrace_run_update_code ftrace_modify_all_code"
        " arch_ftrace_update_* ftrace_update_trampoline register_ftrace_* unregister_ftrace_* register_fentry"
        " unregister_fentry modify_fentry perf_trace_event_* perf_trace_init perf_trace_destroy perf_kprobe_*"
        " perf_uprobe_* create_local_trace_* register_kprobe* unregister_kprobe* *arm_kprobe* enable_kprobe"
        " disable_kprobe kprobe_optimizer arch_optimize_kprobes enable_trace_kprobe bpf_raw_tp_link_*"
        " bpf_raw_tracepoint_* bpf_tracing_* bpf_trampoline_update *bpf_trampoline_*link_prog"
        " bpf_trampoline_link_cgroup_shim klp_*",
    ),
    # Slab caches. Until "mm: memcg/slab: use a single set of kmem_caches for all accounted allocations" (5.9) each
    # memcg had its own caches, created by a kworker.
    _rule(
        _ASKER,
        Origin.SLAB,
        _CREATE,
        "kmem_cache_create* __kmem_cache_create* do_kmem_cache_create create_cache memcg_create_kmem_cache"
        " memcg_kmem_cache_create_func setup_cpu_cache enable_cpucache",
    ),
    # Caches are deactivated when a memcg goes offline since "slab: introduce __kmemcg_cache_deactivate()" (4.11).
    _rule(
        _ASKER,
        Origin.SLAB,
        _DESTROY,
        "kmem_cache_destroy shutdown_cache __kmem_cache_shutdown kmem_cache_close *kmemcg_cache_deact*"
        " kmemcg_cache_shutdown* kmemcg_workfn kmemcg_deactivate_workfn kmemcg_queue_* memcg_deactivate_kmem_caches"
        " memcg_destroy_kmem_caches memcg_offline_kmem slab_caches_to_rcu_destroy_workfn slab_kmem_cache_release",
    ),
    _rule(
        _ASKER,
        Origin.SLAB,
        _OTHER,
        "slab_start slab_next slab_show slab_stop memcg_slab_start slabinfo_write slab_attr_store shrink_store"
        " slab_memory_callback slab_mem_*_callback",
    ),
    _rule(
        _ASKER,
        Origin.SLAB,
        None,
        "__kmem_cache_shrink __kmem_cache_do_shrink kmem_cache_shrink do_tune_cpucache __do_tune_cpucache"
        " drain_cpu_caches flush_all flush_all_cpus_locked flush_rcu_sheaves_on_cache",
    ),
    # Memory pressure, whichever task runs into it, and the memory of processes.
    _rule(
        _ASKER,
        Origin.MM_USER,
        _OTHER,
        "try_to_free_pages try_to_free_mem_cgroup_pages shrink_node shrink_slab kswapd balance_pgdat compact_zone"
        " try_to_compact_pages kcompactd migrate_pages collapse_huge_page khugepaged* hpage_collapse_scan_*"
        " handle_mm_fault exit_mmap do_madvise mprotect_fixup unmap_region flush_tlb_mm_range flush_tlb_page"
        " tlb_finish_mmu tlb_flush_mmu* tlb_remove_table* try_to_unmap_flush* ptep_clear_flush arch_tlbbatch_flush"
        " drain_all_pages",
    ),
    # Memory cgroups.
    _rule(
        _ASKER,
        Origin.MEMCG,
        _CREATE,
        "mem_cgroup_css_alloc mem_cgroup_css_online mem_cgroup_alloc mem_cgroup_write memory_max_write"
        " memory_high_write memory_low_write memory_min_write swap_max_write swap_high_write mem_cgroup_resize_*"
        " mem_cgroup_hierarchy_write mem_cgroup_swappiness_write memcg_update_* memcg_online_kmem"
        " memcg_alloc_cache_id memcg_init_list_lru* alloc_shrinker_info expand_shrinker_info expand_one_shrinker_info"
        " memcg_alloc_shrinker_maps memcg_expand_*shrinker_map* tcp_init_cgroup tcp_update_limit",
    ),
    _rule(
        _ASKER,
        Origin.MEMCG,
        _DESTROY,
        "mem_cgroup_css_offline mem_cgroup_css_released mem_cgroup_css_free mem_cgroup_free __mem_cgroup_free"
        " mem_cgroup_force_empty* memcg_free_kmem memcg_free_cache_id memcg_reparent_* tcp_destroy_cgroup"
        " free_shrinker_info memcg_free_shrinker_maps",
    ),
    _rule(_ASKER, Origin.MEMCG, _OTHER, "memory_reclaim mem_cgroup_out_of_memory drain_all_stock"),
    # BPF programs and their JIT. Before "bpf: Introduce bpf_prog_pack allocator" (5.18) each program on x86 had its own
    # pages, and making them read-only and freeing them broadcast: four times for a container's seccomp filter. arm64
    # still interrupts all CPUs for each program. runc attaches a device program to each container's cgroup (v2): if it
    # is the only one attached, that flips cgroup_bpf_enabled_key, which is a cost of BPF, not of the cgroup.
    _rule(
        _ASKER,
        Origin.BPF,
        _DESTROY,
        "bpf_prog_free_deferred *seccomp_filter_release *put_seccomp_filter* cgroup_bpf_release* *cgroup_bpf_*detach"
        " cgroup_bpf_offline",
    ),
    _rule(_ASKER, Origin.BPF, _CREATE, "seccomp_* do_seccomp prctl_set_seccomp *cgroup_bpf_*attach cgroup_bpf_replace"),
    _rule(_ASKER, Origin.BPF, None, "bpf_prepare_filter bpf_prog_create* bpf_migrate_filter sk_attach_filter"),
    _rule(_ASKER, Origin.BPF, _OTHER, "bpf_prog_load bpf_check __sys_bpf bpf_stats_handler bpf_enable_stats"),
    # Perf: cgroup events are switched on each CPU that runs a task which is moved: "perf: Add cgroup support" (2.6.39).
    _rule(_ASKER, Origin.CGROUP, _CREATE, "perf_cgroup_css_alloc perf_cgroup_css_online"),
    _rule(_ASKER, Origin.CGROUP, _DESTROY, "perf_cgroup_css_free"),
    _rule(_ASKER, Origin.PERF, None, "perf_cgroup_attach perf_cgroup_switch"),
    _rule(
        _ASKER,
        Origin.PERF,
        _OTHER,
        "perf_* _perf_ioctl __perf_event_* event_function_call *_sys_perf_event_open account_event unaccount_event",
    ),
    _rule(_ASKER, Origin.MEMBARRIER, _OTHER, "membarrier_* *_sys_membarrier sync_runqueues_membarrier_state"),
    # Pausing and resuming: no container begins or ends. On cgroup v1 the first frozen cgroup switches freezer_active on
    # and the last one off: "freezer,sched: Rewrite core freezer logic" (6.1).
    _rule(_ASKER, Origin.FREEZER, _OTHER, "freezer_write freezer_change_state freezer_apply_state cgroup_freeze_write"),
    # Other cgroup controllers, and cgroups themselves. Limits are written when a container starts.
    _rule(
        _ASKER,
        Origin.CGROUP,
        _CREATE,
        "cgroup_mkdir cgroup_create css_create online_css init_and_link_css cgroup_apply_control"
        " cgroup_apply_control_enable cgroup_subtree_control_write cgroup_file_write *cgroup_procs_write"
        " *cgroup1_procs_write *cgroup_tasks_write *cgroup1_tasks_write cgroup_attach_task* cgroup_migrate*"
        " cgroup_update_dfl_csses cgroup_can_fork cgroup_post_fork *_css_alloc *_css_online cpuset_write_*"
        " cpuset_attach cpu_max_write cpu_cfs_*_write_* tg_set_cfs_bandwidth cpu_uclamp_*_write cpu_weight_*write*"
        " cpu_shares_write_u64 cpu_rt_*_write pids_max_write blkcg_* tg_set_conf* hugetlb_cgroup_*write*"
        " sched_create_group",
    ),
    _rule(
        _ASKER,
        Origin.CGROUP,
        _DESTROY,
        "cgroup_rmdir cgroup_destroy_locked kill_css css_killed_* css_free_* css_release* offline_css"
        " cgroup_apply_control_disable cgroup_kill_write cgroup_exit cgroup_free *_css_offline *_css_released"
        " *_css_free sched_destroy_group sched_release_group sched_offline_group destroy_cfs_bandwidth",
    ),
    _rule(_ASKER, Origin.CGROUP, None, "cgroup_* cgroup1_* cpuset_*"),
    # Namespaces and the mounts of a container.
    _rule(
        _ASKER,
        Origin.NAMESPACE,
        _CREATE,
        "copy_namespaces create_new_namespaces unshare_nsproxy_namespaces ksys_unshare *_sys_unshare *_sys_setns"
        " commit_nsset copy_net_ns setup_net ops_init copy_mnt_ns copy_pid_ns copy_ipcs copy_utsname copy_time_ns"
        " copy_cgroup_ns create_user_ns unshare_userns path_mount do_mount ksys_mount *_sys_mount do_new_mount"
        " vfs_get_tree *_sys_fsmount *_sys_move_mount path_pivot_root *_sys_pivot_root",
    ),
    _rule(
        _ASKER,
        Origin.NAMESPACE,
        _DESTROY,
        "cleanup_net ops_undo_* ops_exit_list ops_pre_exit_list ops_free_list free_nsproxy switch_task_namespaces"
        " exit_task_namespaces exit_nsproxy_namespaces deactivate_nsproxy put_mnt_ns free_mnt_ns cleanup_mnt"
        " delayed_mntput drop_collected_mounts umount_tree do_umount path_umount ksys_umount *_sys_umount"
        " zap_pid_ns_processes free_pid_ns put_pid_ns destroy_pid_namespace* free_ipc free_ipc_ns put_ipc_ns"
        " free_user_ns free_uts_ns free_cgroup_ns fqdir_free_* fqdir_work_fn default_device_exit_*"
        " kern_unmount_array deactivate_super deactivate_locked_super generic_shutdown_super",
    ),
    _rule(_ASKER, Origin.NAMESPACE, None, "namespace_unlock"),
    # A block device's buffers, on mount, umount and page migration: only CPUs that hold some are asked, "fs: only send
    # IPI to invalidate LRU BH when needed" (3.4). Never a fault of creating containers, whichever mount it serves.
    _rule(_OWNER, None, _OTHER, "invalidate_bh_lrus"),
    # The percpu allocator's own worker frees chunks: known, harmless, and not part of a container's creation.
    _rule(_ASKER, Origin.PERCPU, _OTHER, "pcpu_balance_workfn"),
    _rule(_SERVICE, Origin.PERCPU, _CREATE, "pcpu_alloc pcpu_alloc_noprof __alloc_percpu*"),
    _rule(_SERVICE, Origin.PERCPU, None, "pcpu_* free_percpu"),
    _rule(
        _SERVICE, Origin.BPF, _DESTROY, "bpf_jit_free bpf_jit_free_exec bpf_jit_binary_free bpf_jit_binary_pack_free"
    ),
    _rule(
        _SERVICE,
        Origin.BPF,
        None,
        "bpf_prog_select_runtime bpf_int_jit_compile bpf_jit_* bpf_prog_pack_* bpf_arch_text_* jit_subprogs"
        " bpf_prog_free bpf_dispatcher_*",
    ),
    _rule(
        _SERVICE,
        Origin.RCU,
        None,
        "rcu_* _rcu_barrier synchronize_rcu* sync_rcu_exp_* __sync_rcu_exp_* wait_rcu_exp_gp kvfree_rcu_barrier*",
    ),
    _rule(_SERVICE, Origin.SCHED, None, "try_to_wake_up ttwu_* __ttwu_* sched_* __schedule hrtick_* kick_ilb"),
    _rule(
        _SERVICE,
        Origin.NET,
        None,
        "netdev_* register_netdev* unregister_netdev* rtnl_* rtnetlink_* netlink_* __dev_change_net_namespace netif_*"
        " net_enable_timestamp net_disable_timestamp netstamp_clear *nf_register_net_hook* *nf_unregister_net_hook*"
        " nf_* nft_* xt_* ipt_* ip6t_* tc_* tcp_* udp_* udpv6_* setup_udp_tunnel_sock inet_* inet6_* sock_* sk_*"
        " br_* veth_*",
    ),
    _rule(_SERVICE, None, _DESTROY, "do_exit do_group_exit release_task delayed_put_task_struct"),
    _rule(
        _MECHANISM,
        Origin.STATIC_KEY,
        None,
        "static_key_* __static_key_* jump_label_* __jump_label_update arch_jump_label_* static_call_*"
        " __static_call_* arch_static_call_*",
    ),
    # Mappings of the kernel itself: unmapped lazily since "mm: rewrite vmap layer" (2.6.28), and flushed on all CPUs
    # once enough have been collected, by whichever task adds the last one.
    _rule(
        _MECHANISM,
        Origin.VMALLOC,
        None,
        "flush_tlb_kernel_range __purge_vmap_area_lazy purge_vmap_area_lazy try_purge_vmap_area_lazy purge_vmap_node"
        " drain_vmap_area_work *vm_unmap_aliases vm_reset_perms vfree __vfree __vunmap vunmap remove_vm_area"
        " free_vmap_area_noflush delayed_vfree_work alloc_vmap_area __vmalloc_* change_page_attr_set_clr"
        " __change_page_attr* set_memory_* cpa_flush change_memory_common",
    ),
)
