// SPDX-License-Identifier: GPL-2.0
/*
 * Why the kernel interrupts other CPUs, on kernels without csd:csd_queue_cpu (before 6.5): kprobes on the functions
 * that every call-function request passes, summed by (func, stack) as csd.bpf.c does.
 *
 * A multi-CPU call is one entry of smp_call_function_many_cond(mask, func, info, flags, cond_func), before "smp: Add a
 * smp_cond_func_t argument to smp_call_function_many()" (5.6) of smp_call_function_many(mask, func, info, wait). Its
 * requests are the CPUs of the mask that are online, without the sender: preemption is off, so the sender stays where
 * it is. A single request is one entry of smp_call_function_single(cpu, func, ...) or
 * smp_call_function_single_async(cpu, csd) for another CPU; since "irq_work, smp: Allow irq_work on call_single_queue"
 * (5.8) remote wakeups and irq_work come to __smp_call_single_queue(cpu, node) by themselves. Those of the two others go
 * through it as well, unless the compiler inlined it: there only the type of a node tells whose it is.
 * kick_all_cpus_sync() is a multi-CPU call for do_nothing.
 *
 * Until "smp: Run functions concurrently in smp_call_function_many_cond()" (5.13) a call with one target calls
 * smp_call_function_single(): the inner request is that call's, and is not counted again.
 *
 * Where there is a cond_func, the call itself asks it of each CPU. The CPUs it chose are those in the mask that is
 * handed to the interrupt controller; where that can be probed the call is counted there (a CPU whose queue was not
 * empty needs no interrupt and is missing). Elsewhere every CPU of the mask counts as asked, and it is no broadcast.
 *
 * No BTF of the kernel, no loops (unrolled), no global data, less than 4096 instructions: for the verifier of 4.18.
 */
#include "cells.h"

#include <asm/ptrace.h>
#include <bpf/bpf_tracing.h>

#define CELL_CONDITIONAL 4 /* every CPU that cond_func might choose counts as asked */

#define MASK_WORDS 16 /* 1024 CPUs */

#define HAS_COND 1  /* the fifth argument is cond_func */
#define HAS_INNER 2 /* a multi-CPU call with one target calls the function for single requests */
#define HAS_SENT 4  /* the mask handed to the interrupt controller is probed too */

#define HAS_NODE 8  /* call_single_data begins with __call_single_node, since 5.8 */

/* include/linux/smp_types.h, since 5.8 */
#define NODE_LOCKED 0x01U
#define NODE_TYPE 0xf0U
#define NODE_TYPE_IRQ_WORK 0x20U
#define NODE_TYPE_TTWU 0x30U

struct calls_config {
	struct cells_config cells;
	__u32 words; /* of the kernel's CPU masks, at most MASK_WORDS */
	__u32 has;
	__u64 online[MASK_WORDS];
};

/* What the last multi-CPU call of this CPU left to be counted by what it calls. */
struct under_way {
	__u64 conditional; /* its func, 0 for none: it is counted when its interrupts are sent */
	__u64 inner;       /* its func, 0 for none: the next single request for it is this call's own */
	__u64 single;      /* not zero: a single request was queued, and may send an interrupt of its own */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct calls_config);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct under_way);
} calls_under_way SEC(".maps");

/* __call_single_node and what follows it in __call_single_data, irq_work and task_struct.wake_entry. */
struct queued_node {
	__u64 next;
	__u32 type;
	__u32 cpus;
	__u64 func;
};

static __always_inline struct calls_config *running(void)
{
	__u32 zero = 0;
	struct calls_config *cfg = bpf_map_lookup_elem(&config, &zero);

	return cfg && !cfg->cells.paused ? cfg : 0;
}

static __always_inline struct under_way *this_cpu_call(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&calls_under_way, &zero);
}

static __always_inline __u32 hweight64(__u64 word)
{
	word -= (word >> 1) & 0x5555555555555555ULL;
	word = (word & 0x3333333333333333ULL) + ((word >> 2) & 0x3333333333333333ULL);
	word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
	return (__u32)((word * 0x0101010101010101ULL) >> 56);
}

/* Other CPUs that are online and in the mask. A mask has as many words as the kernel has CPUs for, and no more. */
static __always_inline __u32 others_in(struct calls_config *cfg, __u64 mask)
{
	__u32 self = bpf_get_smp_processor_id(), found = 0;
	__u64 word;
	int i;

#pragma unroll
	for (i = 0; i < MASK_WORDS; i++) {
		if (i < cfg->words) {
			word = 0;
			bpf_probe_read(&word, sizeof(word), (void *)(mask + i * sizeof(word)));
			word &= cfg->online[i];
			if (self >> 6 == i)
				word &= ~(1ULL << (self & 63));
			found += hweight64(word);
		}
	}
	return found;
}

static __always_inline int count_requests(void *ctx, struct calls_config *cfg, __u64 func, __u32 flags, __u32 requests)
{
	__u32 grown = 0, busy = busy_index(&cfg->cells, func);
	struct cell_key key = {};

	if (flags)
		grown = 1;
	if (flags == CELL_MULTI && requests >= cfg->cells.broadcast_targets)
		grown |= 2;
	if (busy < BUSY_FUNCS)
		return count_busy(busy, requests, grown);
	key.func = func;
	key.flags = flags;
	if (flags && holds_slab_mutex(&cfg->cells))
		key.flags |= CELL_UNDER_SLAB_MUTEX;
	key.stack = take_stack(ctx, func);
	return count(&key, requests, grown);
}

