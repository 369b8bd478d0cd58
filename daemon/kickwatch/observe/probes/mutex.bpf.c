// SPDX-License-Identifier: GPL-2.0
/*
 * Who waits for slab_mutex, for how long, and who holds it, on kernels without lock:contention_begin (before 5.19): entry
 * and return of __mutex_lock(struct mutex *lock, ...), the common slow path of all functions that lock a mutex. Later
 * kernels have the tracepoints there. A task enters it if the fast path found an owner, and leaves it with the mutex.
 *
 * The return does not tell which mutex it was, but a task waits for one at a time: the begin of its wait tells.
 *
 * Without BTF of the kernel, loops and global data: for the verifier of 4.18.
 */
#define AT_FUNCTION_ENTRY
#include "waits.h"

SEC("kprobe")
int mutex_begin(struct pt_regs *ctx)
{
	__u64 lock = PT_REGS_PARM1(ctx);
	__u32 zero = 0;
	struct contention_config *cfg = bpf_map_lookup_elem(&config, &zero);

	if (!cfg || cfg->paused || (cfg->slab_mutex && lock != cfg->slab_mutex))
		return 0;
	return wait_begins(ctx, cfg, lock);
}

SEC("kretprobe")
int mutex_end(struct pt_regs *ctx)
{
	__u32 zero = 0, tid = (__u32)bpf_get_current_pid_tgid();
	struct contention_config *cfg = bpf_map_lookup_elem(&config, &zero);
	struct waiting *begun;

	(void)ctx;
	if (!cfg || cfg->paused)
		return 0;
	begun = bpf_map_lookup_elem(&waiting, &tid);
	if (!begun || begun->task != bpf_get_current_task() || (cfg->slab_mutex && begun->lock != cfg->slab_mutex))
		return 0;
	return wait_ends(cfg, begun, tid);
}

char _license[] SEC("license") = "GPL";
