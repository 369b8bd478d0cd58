// SPDX-License-Identifier: GPL-2.0
/*
 * Why the kernel interrupts other CPUs: every call-function request, summed in the kernel by (func, stack).
 *
 * Tracepoint csd:csd_queue_cpu (since 6.5, "trace,smp: Add tracepoints around remotelly called functions"):
 * TP_PROTO(const unsigned int cpu, unsigned long callsite, smp_call_func_t func, call_single_data_t *csd).
 * It fires once per request, on the sending CPU, with preemption disabled: per-CPU state needs no lock.
 *
 * A request belongs to a multi-CPU call if its *innermost* frame is smp_call_function_many_cond; further out in the stack
 * that function may be a spin-wait which an interrupt broke into. `callsite` is the return address of the function that
 * queued the request, so all requests of a call site are of one kind. The kind is learnt from the first frames of one
 * stack; after that no request of the call site is unwound for it. For the frequent functions of cells.h not even the call
 * site is looked up: the function tells the kind. (The csd address would do, too. But there are
 * CPUs x (CPUs - 1) of them, CPU hotplug frees and reuses them, and each single request from a csd on a stack has a new
 * one.)
 *
 * In one call the targets ascend (for_each_cpu over the mask), the sender cannot be preempted between them, and
 * interrupts make no multi-CPU calls. So a request continues the open call of its CPU only if func and call site are the
 * same and the target is higher. Single requests are never grouped. Two calls in a row for one CPU each, the second for a
 * higher CPU, look like one call. This happens with TLB shootdowns, whose number of calls is therefore a lower bound.
 *
 * Without BTF of the kernel, loops and global data: for the verifier of 4.18.
 */
#include "csd.h"
#ifdef ONLY_MEMBERS
#include "members.h"
#else
#define is_member() 1
#endif

/* Bit 0 of the result: the request begins a new call; bit 1: it completes a broadcast. */
static __always_inline __u32 group(struct cells_config *cfg, struct call *call, __u64 func, __u64 callsite, __u32 target)
{
	__u32 begun = begins_call(call, func, callsite, target);

	call->targets = begun ? 1 : call->targets + 1;
	return call->targets == cfg->broadcast_targets ? begun | 2 : begun;
}

/* Counts a request of any function that is not frequent; zero if there was no room. */
SELDOM int count_other(struct bpf_raw_tracepoint_args *ctx, struct csd_config *cfg, struct this_cpu *cpu, __u32 bank,
		       __u32 isolated)
{
	struct event event = { .bank = bank & (BANKS - 1), .requests = 1, .isolated = isolated };
	__u64 func = ctx->args[2], callsite = ctx->args[1];
	__u32 control = by_control(&cfg->cells);
	struct cell_key key = {};

	if (kind_of(ctx, cfg, callsite) == KIND_MULTI) {
		key.flags = CELL_MULTI;
		/* A call of the control does not continue one of another task, to the lower CPUs. */
		event.grown = group(&cfg->cells, &cpu->call, func, callsite ^ control, (__u32)ctx->args[0]);
	}
	if (key.flags && holds_slab_mutex(&cfg->cells))
		key.flags |= CELL_UNDER_SLAB_MUTEX;
	key.flags |= control;
	key.func = func;
	take_stack(ctx, &key);
	return count_cell(&key, &event);
}

SEC("raw_tp/csd_queue_cpu")
int csd_queue_cpu(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 zero = 0, target = (__u32)ctx->args[0], frequent, bank, begun = 0, isolated = 0;
	__u64 func = ctx->args[2];
	struct csd_config *cfg = bpf_map_lookup_elem(&config, &zero);
	struct this_cpu *cpu = state_of_cpu();
	struct figures *of;

	if (unlikely(!cfg || !cpu || cfg->cells.paused) || !is_member())
		return 0;
	bank = bank_in_use(&cfg->cells);
	if (unlikely(cfg->cells.isolating))
		isolated = in_mask(cfg->cells.isolated, target);
	frequent = frequent_index(&cfg->cells, func);
	if (likely(frequent < FREQUENT_FUNCS)) {
		if (frequent < FREQUENT_CALLS)
			begun = begins_call(&cpu->call, func, ctx->args[1], target);
		of = frequent_figures(cpu, frequent, bank);
		if (!of)
			return 0;
		of->requests += 1;
		of->calls += begun;
		of->isolated += isolated;
		if (unlikely(wants_example(cpu, frequent)))
			take_example(ctx, cpu, frequent, func);
	} else if (!count_other(ctx, cfg, cpu, bank, isolated)) {
		return 0;
	}
	count_target(&cfg->cells, cpu, bank, target);
	if (unlikely(isolated))
		count_hit(cpu, func, frequent, target, bank);
	return 0;
}

char _license[] SEC("license") = "GPL";
