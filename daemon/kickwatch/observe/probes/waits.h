/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What both rungs of the contention ladder share: waits for mutexes, by lock, stack and holder. layouts.py has the same
 * structs.
 *
 * A wait is counted at its end, and measured from its *first* begin: at the tracepoint, a waiter that spins, sleeps and
 * spins again has a begin each time. The holder is read from the owner word of the mutex at the first begin. That is its first
 * word, except on PREEMPT_RT: see contention.bpf.c.
 *
 * A further begin continues the wait, unless the end of the earlier wait was missed (the program did not run, or a map
 * was full). That is assumed if another task has the tid now, or if the first begin is older than STALE_NS: then the
 * begin is a new wait, and the old one is counted as unmatched. Waits can last long, and then their begins are far apart;
 * but the kernel itself reports a task that hangs for 120 s (kernel.hung_task_timeout_secs), so that is the limit. A wait
 * without a further begin has no limit.
 *
 * While the address of slab_mutex is unknown every contended mutex is recorded with its stack, and the reader finds out
 * which one it is. Once it is known, every other lock costs one comparison.
 */
#ifndef KICKWATCH_WAITS_H
#define KICKWATCH_WAITS_H

#include "probe.h"

#define OWNER_FLAGS 7UL
#define COMM_LEN 16
#define HISTOGRAM_BUCKETS 40
#define OWNER_UNKNOWN 0xffffffffU /* of owner_offset */
#define STALE_NS (120ULL * 1000 * 1000 * 1000)

struct contention_config {
	__u64 slab_mutex;  /* address, 0 while unknown */
	__u32 comm_offset; /* of task_struct.comm, 0 if unknown */
	__u32 paused;      /* not zero: count nothing, since the maps are being emptied */
	__u32 owner_offset; /* of the word of a mutex that has the task which holds it, and flags */
	__u32 unused;
};

struct waiting {
	__u64 lock;
	__u64 task;
	__u64 since_ns;
	__u64 caller; /* return_address: a frame that the stack may lack */
	__s32 stack;
	__u32 unused;
	char holder[COMM_LEN];
};

struct wait_key {
	__u64 lock;
	__u64 caller;
	__s32 stack;
	__u32 unused;
	char holder[COMM_LEN];
};

struct wait {
	__u64 waits;
	__u64 wait_ns;
	__u64 max_wait_ns;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct contention_config);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__type(value, struct waiting);
} waiting SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct wait_key);
	__type(value, struct wait);
} waits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HISTOGRAM_BUCKETS);
	__type(key, __u32);
	__type(value, __u64);
} histogram SEC(".maps");

STACK_MAP(stacks, 4096);
HEALTH_MAP(health);

static __always_inline void name_holder(struct contention_config *cfg, __u64 lock, char *holder)
{
	__u64 owner = 0;

	if (!cfg->comm_offset || cfg->owner_offset == OWNER_UNKNOWN ||
	    bpf_probe_read(&owner, sizeof(owner), (void *)(lock + cfg->owner_offset)))
		return;
	owner &= ~OWNER_FLAGS;
	if (owner) /* as a string: after its end may be the rest of a longer name, which would make it another key */
		bpf_probe_read_str(holder, COMM_LEN, (void *)(owner + cfg->comm_offset));
}

/* A task begins to wait for the mutex at `lock`. */
static __always_inline int wait_begins(void *ctx, struct contention_config *cfg, __u64 lock)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();
	struct waiting begun = {}, *earlier;

	begun.lock = lock;
	begun.task = bpf_get_current_task();
	begun.since_ns = bpf_ktime_get_ns();
	earlier = bpf_map_lookup_elem(&waiting, &tid);
	if (earlier) {
		if (earlier->lock == lock && earlier->task == begun.task &&
		    begun.since_ns - earlier->since_ns < STALE_NS)
			return 0;
		health_count(&health, HEALTH_UNMATCHED);
	}
	begun.stack = STACK_ID(ctx, &stacks);
	begun.caller = return_address(ctx);
	if (begun.stack < 0)
		health_count(&health, HEALTH_STACKLESS);
	name_holder(cfg, lock, begun.holder);
	if (bpf_map_update_elem(&waiting, &tid, &begun, BPF_ANY))
		health_count(&health, HEALTH_LOST);
	return 0;
}

/* floor(log2(ns)) without a loop. */
static __always_inline __u32 bucket_of(__u64 ns)
{
	__u32 bucket = 0;

	if (ns >> 32) { ns >>= 32; bucket += 32; }
	if (ns >> 16) { ns >>= 16; bucket += 16; }
	if (ns >> 8) { ns >>= 8; bucket += 8; }
	if (ns >> 4) { ns >>= 4; bucket += 4; }
	if (ns >> 2) { ns >>= 2; bucket += 2; }
	if (ns >> 1) { bucket += 1; }
	return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

static __always_inline void count_wait(struct wait_key *key, __u64 wait_ns)
{
	struct wait *wait = bpf_map_lookup_elem(&waits, key), empty = {};

	if (!wait) {
		bpf_map_update_elem(&waits, key, &empty, BPF_NOEXIST);
		wait = bpf_map_lookup_elem(&waits, key);
	}
	if (!wait) {
		health_count(&health, HEALTH_LOST);
		return;
	}
	__sync_fetch_and_add(&wait->waits, 1);
	__sync_fetch_and_add(&wait->wait_ns, wait_ns);
	if (wait_ns > wait->max_wait_ns)
		wait->max_wait_ns = wait_ns;
}

/* The wait that began as `begun` is over. */
static __always_inline int wait_ends(struct contention_config *cfg, struct waiting *begun, __u32 tid)
{
	__u64 lock = begun->lock, wait_ns, *bucket;
	struct wait_key key = {};
	__u32 index;

	wait_ns = bpf_ktime_get_ns() - begun->since_ns;
	key.lock = lock;
	key.caller = begun->caller;
	key.stack = begun->stack;
	__builtin_memcpy(key.holder, begun->holder, COMM_LEN);
	bpf_map_delete_elem(&waiting, &tid);
	count_wait(&key, wait_ns);
	if (lock == cfg->slab_mutex) {
		index = bucket_of(wait_ns);
		bucket = bpf_map_lookup_elem(&histogram, &index);
		if (bucket)
			*bucket += 1;
	}
	return 0;
}

#endif
