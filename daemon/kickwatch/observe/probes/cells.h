/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the two rungs of the IPI ladder share: requests summed by (func, stack). The layouts are read by requests.py.
 */
#ifndef KICKWATCH_CELLS_H
#define KICKWATCH_CELLS_H

#include "probe.h"

#define CELL_MULTI 1
#define CELL_UNDER_SLAB_MUTEX 2

#define OWNER_FLAGS 7UL /* low bits of mutex.owner: waiters, handoff, pickup (kernel/locking/mutex.c) */

/*
 * The busy and harmless functions, thousands of requests a second: counted by function alone, found by comparing four
 * addresses, since on a node that idles between them every map look-up is a cache miss. The first two are remote
 * wakeups, never part of a multi-CPU call.
 */
#define BUSY_SINGLES 2
#define BUSY_FUNCS 4

struct cells_config {
	__u64 busy[BUSY_FUNCS];  /* 0: no such function in this kernel */
	__u32 paused;            /* not zero: count nothing, the maps are being emptied */
	__u32 broadcast_targets; /* requests that make a call a broadcast: 90 % of the other online CPUs */
	__u64 slab_mutex;        /* address, 0 while unknown */
};

/* What is kept of a function whose reason and origin it settles itself: the first stack seen, as an example. */
struct example {
	__s32 stack_plus_one; /* its id + 1; 0 while there is none */
};

struct cell_key {
	__u64 func;
	__s32 stack; /* id in `stacks`, negative errno when it could not be taken */
	__u32 flags;
};

struct cell {
	__u64 requests;
	__u64 calls;
	__u64 broadcasts;
};

/*
 * func -> example, for the functions that settle reason and origin (expedited RCU): unwinding costs microseconds,
 * everything else here tens of nanoseconds, so their requests share one stack. Every other function's are unwound.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 128);
	__type(key, __u64);
	__type(value, struct example);
} certain_funcs SEC(".maps");

/* Per CPU, since they may rise a million times a second on every CPU at once; the index is that of `busy`. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, BUSY_FUNCS);
	__type(key, __u32);
	__type(value, struct cell);
} busy_cells SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct cell_key);
	__type(value, struct cell);
} cells SEC(".maps");

STACK_MAP(stacks, 16384);
HEALTH_MAP(health);

static __always_inline int holds_slab_mutex(struct cells_config *cfg)
{
	__u64 owner = 0;

	if (!cfg->slab_mutex || bpf_probe_read(&owner, sizeof(owner), (void *)cfg->slab_mutex))
		return 0;
	return (owner & ~OWNER_FLAGS) == bpf_get_current_task();
}

/* `grown`: a call opened in bit 0, a broadcast completed in bit 1. */
static __always_inline int count(struct cell_key *key, __u32 requests, __u32 grown)
{
	struct cell *cell = bpf_map_lookup_elem(&cells, key), empty = {};

	if (!cell) {
		bpf_map_update_elem(&cells, key, &empty, BPF_NOEXIST); /* another CPU may have been first: that is fine */
		cell = bpf_map_lookup_elem(&cells, key);
	}
	if (!cell) {
		health_count(&health, HEALTH_LOST);
		return 0;
	}
	__sync_fetch_and_add(&cell->requests, requests);
	if (grown & 1)
		__sync_fetch_and_add(&cell->calls, 1);
	if (grown & 2)
		__sync_fetch_and_add(&cell->broadcasts, 1);
	return 0;
}

static __always_inline int count_busy(__u32 index, __u32 requests, __u32 grown)
{
	struct cell *cell = bpf_map_lookup_elem(&busy_cells, &index);

	if (!cell)
		return 0;
	cell->requests += requests;
	cell->calls += grown & 1;
	cell->broadcasts += grown >> 1;
	return 0;
}

/* Index in `busy`, BUSY_FUNCS for any other function. */
static __always_inline __u32 busy_index(struct cells_config *cfg, __u64 func)
{
	if (func == cfg->busy[0])
		return 0;
	if (func == cfg->busy[1])
		return 1;
	if (func == cfg->busy[2])
		return 2;
	return func == cfg->busy[3] ? 3 : BUSY_FUNCS;
}

static __always_inline __s32 take_stack(void *ctx, __u64 func)
{
	struct example *example = bpf_map_lookup_elem(&certain_funcs, &func);
	__s32 stack;

	if (example && example->stack_plus_one > 0)
		return example->stack_plus_one - 1;
	stack = STACK_ID(ctx, &stacks);
	if (stack < 0)
		health_count(&health, HEALTH_STACKLESS);
	else if (example)
		example->stack_plus_one = stack + 1;
	return stack;
}

#endif
