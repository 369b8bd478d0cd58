/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What both rungs of the IPI ladder share: requests summed by (func, stack). layouts.py has the same structs.
 */
#ifndef KICKWATCH_CELLS_H
#define KICKWATCH_CELLS_H

#include "probe.h"

#define CELL_MULTI 1
#define CELL_UNDER_SLAB_MUTEX 2

#define OWNER_FLAGS 7UL /* low bits of mutex.owner: waiters, handoff, pickup (kernel/locking/mutex.c) */

/*
 * The busy, harmless functions with thousands of requests a second are counted by function alone. They are found by
 * comparing four addresses: on an idle node every map look-up between two requests would be a cache miss. The first two
 * are remote wakeups, which are never part of a multi-CPU call.
 */
#define BUSY_SINGLES 2
#define BUSY_FUNCS 4

struct cells_config {
	__u64 busy[BUSY_FUNCS];  /* 0: this kernel has no such function */
	__u32 paused;            /* not zero: count nothing, since the maps are being emptied */
	__u32 broadcast_targets; /* requests that make a call a broadcast: 90 % of the other online CPUs */
	__u64 slab_mutex;        /* address, 0 while unknown */
};

/* For a function that tells reason and origin without a stack: its first stack, as an example. */
struct example {
	__s32 stack_plus_one; /* its id + 1; 0 while there is none */
};

struct cell_key {
	__u64 func;
	__s32 stack; /* id in `stacks`, or a negative errno if it could not be taken */
	__u32 flags;
};

struct cell {
	__u64 requests;
	__u64 calls;
	__u64 broadcasts;
};

/*
 * func -> example, for the functions that tell reason and origin themselves (expedited RCU). Unwinding costs
 * microseconds, everything else here tens of nanoseconds: the requests of such a function share one stack. All others
 * are unwound.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 128);
	__type(key, __u64);
	__type(value, struct example);
} certain_funcs SEC(".maps");

/* Per CPU, since all CPUs may count a million requests a second at the same time; the index is that of `busy`. */
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

/* `grown`: bit 0 if a call begins, bit 1 if a broadcast is complete. */
static __always_inline int count(struct cell_key *key, __u32 requests, __u32 grown)
{
	struct cell *cell = bpf_map_lookup_elem(&cells, key), empty = {};

	if (!cell) {
		bpf_map_update_elem(&cells, key, &empty, BPF_NOEXIST); /* no matter if another CPU was faster */
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

/* The index in `busy`, BUSY_FUNCS for any other function. */
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
