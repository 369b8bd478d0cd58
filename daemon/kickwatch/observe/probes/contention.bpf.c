// SPDX-License-Identifier: GPL-2.0
/*
 * Who waits for slab_mutex, for how long, and who holds it: the first rung.
 *
 * Tracepoints lock:contention_begin(void *lock, unsigned int flags) and lock:contention_end(void *lock, int ret),
 * since 5.19 ("locking: Add lock contention tracepoints").
 */
#include "waits.h"

#define LCB_F_MUTEX 32 /* include/trace/events/lock.h; most begins have further bits */

SEC("raw_tp/contention_begin")
int contention_begin(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 lock = ctx->args[0];
	__u32 zero = 0;
	struct contention_config *cfg;

	cfg = bpf_map_lookup_elem(&config, &zero);
	if (!cfg || cfg->paused)
		return 0;
	/* On PREEMPT_RT mutexes and spinlocks have another flag (LCB_F_RT); a known address needs no flag. */
	if (cfg->slab_mutex ? lock != cfg->slab_mutex : !(ctx->args[1] & LCB_F_MUTEX))
		return 0;
	return wait_begins(ctx, cfg, lock);
}

SEC("raw_tp/contention_end")
int contention_end(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 lock = ctx->args[0];
	__u32 zero = 0, tid = (__u32)bpf_get_current_pid_tgid();
	struct contention_config *cfg;
	struct waiting *begun;

	cfg = bpf_map_lookup_elem(&config, &zero);
	if (!cfg || cfg->paused || (cfg->slab_mutex && lock != cfg->slab_mutex))
		return 0;
	begun = bpf_map_lookup_elem(&waiting, &tid);
	if (!begun || begun->lock != lock || begun->task != bpf_get_current_task()) {
		if (lock == cfg->slab_mutex)
			health_count(&health, HEALTH_UNMATCHED);
		return 0;
	}
	return wait_ends(cfg, begun, tid);
}

char _license[] SEC("license") = "GPL";
