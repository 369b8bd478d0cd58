/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What both rungs of the IPI ladder share: requests summed by (func, stack). layouts.py has the same structs.
 */
#ifndef KICKWATCH_CELLS_H
#define KICKWATCH_CELLS_H

#include "masks.h"

#define KIND_SINGLE 1
#define KIND_MULTI 2

#define CELL_MULTI 1
#define CELL_UNDER_SLAB_MUTEX 2
#define CELL_CONTROL 8 /* the positive control sent it; 4 is CELL_CONDITIONAL of calls.bpf.c */

#define OWNER_FLAGS 7UL /* low bits of mutex.owner: waiters, handoff, pickup (kernel/locking/mutex.c) */

/*
 * Everything is counted in one of two banks. To read, the reader makes the other bank the one in use, and then the first
 * one rests: its figures, which are many and in several maps, belong to the same requests. A program reads once which
 * bank is in use, so a request is in one bank only.
 */
#define BANKS 2

/*
 * Frequent functions, with up to thousands of requests a second, tell reason, origin and kind themselves. They are found
 * by comparing addresses: on an idle node every map look-up between two requests would be a cache miss. The first two
 * are TLB shootdowns, which are always multi-CPU calls and never broadcasts. The next two are remote wakeups, the last
 * two RCU's requests: single ones. Of those of RCU a stack is taken as an example.
 */
#define FREQUENT_CALLS 2
#define FREQUENT_STACKLESS 4
#define FREQUENT_FUNCS 6
#define WAKEUP 2 /* the index of sched_ttwu_pending */

/*
 * Requests to the CPUs from 0 to NEAR_CPUS - 1 are counted in `each_cpu`, others in `far_targets`. The item after the
 * last near CPU has the requests whose target is not known; the rest fills the cache line.
 */
#define NEAR_CPUS 64
#define UNPLACED NEAR_CPUS
#define TARGETS (NEAR_CPUS + 8)

/* A request touches the first 64 bytes, and only where CPUs are isolated more. */
struct cells_config {
	__u64 frequent[FREQUENT_FUNCS]; /* 0: this kernel has no such function */
	__u32 paused;                   /* not zero: count nothing, since the maps are being emptied */
	__u32 bank;                     /* in use */
	__u32 isolating;                /* not zero: CPUs are isolated */
	__u32 broadcast_targets;        /* requests that make a call a broadcast: 90 % of the other online CPUs */
	__u64 slab_mutex;               /* address, 0 while unknown */
	__u64 owner;                    /* address of its word that has the task which holds it, 0 while unknown */
	__u32 far_cpus;                 /* CPUs that this machine can have beyond NEAR_CPUS */
	__u32 controlled;               /* not zero: the positive control is under way */
	__u64 control[2];               /* the name of its sending task, in all bytes of task_struct.comm */
	__u64 isolated[MASK_WORDS];
};

/* For a function that tells reason and origin without a stack: its first stack, as an example. */
struct example {
	__u64 caller;
	__s32 stack_plus_one; /* its id + 1; 0 while there is none */
	__u32 unused;
};

struct cell_key {
	__u64 func;
	__s32 stack; /* id in `stacks`, or a negative errno if it could not be taken */
	__u32 flags;
	__u64 caller; /* return_address: a frame that the stack may lack */
};

struct figures {
	__u64 requests;
	__u64 calls;
	__u64 broadcasts;
	__u64 isolated; /* requests to isolated CPUs */
};

struct cell {
	struct figures banks[BANKS];
};

/*
 * What a CPU has for itself, since all CPUs may count a million requests a second at the same time. `struct call` is that
 * of the rung: what it must remember from one event to the next. The order matters: a reader copies the targets before
 * the cells (see count_target); and if the map is aligned, the first cell and `call` are in one cache line, or in two
 * neighbours.
 */
struct this_cpu {
	__u64 targets[BANKS][TARGETS];
	struct call call;
	__u64 examples; /* bit i: the i-th frequent function has its example */
	struct cell frequent[FREQUENT_FUNCS];
	__u64 unused[4];
	__u64 hits[BANKS][FREQUENT_FUNCS][NEAR_CPUS]; /* single requests to isolated CPUs, by frequent function */
};

