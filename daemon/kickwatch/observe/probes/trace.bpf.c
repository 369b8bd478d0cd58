// SPDX-License-Identifier: GPL-2.0
/*
 * `kickwatch trace`: every event of a few containers' lives, one by one, through a ring buffer. Never part of the daemon.
 *
 * The maps `config` and `callsites` are those of the loaded probe csd.bpf.c, so that both classify a request by the same
 * rules and with the same memory. The bank in use comes with each request: the reader changes the bank at both edges of
 * the span that it counts, so it knows on which side of an edge a request was counted. All other maps are this probe's;
 * those of cells.h that it does not use are as small as possible.
 *
 * The buffer never wakes its reader: a wakeup is a request to another CPU. The reader looks ten times a second.
 *
 * Tracepoints: csd:csd_queue_cpu, csd:csd_function_entry and csd_function_exit(smp_call_func_t func,
 * call_single_data_t *csd), which run on the target (all since 6.5); sched:sched_process_exec, sched_process_exit;
 * cgroup:cgroup_mkdir, cgroup_rmdir(struct cgroup *cgrp, const char *path); lock:contention_begin, contention_end.
 */
#include "csd.h"

#define COMM_LEN 16
#define PATH_LEN 160

enum trace_kind {
	TRACE_REQUEST = 1,
	TRACE_ENTRY, /* the target begins to run the function of a request */
	TRACE_EXIT,
	TRACE_EXEC,
	TRACE_END, /* a process ends: its first thread exits */
	TRACE_WAIT,  /* the task begins to wait for slab_mutex, or waits on */
	TRACE_TAKEN, /* it has the mutex */
	TRACE_MKDIR,
	TRACE_RMDIR,
	TRACE_KINDS,
};

#define TRACE_MULTI 1
#define TRACE_UNDER_SLAB_MUTEX 2
#define TRACE_BEGINS 4 /* the request is the first of its call */
#define TRACE_BANK 8   /* it was counted in bank 1 */

struct trace_config {
	__u32 on;          /* 0: list nothing */
	__u32 comm_offset; /* of task_struct.comm, 0 if unknown */
};

struct trace_event {
	__u64 at_ns; /* CLOCK_MONOTONIC */
	__u64 func;
	__u64 csd;
	__u32 kind;
	__u32 cpu;    /* where it happened */
	__u32 target; /* of a request */
	__s32 stack;  /* id in `stacks`, or a negative errno */
	__u32 flags;
	__u32 tid; /* of the task on that CPU */
	__u32 pid;
	__u32 unused;
	char comm[COMM_LEN];
};

struct trace_text { /* the event, and the path of a cgroup or the name of a task that holds the mutex */
	struct trace_event event;
	char text[PATH_LEN];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct trace_config);
} tracing SEC(".maps");

/* Since "bpf: Implement BPF ring buffer and verifier support for it" (5.8). */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 24);
} ring SEC(".maps");

/* Events that found the buffer full, by kind; item 0: multi-CPU calls among them, by their first requests. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, TRACE_KINDS);
	__type(key, __u32);
	__type(value, __u64);
} losses SEC(".maps");

static __always_inline struct trace_config *if_on(void)
{
	__u32 zero = 0;
	struct trace_config *cfg = bpf_map_lookup_elem(&tracing, &zero);

	return cfg && cfg->on ? cfg : 0;
}

/* Functions, so that the debug information has the structs of the ring, whose map has no types. */
SELDOM int fill(struct trace_event *event, __u32 kind)
{
	__u64 ids = bpf_get_current_pid_tgid();

	event->at_ns = bpf_ktime_get_ns();
	event->func = 0;
	event->csd = 0;
	event->kind = kind;
	event->cpu = bpf_get_smp_processor_id();
	event->target = 0;
	event->stack = -1;
	event->flags = 0;
	event->tid = (__u32)ids;
	event->pid = ids >> 32;
	event->unused = 0;
	return (int)bpf_get_current_comm(event->comm, COMM_LEN);
}

SELDOM int fill_text(struct trace_text *text, __u32 kind)
{
	text->text[0] = 0;
	return fill(&text->event, kind);
}

/* One event in the ring. 0 if there is no room, which is counted. */
static __always_inline struct trace_event *begin_event(__u32 kind)
{
	struct trace_event *event = bpf_ringbuf_reserve(&ring, sizeof(*event), 0);

	if (!event) {
		health_count(&losses, kind);
		return 0;
	}
	fill(event, kind);
	return event;
}

static __always_inline struct trace_text *begin_text(__u32 kind)
{
	struct trace_text *event = bpf_ringbuf_reserve(&ring, sizeof(*event), 0);

	if (!event) {
		health_count(&losses, kind);
		return 0;
	}
	fill_text(event, kind);
	return event;
}

