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
 * The target of every request that is counted is known, too: a single request names its CPU, and multi-CPU calls are also
 * counted by mask. Where the chosen CPUs cannot be probed, the targets are those that might be chosen, as the requests.
 *
 * Without BTF of the kernel, loops (they are unrolled) and global data, and in less than 4096 instructions: for the
 * verifier of 4.18.
 */
#define AT_FUNCTION_ENTRY
#include "calls.h"
#ifdef ONLY_MEMBERS
#include "members.h"
#else
#define is_member() 1
#endif

#define CELL_CONDITIONAL 4 /* every CPU that cond_func might choose counts as chosen */

/* include/linux/smp_types.h, since 5.8 */
#define NODE_LOCKED 0x01U
#define NODE_TYPE 0xf0U
#define NODE_TYPE_IRQ_WORK 0x20U
#define NODE_TYPE_TTWU 0x30U

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct calls_config);
} config SEC(".maps");

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

	return cfg && !cfg->cells.paused && is_member() ? cfg : 0;
}

static __always_inline void count_frequent(void *ctx, struct this_cpu *cpu, __u32 frequent, __u64 func,
					   struct event *event)
{
	struct figures *of = frequent_figures(cpu, frequent, event->bank);

	if (!of)
		return;
	of->requests += event->requests;
	of->calls += event->grown & 1;
	of->broadcasts += event->grown >> 1;
	of->isolated += event->isolated;
	if (wants_example(cpu, frequent))
		take_example(ctx, cpu, frequent, func);
}

/* Zero if there was no room. */
static __always_inline int count_requests(void *ctx, struct calls_config *cfg, struct this_cpu *cpu, __u64 func,
					  __u32 flags, struct event *event)
{
	__u32 frequent = frequent_index(&cfg->cells, func);
	struct cell_key key = {};

	event->grown = flags ? 1 : 0;
	if (flags == CELL_MULTI && event->requests >= cfg->cells.broadcast_targets)
		event->grown |= 2;
	if (frequent < FREQUENT_FUNCS) {
		count_frequent(ctx, cpu, frequent, func, event);
		return 1;
	}
	key.func = func;
	key.flags = flags | by_control(&cfg->cells);
	if (flags && holds_slab_mutex(&cfg->cells))
		key.flags |= CELL_UNDER_SLAB_MUTEX;
	take_stack(ctx, &key);
	return count_cell(&key, event);
}

static __always_inline int count_one(void *ctx, struct calls_config *cfg, struct this_cpu *cpu, __u64 func,
				     __u32 flags, __u32 target)
{
	struct event event = {};

	event.bank = bank_in_use(&cfg->cells);
	event.requests = 1;
	event.isolated = in_mask(cfg->cells.isolated, target);
	if (!count_requests(ctx, cfg, cpu, func, flags, &event))
		return 0;
	count_target(&cfg->cells, cpu, event.bank, target);
	if (event.isolated)
		count_hit(cpu, func, frequent_index(&cfg->cells, func), target, event.bank);
	return 0;
}

/* The targets of a multi-CPU call are in `key`, their number is in `event`. */
static __always_inline int count_many(void *ctx, struct calls_config *cfg, struct this_cpu *cpu, __u32 flags,
				      struct mask_key *key, struct event *event)
{
	event->bank = bank_in_use(&cfg->cells);
	if (count_requests(ctx, cfg, cpu, key->func, flags, event))
		count_mask(cpu, key, event);
	return 0;
}

SEC("kprobe")
int calls_many(struct pt_regs *ctx)
{
	struct calls_config *cfg = running();
	struct this_cpu *cpu = state_of_cpu();
	struct event event = {};
	struct mask_key key;
	__u64 conditional;

	if (!cfg || !cpu)
		return 0;
	cpu->call.conditional = cpu->call.inner = cpu->call.single = 0;
	take_others(cfg, PT_REGS_PARM1(ctx), &key, &event);
	if (!event.requests)
		return 0;
	key.func = PT_REGS_PARM2(ctx);
	conditional = cfg->has & HAS_COND ? PT_REGS_PARM5(ctx) : 0;
	if (event.requests == 1 && cfg->has & HAS_INNER)
		cpu->call.inner = key.func;
	if (conditional && cfg->has & HAS_SENT) {
		cpu->call.conditional = key.func;
		return 0;
	}
	return count_many(ctx, cfg, cpu, conditional ? CELL_MULTI | CELL_CONDITIONAL : CELL_MULTI, &key, &event);
}

