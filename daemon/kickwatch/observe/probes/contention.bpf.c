// SPDX-License-Identifier: GPL-2.0
/*
 * Who waits for slab_mutex, for how long, and who holds it: the first rung.
 *
 * Tracepoints lock:contention_begin(void *lock, unsigned int flags) and lock:contention_end(void *lock, int ret),
 * since 5.19 ("locking: Add lock contention tracepoints").
 */
#include "waits.h"

/* include/trace/events/lock.h; most begins of mutexes have further bits */
#define LCB_F_READ 2
#define LCB_F_WRITE 4
#define LCB_F_RT 8
#define LCB_F_MUTEX 32

#define MUTEX_WORDS 16

/* The offset of a mutex's owner plus one, 0 while it is not learnt. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} owner_found SEC(".maps");

/* On PREEMPT_RT a mutex is an rt_mutex, and sleeping spinlocks have the same flag; the stacks tell which it is. */
static __always_inline int may_be_mutex(__u64 flags)
{
	return flags & LCB_F_MUTEX || (flags & (LCB_F_RT | LCB_F_READ | LCB_F_WRITE)) == LCB_F_RT;
}

/* While the owner's offset is not known, a wait for any mutex may teach it. */
static __always_inline int learning(struct contention_config *cfg)
{
	__u32 zero = 0;
	__u64 *found = bpf_map_lookup_elem(&owner_found, &zero);

	return cfg->owner_offset == OWNER_UNKNOWN && found && !*found;
}

/*
 * On PREEMPT_RT the owner is behind the wait lock and the tree of waiters, whose sizes depend on the configuration. At the
 * end of a wait that succeeded this task is the owner: the first word of the mutex with its address is the owner.
 */
static __always_inline void find_owner(__u64 lock)
{
	__u64 words[MUTEX_WORDS] = {}, task = bpf_get_current_task(), found = 0;
	__u32 zero = 0;
	int i;

	if (bpf_probe_read(words, sizeof(words), (void *)lock))
		return;
#pragma unroll
	for (i = MUTEX_WORDS - 1; i >= 0; i--)
		if ((words[i] & ~OWNER_FLAGS) == task)
			found = i * sizeof(words[0]) + 1;
	if (found)
		bpf_map_update_elem(&owner_found, &zero, &found, BPF_ANY);
}

SEC("raw_tp/contention_begin")
int contention_begin(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 lock = ctx->args[0];
	__u32 zero = 0;
	struct contention_config *cfg;

	cfg = bpf_map_lookup_elem(&config, &zero);
	if (!cfg || cfg->paused)
		return 0;
	if (lock != cfg->slab_mutex) { /* that needs no flag */
		if (!may_be_mutex(ctx->args[1]) || (cfg->slab_mutex && !learning(cfg)))
			return 0;
	}
	return wait_begins(ctx, cfg, lock);
}

SEC("raw_tp/contention_end")
int contention_end(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 lock = ctx->args[0];
	__u32 zero = 0, tid = (__u32)bpf_get_current_pid_tgid();
	struct contention_config *cfg;
	struct waiting *begun;
	int others;

	cfg = bpf_map_lookup_elem(&config, &zero);
	if (!cfg || cfg->paused)
		return 0;
	others = cfg->slab_mutex && lock != cfg->slab_mutex;
	if (others && !learning(cfg))
		return 0;
	begun = bpf_map_lookup_elem(&waiting, &tid);
	if (!begun || begun->lock != lock || begun->task != bpf_get_current_task()) {
		if (lock == cfg->slab_mutex)
			health_count(&health, HEALTH_UNMATCHED);
		return 0;
	}
	if (cfg->owner_offset == OWNER_UNKNOWN && !(__s32)ctx->args[1])
		find_owner(lock);
	if (others) {
		bpf_map_delete_elem(&waiting, &tid);
		return 0;
	}
	return wait_ends(cfg, begun, tid);
}

char _license[] SEC("license") = "GPL";