/* TRACE_MULTI and TRACE_BEGINS, as csd.bpf.c decides. */
static __always_inline __u32 call_flags(struct bpf_raw_tracepoint_args *ctx, struct csd_config *cfg, struct this_cpu *cpu)
{
	__u64 func = ctx->args[2], callsite = ctx->args[1];
	__u32 frequent = frequent_index(&cfg->cells, func);

	if (frequent < FREQUENT_FUNCS ? frequent >= FREQUENT_CALLS : kind_of(ctx, cfg, callsite) != KIND_MULTI)
		return 0;
	return begins_call(&cpu->call, func, callsite, (__u32)ctx->args[0]) ? TRACE_MULTI | TRACE_BEGINS : TRACE_MULTI;
}

SEC("raw_tp/csd_queue_cpu")
int trace_queue(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 zero = 0, flags;
	struct csd_config *cfg = bpf_map_lookup_elem(&config, &zero);
	struct this_cpu *cpu = state_of_cpu();
	struct trace_event *event;

	if (!cfg || !cpu || cfg->cells.paused || !if_on())
		return 0;
	flags = bank_in_use(&cfg->cells) ? TRACE_BANK : 0;
	flags |= call_flags(ctx, cfg, cpu);
	if (flags & TRACE_MULTI && holds_slab_mutex(&cfg->cells))
		flags |= TRACE_UNDER_SLAB_MUTEX;
	event = begin_event(TRACE_REQUEST);
	if (!event) {
		if (flags & TRACE_BEGINS)
			health_count(&losses, 0);
		return 0;
	}
	event->func = ctx->args[2];
	event->csd = ctx->args[3];
	event->target = (__u32)ctx->args[0];
	event->flags = flags;
	event->stack = STACK_ID(ctx, &stacks);
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	return 0;
}

static __always_inline int on_target(struct bpf_raw_tracepoint_args *ctx, __u32 kind)
{
	struct trace_event *event;

	if (!ctx->args[1] || !if_on()) /* without a csd a CPU runs it for itself: nothing was sent */
		return 0;
	event = begin_event(kind);
	if (!event)
		return 0;
	event->func = ctx->args[0];
	event->csd = ctx->args[1];
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	return 0;
}

SEC("raw_tp/csd_function_entry")
int trace_entry(struct bpf_raw_tracepoint_args *ctx)
{
	return on_target(ctx, TRACE_ENTRY);
}

SEC("raw_tp/csd_function_exit")
int trace_exit(struct bpf_raw_tracepoint_args *ctx)
{
	return on_target(ctx, TRACE_EXIT);
}

static __always_inline int on_process(__u32 kind)
{
	struct trace_event *event;

	if (!if_on())
		return 0;
	event = begin_event(kind);
	if (event)
		bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	return 0;
}

SEC("raw_tp/sched_process_exec")
int trace_exec(struct bpf_raw_tracepoint_args *ctx)
{
	(void)ctx;
	return on_process(TRACE_EXEC);
}

SEC("raw_tp/sched_process_exit")
int trace_end(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 ids = bpf_get_current_pid_tgid();

	(void)ctx;
	return (__u32)ids == ids >> 32 ? on_process(TRACE_END) : 0;
}

SEC("raw_tp/contention_begin")
int trace_wait(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 lock = ctx->args[0], owner = 0;
	struct trace_config *own = if_on();
	struct trace_text *event;
	struct csd_config *cfg;
	__u32 zero = 0;

	cfg = bpf_map_lookup_elem(&config, &zero);
	if (!own || !cfg || !lock || lock != cfg->cells.slab_mutex)
		return 0;
	event = begin_text(TRACE_WAIT);
	if (!event)
		return 0;
	event->event.stack = STACK_ID(ctx, &stacks);
	if (own->comm_offset && cfg->cells.owner && !bpf_probe_read(&owner, sizeof(owner), (void *)cfg->cells.owner) &&
	    owner & ~OWNER_FLAGS)
		bpf_probe_read_str(event->text, COMM_LEN, (void *)((owner & ~OWNER_FLAGS) + own->comm_offset));
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	return 0;
}

SEC("raw_tp/contention_end")
int trace_taken(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 lock = ctx->args[0];
	struct csd_config *cfg;
	__u32 zero = 0;

	cfg = bpf_map_lookup_elem(&config, &zero);
	return cfg && lock && lock == cfg->cells.slab_mutex ? on_process(TRACE_TAKEN) : 0;
}

static __always_inline int on_cgroup(struct bpf_raw_tracepoint_args *ctx, __u32 kind)
{
	struct trace_text *event;

	if (!if_on())
		return 0;
	event = begin_text(kind);
	if (!event)
		return 0;
	bpf_probe_read_str(event->text, PATH_LEN, (void *)ctx->args[1]);
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	return 0;
}

SEC("raw_tp/cgroup_mkdir")
int trace_mkdir(struct bpf_raw_tracepoint_args *ctx)
{
	return on_cgroup(ctx, TRACE_MKDIR);
}

SEC("raw_tp/cgroup_rmdir")
int trace_rmdir(struct bpf_raw_tracepoint_args *ctx)
{
	return on_cgroup(ctx, TRACE_RMDIR);
}

char _license[] SEC("license") = "GPL";
