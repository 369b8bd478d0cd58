/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the probes on csd:csd_queue_cpu share, csd.bpf.c, which counts requests, and trace.bpf.c, which lists them: which
 * requests are part of a multi-CPU call, and where a call begins. See csd.bpf.c for why.
 */
#ifndef KICKWATCH_CSD_H
#define KICKWATCH_CSD_H

#include <linux/types.h>

struct call { /* the CPU's open call */
	__u64 func;
	__u64 callsite;
	__u32 target;  /* the last one, plus one; 0: no call is open */
	__u32 targets; /* so far */
};

#define SELDOM static __attribute__((noinline, unused))
/* Flags of the arrays that every request touches: mapped ones (5.5) begin at a page, and so at a cache line. */
#define HOT_ARRAY BPF_F_MMAPABLE
#include "cells.h"

#define MANY_RANGES 4

struct csd_config {
	struct cells_config cells;
	__u64 many_start[MANY_RANGES]; /* text of smp_call_function_many_cond: the function, its clones and its parts */
	__u64 many_end[MANY_RANGES];   /* 0: no such range */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, HOT_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct csd_config);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u32);
} callsites SEC(".maps");

static __always_inline int in_many(struct csd_config *cfg, __u64 ip)
{
	return (ip >= cfg->many_start[0] && ip < cfg->many_end[0]) ||
	       (ip >= cfg->many_start[1] && ip < cfg->many_end[1]) ||
	       (ip >= cfg->many_start[2] && ip < cfg->many_end[2]) ||
	       (ip >= cfg->many_start[3] && ip < cfg->many_end[3]);
}

/*
 * A raw tracepoint's stack begins with this program and its callers (bpf_trace_run4, on some kernels
 * __bpf_trace_csd_queue_cpu, with a second tracer __traceiter_csd_queue_cpu); the sender is the third to fifth frame on
 * x86. On arm64 this program is there three times (as the caller of bpf_get_stack, by the frame of bpf_get_stack, and as
 * the caller of count_other), and the sender is the sixth or seventh. An interrupt that breaks into a spin-wait puts at
 * least its entry, its handler, the queueing function and its caller in between: the spin-wait is never among these
 * frames.
 *
 * The kind of a call site is not learnt again, so it is taken as single only if all these frames were seen. After a
 * shorter stack the request counts as a single one of unknown kind, and the next request of the call site is unwound.
 */
#ifdef __TARGET_ARCH_x86
#define KIND_FRAMES 5
#else
#define KIND_FRAMES 7
#endif

static __always_inline __u32 kind_of(void *ctx, struct csd_config *cfg, __u64 callsite)
{
	__u32 *known = bpf_map_lookup_elem(&callsites, &callsite);
	__u64 ip[KIND_FRAMES] = {};
	__u32 frame, many = 0;
	__u32 kind = KIND_SINGLE;
	long taken;

	if (known)
		return *known;
	taken = bpf_get_stack(ctx, ip, sizeof(ip), 0);
#pragma unroll
	for (frame = 1; frame < KIND_FRAMES; frame++)
		many |= in_many(cfg, ip[frame]);
	if (many) {
		kind = KIND_MULTI;
	} else if (taken != sizeof(ip)) {
		health_count(&health, HEALTH_UNKNOWN_KIND);
		return KIND_SINGLE;
	}
	bpf_map_update_elem(&callsites, &callsite, &kind, BPF_ANY);
	return kind;
}

/* Not zero if the request begins a new call. */
static __always_inline __u32 begins_call(struct call *call, __u64 func, __u64 callsite, __u32 target)
{
	__u32 last = call->target;

	call->target = target + 1;
	if (call->func == func && call->callsite == callsite && target >= last)
		return 0;
	call->func = func;
	call->callsite = callsite;
	return 1;
}

#endif