/* Counts a conditional call that has chosen one CPU. */
static __always_inline int count_chosen(void *ctx, struct calls_config *cfg, struct this_cpu *cpu, __u32 target)
{
	__u64 func = cpu->call.conditional;

	cpu->call.conditional = 0;
	return func ? count_one(ctx, cfg, cpu, func, CELL_MULTI, target) : 0;
}

static __always_inline int count_single(void *ctx, struct calls_config *cfg, struct this_cpu *cpu, __u64 func,
					__u32 target)
{
	cpu->call.single = 1;
	if (cpu->call.inner && cpu->call.inner == func) {
		cpu->call.inner = 0;
		return count_chosen(ctx, cfg, cpu, target);
	}
	return count_one(ctx, cfg, cpu, func, 0, target);
}

/* __smp_call_single_queue(int cpu, struct llist_node *node), since 5.8: remote wakeups and irq_work for other CPUs. */
SEC("kprobe")
int calls_queued(struct pt_regs *ctx)
{
	struct calls_config *cfg = running();
	struct this_cpu *cpu = state_of_cpu();
	struct queued_node node = {};
	__u32 type;

	if (!cfg || !cpu || bpf_probe_read(&node, sizeof(node), (void *)PT_REGS_PARM2(ctx)))
		return 0;
	type = node.type & NODE_TYPE;
	if (type != NODE_TYPE_TTWU && type != NODE_TYPE_IRQ_WORK)
		return 0;
	return count_single(ctx, cfg, cpu, type == NODE_TYPE_TTWU ? cfg->cells.frequent[WAKEUP] : node.func,
			    (__u32)PT_REGS_PARM1(ctx));
}

/* smp_call_function_single(int cpu, smp_call_func_t func, void *info, int wait). For this CPU it only calls func. */
SEC("kprobe")
int calls_single(struct pt_regs *ctx)
{
	__u32 target = (__u32)PT_REGS_PARM1(ctx);
	struct calls_config *cfg = running();
	struct this_cpu *cpu = state_of_cpu();

	if (!cfg || !cpu || target == bpf_get_smp_processor_id())
		return 0;
	return count_single(ctx, cfg, cpu, PT_REGS_PARM2(ctx), target);
}

/*
 * smp_call_function_single_async(int cpu, call_single_data_t *csd). Before 5.8 a csd is {llist_node, func, info, flags}.
 * A csd that is still in use is refused since "smp: Allow smp_call_function_single_async() to insert locked csd" (5.7).
 */
SEC("kprobe")
int calls_async(struct pt_regs *ctx)
{
	__u32 target = (__u32)PT_REGS_PARM1(ctx);
	struct calls_config *cfg = running();
	struct this_cpu *cpu = state_of_cpu();
	struct queued_node csd = {};
	__u64 func;

	if (!cfg || !cpu || target == bpf_get_smp_processor_id())
		return 0;
	if (bpf_probe_read(&csd, sizeof(csd), (void *)PT_REGS_PARM2(ctx)))
		return 0;
	func = csd.func;
	if (!(cfg->has & HAS_NODE))
		func = csd.type | (__u64)csd.cpus << 32;
	else if (csd.type & NODE_LOCKED)
		return 0;
	return count_single(ctx, cfg, cpu, func, target);
}

/* native_send_call_func_ipi(const struct cpumask *mask), elsewhere arch_send_call_function_ipi_mask(mask). */
SEC("kprobe")
int calls_sent_many(struct pt_regs *ctx)
{
	struct calls_config *cfg = running();
	struct this_cpu *cpu = state_of_cpu();
	struct event event = {};
	struct mask_key key;

	if (!cfg || !cpu || !cpu->call.conditional)
		return 0;
	key.func = cpu->call.conditional;
	cpu->call.conditional = 0;
	take_others(cfg, PT_REGS_PARM1(ctx), &key, &event);
	return event.requests ? count_many(ctx, cfg, cpu, CELL_MULTI, &key, &event) : 0;
}

/*
 * send_call_function_single_ipi(int cpu), call_function_single_prep_ipi(int cpu) since "sched, smp: Trace smp callback
 * causing an IPI" (6.4). Since 5.13 this is also the end of a multi-CPU call that chose one CPU.
 */
SEC("kprobe")
int calls_sent_one(struct pt_regs *ctx)
{
	struct calls_config *cfg = running();
	struct this_cpu *cpu = state_of_cpu();

	if (!cfg || !cpu)
		return 0;
	if (cpu->call.single) {
		cpu->call.single = 0;
		return 0;
	}
	return count_chosen(ctx, cfg, cpu, (__u32)PT_REGS_PARM1(ctx));
}

char _license[] SEC("license") = "GPL";