SEC("kprobe")
int calls_many(struct pt_regs *ctx)
{
	__u64 func = PT_REGS_PARM2(ctx), conditional;
	struct calls_config *cfg = running();
	struct under_way *call = this_cpu_call();
	__u32 targets;

	if (!cfg || !call)
		return 0;
	call->conditional = call->inner = call->single = 0;
	targets = others_in(cfg, PT_REGS_PARM1(ctx));
	if (!targets)
		return 0;
	conditional = cfg->has & HAS_COND ? PT_REGS_PARM5(ctx) : 0;
	if (targets == 1 && cfg->has & HAS_INNER)
		call->inner = func;
	if (conditional && cfg->has & HAS_SENT) {
		call->conditional = func;
		return 0;
	}
	return count_requests(ctx, cfg, func, conditional ? CELL_MULTI | CELL_CONDITIONAL : CELL_MULTI, targets);
}

/* Counts what a conditional call chose, now that it is known. */
static __always_inline int count_conditional(void *ctx, struct calls_config *cfg, struct under_way *call, __u32 targets)
{
	__u64 func = call->conditional;

	call->conditional = 0;
	return targets ? count_requests(ctx, cfg, func, CELL_MULTI, targets) : 0;
}

static __always_inline int count_single(void *ctx, struct calls_config *cfg, struct under_way *call, __u64 func)
{
	call->single = 1;
	if (call->inner && call->inner == func) {
		call->inner = 0;
		return call->conditional ? count_conditional(ctx, cfg, call, 1) : 0;
	}
	return count_requests(ctx, cfg, func, 0, 1);
}

/* __smp_call_single_queue(int cpu, struct llist_node *node), since 5.8: remote wakeups and irq_work for other CPUs. */
SEC("kprobe")
int calls_queued(struct pt_regs *ctx)
{
	struct calls_config *cfg = running();
	struct under_way *call = this_cpu_call();
	struct queued_node node = {};
	__u32 type;

	if (!cfg || !call || bpf_probe_read(&node, sizeof(node), (void *)PT_REGS_PARM2(ctx)))
		return 0;
	type = node.type & NODE_TYPE;
	if (type == NODE_TYPE_TTWU)
		return count_single(ctx, cfg, call, cfg->cells.busy[0]);
	return type == NODE_TYPE_IRQ_WORK ? count_single(ctx, cfg, call, node.func) : 0;
}

/* smp_call_function_single(int cpu, smp_call_func_t func, void *info, int wait): on this CPU it just calls func. */
SEC("kprobe")
int calls_single(struct pt_regs *ctx)
{
	struct calls_config *cfg = running();
	struct under_way *call = this_cpu_call();

	if (!cfg || !call || (__u32)PT_REGS_PARM1(ctx) == bpf_get_smp_processor_id())
		return 0;
	return count_single(ctx, cfg, call, PT_REGS_PARM2(ctx));
}

/*
 * smp_call_function_single_async(int cpu, call_single_data_t *csd). Before 5.8: {llist_node, func, info, flags}. One
 * that is still under way is refused since "smp: Allow smp_call_function_single_async() to insert locked csd" (5.7).
 */
SEC("kprobe")
int calls_async(struct pt_regs *ctx)
{
	struct calls_config *cfg = running();
	struct under_way *call = this_cpu_call();
	struct queued_node csd = {};

	if (!cfg || !call || (__u32)PT_REGS_PARM1(ctx) == bpf_get_smp_processor_id())
		return 0;
	if (bpf_probe_read(&csd, sizeof(csd), (void *)PT_REGS_PARM2(ctx)))
		return 0;
	if (!(cfg->has & HAS_NODE))
		return count_single(ctx, cfg, call, csd.type | (__u64)csd.cpus << 32);
	return csd.type & NODE_LOCKED ? 0 : count_single(ctx, cfg, call, csd.func);
}

/* native_send_call_func_ipi(const struct cpumask *mask), elsewhere arch_send_call_function_ipi_mask(mask). */
SEC("kprobe")
int calls_sent_many(struct pt_regs *ctx)
{
	struct calls_config *cfg = running();
	struct under_way *call = this_cpu_call();

	if (!cfg || !call || !call->conditional)
		return 0;
	return count_conditional(ctx, cfg, call, others_in(cfg, PT_REGS_PARM1(ctx)));
}

/*
 * send_call_function_single_ipi(int cpu), call_function_single_prep_ipi(int cpu) since "sched, smp: Trace smp
 * callback causing an IPI" (6.4): also the end of a call of whose CPUs one was chosen, since 5.13.
 */
SEC("kprobe")
int calls_sent_one(struct pt_regs *ctx)
{
	struct calls_config *cfg = running();
	struct under_way *call = this_cpu_call();

	if (!cfg || !call)
		return 0;
	if (call->single) {
		call->single = 0;
		return 0;
	}
	return call->conditional ? count_conditional(ctx, cfg, call, 1) : 0;
}

char _license[] SEC("license") = "GPL";
