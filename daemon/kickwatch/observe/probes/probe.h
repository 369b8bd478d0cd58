/* SPDX-License-Identifier: GPL-2.0 */
/* What all probes share: kernel types, stacks, and health counters. */
#ifndef KICKWATCH_PROBE_H
#define KICKWATCH_PROBE_H

#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_helpers.h>
#ifdef AT_FUNCTION_ENTRY /* the object's programs are kprobes */
#include <asm/ptrace.h>
#include <bpf/bpf_tracing.h>
#endif

/*
 * Kernel lockdown (confidentiality) refuses every program that calls bpf_probe_read ("bpf, lockdown, audit: Fix buggy
 * SELinux lockdown permission checks", 5.13). What these reads find is not needed to count: NAME_noread.bpf.c is NAME.bpf.c
 * without them, for such kernels.
 */
#ifdef WITHOUT_READS
#define bpf_probe_read(to, size, from) ((void)(to), (void)(size), (void)(from), -1L)
#define bpf_probe_read_str(to, size, from) bpf_probe_read(to, size, from)
#endif

#define MAX_FRAMES 48

/*
 * Code that seldom runs. A probe for new kernels alone may define it as a function, out of the way of the code that is
 * read from cold caches at every event. Otherwise it is inlined, as all else: not every JIT compiler knew functions.
 */
#ifndef SELDOM
#define SELDOM static __always_inline
#endif
#define likely(condition) __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)

#define STACK_MAP(name, entries)                                  \
	struct {                                                  \
		__uint(type, BPF_MAP_TYPE_STACK_TRACE);           \
		__uint(max_entries, entries);                     \
		__uint(key_size, sizeof(__u32));                  \
		__uint(value_size, MAX_FRAMES * sizeof(__u64));   \
	} name SEC(".maps")

/* Events that the probe could not count in full, per CPU; in the order of `Health` in readings.py. */
enum health_index {
	HEALTH_LOST,         /* a map was full: the event is missing from every figure */
	HEALTH_STACKLESS,    /* counted, but without its stack */
	HEALTH_UNKNOWN_KIND, /* counted as a single request: the stack had too few frames to tell */
	HEALTH_UNMATCHED,    /* the begin or the end of a wait was missed: the wait is missing from every figure */
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
 * The id of the current stack, negative if it could not be taken. A stack map has room for one stack per hash bucket and
 * refuses a second one with EEXIST. With a hundred stacks in 16384 buckets there is such a clash in one run out of four,
 * and it lasts. So a refused stack is offered again without one or two of its innermost frames, which gives another
 * hash. These frames matter little: they are this program and its caller, for a kprobe the sending function and its
 * caller.
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

/*
 * At a kprobe on a function's entry: where the function returns to, an address in its caller. There the stack often lacks
 * that frame: unwinding begins at the probed function, which has not yet made a frame, and goes on with the frame that
 * the frame pointer shows, which is the caller's: its own return address is the next that is found. So it is on arm64 and
 * on x86 with frame pointers; ORC finds all frames. The reader puts the frame in where it is missing. 0 at a tracepoint,
 * where all frames are complete.
 */
static __always_inline __u64 return_address(void *ctx)
{
	__u64 address = 0;

#ifdef AT_FUNCTION_ENTRY
#ifdef bpf_target_x86
	bpf_probe_read(&address, sizeof(address), (void *)PT_REGS_RET((struct pt_regs *)ctx)); /* the top of the stack */
#else
	address = PT_REGS_RET((struct pt_regs *)ctx); /* the link register */
#endif
#endif
	return address;
}

static __always_inline void health_count(void *map, __u32 index)
{
	__u64 *value = bpf_map_lookup_elem(map, &index);

	if (value)
		*value += 1;
}

#endif
