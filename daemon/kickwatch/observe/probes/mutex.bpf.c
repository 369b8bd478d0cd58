// SPDX-License-Identifier: GPL-2.0
/*
 * Who waits for slab_mutex, for how long, and who holds it, on kernels without lock:contention_begin (before 5.19):
 * entry and return of __mutex_lock(struct mutex *lock, ...), the one slow path of all ways to lock a mutex. It is where
 * the tracepoints were put later: a task enters it when the fast path found an owner, and leaves it with the mutex.
 *
 * The return does not tell which mutex it was: a task waits for one at a time, so its own begin does.
 *
 * No BTF of the kernel, no loops, no global data: for the verifier of 4.18.
 */
#include "waits.h"

#include <asm/ptrace.h>
#include <bpf/bpf_tracing.h>

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