/* Any other function, or a farther CPU: a function whose requests reached an isolated CPU. */
struct hit_key {
	__u64 func;
	__u32 cpu;
	__u32 unused;
};

struct hits {
	__u64 banks[BANKS];
};

/*
 * func -> example, for the functions that tell reason and origin themselves (membarrier, RCU). Unwinding costs
 * microseconds, everything else here tens of nanoseconds: the requests of such a function share one stack. All others
 * are unwound, except the frequent ones without a stack.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 128);
	__type(key, __u64);
	__type(value, struct example);
} certain_funcs SEC(".maps");

/* By CPU, no per-CPU map: that one has an address in between, and no alignment. The reader sets the size. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, HOT_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct this_cpu);
} each_cpu SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct cell_key);
	__type(value, struct cell);
} cells SEC(".maps");

/* One bank after the other, for the CPUs from NEAR_CPUS on. The reader sets the size before it loads the program. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, BANKS);
	__type(key, __u32);
	__type(value, __u64);
} far_targets SEC(".maps");

/* Requests to isolated CPUs by function. If it is full, they are missing here alone. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct hit_key);
	__type(value, struct hits);
} hits SEC(".maps");

STACK_MAP(stacks, 16384);
HEALTH_MAP(health);

static __always_inline int holds_slab_mutex(struct cells_config *cfg)
{
	__u64 owner = 0;

	if (!cfg->owner || bpf_probe_read(&owner, sizeof(owner), (void *)cfg->owner))
		return 0;
	return (owner & ~OWNER_FLAGS) == bpf_get_current_task();
}

/*
 * CELL_CONTROL if the positive control sends the request, else 0: other processes may call membarrier at the same time.
 * By the name of the task, since the reader knows it in every PID namespace.
 */
static __always_inline __u32 by_control(struct cells_config *cfg)
{
	__u64 name[2] = {};

	if (likely(!cfg->controlled))
		return 0;
	bpf_get_current_comm(name, sizeof(name));
	return name[0] == cfg->control[0] && name[1] == cfg->control[1] ? CELL_CONTROL : 0;
}

static __always_inline struct this_cpu *state_of_cpu(void)
{
	__u32 index = bpf_get_smp_processor_id();

	return bpf_map_lookup_elem(&each_cpu, &index);
}

/* The bank in use. Only one read of it counts: after a second one, a request could be in both banks in part. */
static __always_inline __u32 bank_in_use(struct cells_config *cfg)
{
	return *(volatile __u32 *)&cfg->bank & (BANKS - 1);
}

/* Some requests of one function and kind. `grown`: bit 0 if a call begins, bit 1 if a broadcast is complete. */
struct event {
	__u32 bank;
	__u32 requests;
	__u32 grown;
	__u32 isolated; /* of the requests, how many go to isolated CPUs */
};

static __always_inline struct figures *frequent_figures(struct this_cpu *cpu, __u32 frequent, __u32 bank)
{
	asm volatile("" : "+r"(frequent)); /* or the compiler leaves out the check, which the verifier needs */
	return frequent < FREQUENT_FUNCS ? &cpu->frequent[frequent].banks[bank] : 0;
}

/* Not zero if it was counted. */
static __always_inline int count_cell(struct cell_key *key, struct event *event)
{
	struct cell *cell = bpf_map_lookup_elem(&cells, key), empty = {};
	struct figures *of;

	if (!cell) {
		bpf_map_update_elem(&cells, key, &empty, BPF_NOEXIST); /* no matter if another CPU was faster */
		cell = bpf_map_lookup_elem(&cells, key);
	}
	if (!cell) {
		health_count(&health, HEALTH_LOST);
		return 0;
	}
	of = &cell->banks[event->bank];
	__sync_fetch_and_add(&of->requests, event->requests);
	if (event->grown & 1)
		__sync_fetch_and_add(&of->calls, 1);
	if (event->grown & 2)
		__sync_fetch_and_add(&of->broadcasts, 1);
	if (event->isolated)
		__sync_fetch_and_add(&of->isolated, event->isolated);
	return 1;
}

