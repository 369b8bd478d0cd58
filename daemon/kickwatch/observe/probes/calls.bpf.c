// SPDX-License-Identifier: GPL-2.0
/*
 * Why the kernel interrupts other CPUs, on kernels without csd:csd_queue_cpu (before 6.5): kprobes on the functions that
 * every call-function request passes. As in csd.bpf.c, requests are summed by (func, stack).
 *
 * A multi-CPU call is one entry of smp_call_function_many_cond(mask, func, info, flags, cond_func), before "smp: Add a
 * smp_cond_func_t argument to smp_call_function_many()" (5.6) of smp_call_function_many(mask, func, info, wait). Its
 * requests are the online CPUs of the mask without the sender's: preemption is off, so the sender stays on its CPU.
 * kick_all_cpus_sync() is a multi-CPU call for do_nothing.
 *
 * A single request is one entry of smp_call_function_single(cpu, func, ...) or smp_call_function_single_async(cpu, csd)
 * for another CPU. Since "irq_work, smp: Allow irq_work on call_single_queue" (5.8) remote wakeups and irq_work enter
 * __smp_call_single_queue(cpu, node) directly. The requests of those two functions pass it as well, unless the compiler
 * inlined it: only the type of the node tells what a request is.
 *
 * Until "smp: Run functions concurrently in smp_call_function_many_cond()" (5.13) a call with one target calls
 * smp_call_function_single(): this inner request belongs to the call and is not counted again.
 *
 * If there is a cond_func, the call itself evaluates it for each CPU. The CPUs that it chose are in the mask that is
 * handed to the interrupt controller. If that can be probed, the call is counted there (a CPU whose queue was not empty
 * needs no interrupt, and is missing). Otherwise every CPU of the mask counts as chosen, and the call is no broadcast.
 *
 * Without BTF of the kernel, loops (they are unrolled) and global data, and in less than 4096 instructions: for the
 * verifier of 4.18.
 */
#include "calls.h"

#include <asm/ptrace.h>
#include <bpf/bpf_tracing.h>

#define CELL_CONDITIONAL 4 /* every CPU that cond_func might choose counts as chosen */

/* include/linux/smp_types.h, since 5.8 */
#define NODE_LOCKED 0x01U
#define NODE_TYPE 0xf0U
#define NODE_TYPE_IRQ_WORK 0x20U
#define NODE_TYPE_TTWU 0x30U

/* The state of this CPU's last multi-CPU call, for the functions that it calls. */
struct under_way {
	__u64 conditional; /* its func if it is counted when its interrupts are sent, else 0 */
	__u64 inner;       /* its func if the next single request for it belongs to this call, else 0 */
	__u64 single;      /* not zero: a single request was queued, and may send a separate interrupt */
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

/* __call_single_node and the member that follows it in __call_single_data, irq_work and task_struct.wake_entry. */
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

/* Counts a conditional call, once it is known which CPUs it chose. */
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

/* smp_call_function_single(int cpu, smp_call_func_t func, void *info, int wait). For this CPU it only calls func. */
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
 * smp_call_function_single_async(int cpu, call_single_data_t *csd). Before 5.8 a csd is {llist_node, func, info, flags}.
 * A csd that is still in use is refused since "smp: Allow smp_call_function_single_async() to insert locked csd" (5.7).
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
 * send_call_function_single_ipi(int cpu), call_function_single_prep_ipi(int cpu) since "sched, smp: Trace smp callback
 * causing an IPI" (6.4). Since 5.13 this is also the end of a multi-CPU call that chose one CPU.
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
