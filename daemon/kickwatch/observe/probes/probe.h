/* SPDX-License-Identifier: GPL-2.0 */
/* What the probes share: kernel types, stacks, and counters of their own health. */
#ifndef KICKWATCH_PROBE_H
#define KICKWATCH_PROBE_H

#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_helpers.h>

#define MAX_FRAMES 48

#define STACK_MAP(name, entries)                                  \
	struct {                                                  \
		__uint(type, BPF_MAP_TYPE_STACK_TRACE);           \
		__uint(max_entries, entries);                     \
		__uint(key_size, sizeof(__u32));                  \
		__uint(value_size, MAX_FRAMES * sizeof(__u64));   \
	} name SEC(".maps")

/* What the probe could not do, per CPU. The order is that of `Health` in readings.py. */
enum health_index {
	HEALTH_LOST,         /* a map was full: the event is missing from every figure */
	HEALTH_STACKLESS,    /* counted, but its stack could not be taken */
	HEALTH_UNKNOWN_KIND, /* counted as a single-CPU request, since too few frames could be taken to tell */
	HEALTH_UNMATCHED,    /* the begin or the end of a wait never came: the wait is missing from every figure */
	HEALTH_INDEXES,
};

#define HEALTH_MAP(name)                                   \
	struct {                                           \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);   \
		__uint(max_entries, HEALTH_INDEXES);       \
		__type(key, __u32);                        \
		__type(value, __u64);                      \
	} name SEC(".maps")

/*
 * The id of the current stack, negative when it could not be taken. A stack map has one stack per hash bucket and
 * refuses a second one with EEXIST: with a hundred stacks in 16384 buckets one clash in four runs, and a clash lasts.
 * So a refused stack is offered again without its innermost glue: the first two frames are this program and its
 * caller, at a kprobe the function that sends and its caller, of little interest, and without them the hash is another.
 */
#define STACK_ID(ctx, stacks)                                                  \
	({                                                                     \
		__s32 id_ = bpf_get_stackid(ctx, stacks, 0);                   \
		if (id_ < 0)                                                   \
			id_ = bpf_get_stackid(ctx, stacks, 1);                 \
		if (id_ < 0)                                                   \
			id_ = bpf_get_stackid(ctx, stacks, 2);                 \
		id_;                                                           \
	})

static __always_inline void health_count(void *map, __u32 index)
{
	__u64 *value = bpf_map_lookup_elem(map, &index);

	if (value)
		*value += 1;
}

#endif