static __always_inline void count_other_hit(__u64 func, __u32 target, __u32 bank)
{
	struct hit_key key = {};
	struct hits *found, empty = {};

	key.func = func;
	key.cpu = target;
	found = bpf_map_lookup_elem(&hits, &key);
	if (!found) {
		bpf_map_update_elem(&hits, &key, &empty, BPF_NOEXIST);
		found = bpf_map_lookup_elem(&hits, &key);
	}
	if (found)
		__sync_fetch_and_add(&found->banks[bank], 1);
}

/* `frequent`: the index of `func`. */
SELDOM int count_hit(struct this_cpu *cpu, __u64 func, __u32 frequent, __u32 target, __u32 bank)
{
	__u64 index = frequent, near = target;

	bank &= BANKS - 1;
	asm volatile("" : "+r"(index), "+r"(near)); /* or other copies are used than those that were checked */
	if (index < FREQUENT_FUNCS && near < NEAR_CPUS)
		cpu->hits[bank][index][near] += 1;
	else
		count_other_hit(func, target, bank);
	return 0;
}

SELDOM int count_far_target(struct cells_config *cfg, struct this_cpu *cpu, __u32 bank, __u32 target)
{
	__u32 index = target - NEAR_CPUS;
	__u64 *sum;

	if (index < cfg->far_cpus) {
		index += bank ? cfg->far_cpus : 0;
		sum = bpf_map_lookup_elem(&far_targets, &index);
		if (sum) {
			*sum += 1;
			return 0;
		}
	}
	cpu->targets[bank & (BANKS - 1)][UNPLACED] += 1;
	return 0;
}

/* After the cell, so that a reader can tell if a request is counted in part. */
static __always_inline void count_target(struct cells_config *cfg, struct this_cpu *cpu, __u32 bank, __u32 target)
{
	if (unlikely(target >= NEAR_CPUS)) {
		count_far_target(cfg, cpu, bank, target);
		return;
	}
	asm volatile("" : "+r"(target));
	cpu->targets[bank][target & (NEAR_CPUS - 1)] += 1;
}

/* The index in `frequent`, FREQUENT_FUNCS for any other function. */
static __always_inline __u32 frequent_index(struct cells_config *cfg, __u64 func)
{
	if (func == cfg->frequent[0])
		return 0;
	if (func == cfg->frequent[2])
		return 2;
	if (func == cfg->frequent[4])
		return 4;
	if (func == cfg->frequent[3])
		return 3;
	if (func == cfg->frequent[5])
		return 5;
	return func == cfg->frequent[1] ? 1 : FREQUENT_FUNCS;
}

/* Adds stack and caller to a key with a function. */
static __always_inline void take_stack(void *ctx, struct cell_key *key)
{
	struct example *example = bpf_map_lookup_elem(&certain_funcs, &key->func), taken = {};

	if (example && example->stack_plus_one > 0) {
		key->stack = example->stack_plus_one - 1;
		key->caller = example->caller;
		return;
	}
	key->stack = STACK_ID(ctx, &stacks);
	key->caller = return_address(ctx);
	if (key->stack < 0) {
		health_count(&health, HEALTH_STACKLESS);
	} else if (example) {
		taken.stack_plus_one = key->stack + 1;
		taken.caller = key->caller;
		bpf_map_update_elem(&certain_funcs, &key->func, &taken, BPF_ANY); /* both at once */
	}
}

/* Of a frequent function: each CPU looks for its example once. */
SELDOM int take_example(void *ctx, struct this_cpu *cpu, __u32 frequent, __u64 func)
{
	struct cell_key key = { .func = func };

	take_stack(ctx, &key);
	if (key.stack >= 0)
		cpu->examples |= 1ULL << frequent;
	return 0;
}

static __always_inline int wants_example(struct this_cpu *cpu, __u32 frequent)
{
	return frequent >= FREQUENT_STACKLESS && !(cpu->examples >> frequent & 1);
}

#endif
