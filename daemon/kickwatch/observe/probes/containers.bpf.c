// SPDX-License-Identifier: GPL-2.0
/*
 * Passive mode: which cgroups come and go, and which tasks make containers or run in one.
 *
 * Tracepoints, all of them older than 4.18: cgroup:cgroup_mkdir, cgroup_rmdir(struct cgroup *cgrp, const char *path);
 * cgroup:cgroup_attach_task(struct cgroup *dst_cgrp, const char *path, struct task_struct *task, bool threadgroup);
 * sched:sched_process_exec(struct task_struct *p, ...), sched_process_fork(parent, child), sched_process_exit(p).
 * Paths are those below the hierarchy's root; the kernel has them in a buffer of 1024 bytes. On cgroup v1 each hierarchy
 * has its own event with the same path.
 *
 * Only cgroups that may be containers are passed on (`may_be_container`), so other churn of cgroups reaches no reader;
 * container_paths.py decides. A map of events keyed by CPU and number, since ring buffers came in 5.8. The reader deletes
 * what it has read. An event that finds the map full is counted as lost.
 *
 * A task is a member if it is a container runtime (by its name at exec), if it was moved to a container's cgroup, or if a
 * member forked it. A runtime that executes a copy of itself by its descriptor, as crun does against CVE-2019-5736, is
 * named after the descriptor until "exec: fix up /proc/pid/comm in the execveat(AT_EMPTY_PATH) case" (6.14), and may be
 * named after a memfd since: it stays what it was.
 *
 * Without BTF of the kernel, loops (they are unrolled) and global data: for the verifier of 4.18.
 */
#include "members.h"

#define COMM_LEN 16
#define KERNEL_PATH_LEN 1024 /* TRACE_CGROUP_PATH_LEN of kernel/cgroup/cgroup-internal.h */
#define PATH_LEN 192         /* of a longer path the end */
#define SCOPE_LEN 6          /* ".scope" */
#define ID_LEN 64
#define HEX_DIGITS 12        /* of an id, looked at in front and at the end: UUIDs and systemd's ids are shorter */

enum container_event_kind { CONTAINER_MKDIR = 1, CONTAINER_RMDIR };

enum containers_count {
	COUNT_MADE,      /* cgroups made, containers or not */
	COUNT_PASSED,    /* events passed on */
	COUNT_LOST,      /* events, and tasks of runtimes, that found a map full */
	COUNT_STRANGERS, /* tasks that found the map of members full */
	COUNT_INSIDE,    /* of the cgroups made those that a member made that makes no containers: inside one */
	COUNTS,
};

/* What a task with this name is: runtimes make the cgroups of containers, all of them make containers. */
#define MAKER_OF_CGROUPS 2

struct event_key {
	__u32 cpu;
	__u32 unused;
	__u64 number;
};

struct container_event {
	__u64 at_ns; /* CLOCK_MONOTONIC */
	__u64 run;   /* of the runtime that makes it: the value in `members`, 0 if another program does */
	__u32 kind;
	__u32 pid;   /* in the first PID namespace */
	__u32 maker; /* the value in `makers` */
	__u32 cut;   /* not zero: the beginning of the path is missing */
	char comm[COMM_LEN];
	char path[PATH_LEN];
};

struct scratch {
	char path[KERNEL_PATH_LEN];
	struct container_event event;
};

struct maker_name {
	char comm[COMM_LEN];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct event_key);
	__type(value, struct container_event);
} events SEC(".maps");

/* By task_struct.comm. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, struct maker_name);
	__type(value, __u32);
} makers SEC(".maps");

/* By task_struct: which runtime it was executed as, and whoever it forked until that executes another program. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct maker_name);
} executed_as SEC(".maps");

static __always_inline __u32 maker_of(const struct maker_name *name)
{
	__u32 *kind = bpf_map_lookup_elem(&makers, name);

	return kind ? *kind : 0;
}

/* What the current task is, and `name`, as it was executed. */
static __always_inline __u32 maker_of_current(struct maker_name *name)
{
	__u64 task = bpf_get_current_task();
	struct maker_name *known;
	__u32 maker;

	bpf_get_current_comm(name, sizeof(*name));
	maker = maker_of(name);
	known = maker ? 0 : bpf_map_lookup_elem(&executed_as, &task);
	if (!known)
		return maker;
	*name = *known;
	return maker_of(name);
}

/* "3", "17" or "memfd:...": executed by a descriptor. */
static __always_inline int is_descriptor(const char *comm)
{
	if (comm[0] == 'm' && comm[1] == 'e' && comm[2] == 'm' && comm[3] == 'f' && comm[4] == 'd' && comm[5] == ':')
		return 1;
	if (comm[0] < '0' || comm[0] > '9')
		return 0;
	return !comm[1] || (comm[1] >= '0' && comm[1] <= '9' && (!comm[2] || (comm[2] >= '0' && comm[2] <= '9')));
}

static __always_inline int add_member(__u64 task, __u64 run)
{
	if (!bpf_map_update_elem(&members, &task, &run, BPF_ANY))
		return 1;
	health_count(&counts, COUNT_STRANGERS);
	return 0;
}

/* A runtime without room may make cgroups that nobody counts. Only members: at their exit the name is forgotten. */
static __always_inline void add_runtime(__u64 task, __u64 run, const struct maker_name *name)
{
	if (!add_member(task, run) || bpf_map_update_elem(&executed_as, &task, name, BPF_ANY))
		health_count(&counts, COUNT_LOST);
}

static __always_inline __u64 run_of(__u64 task)
{
	__u64 *run = bpf_map_lookup_elem(&members, &task);

	return run ? *run : 0;
}

static __always_inline int is_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

/* Each digit leaves at once if it is none: a sum of them would give the verifier a state for every combination. */
static __always_inline int are_hex(const char *at)
{
	char digits[HEX_DIGITS] = {};
	int place;

	if (bpf_probe_read(digits, sizeof(digits), at))
		return 0;
#pragma unroll
	for (place = 0; place < HEX_DIGITS; place++)
		if (!is_hex(digits[place]))
			return 0;
	return 1;
}

static __always_inline int is_scope(const char *end)
{
	char tail[SCOPE_LEN] = {};

	if (bpf_probe_read(tail, sizeof(tail), end - SCOPE_LEN))
		return 0;
	return tail[0] == '.' && tail[1] == 's' && tail[2] == 'c' && tail[3] == 'o' && tail[4] == 'p' && tail[5] == 'e';
}

/* Containers are scopes, or their names end in an id, or begin in one of these places: /lxc..., /machine.slice. */
static __always_inline int may_be_container(const char *path, const char *from, __u32 len, int only_ids)
{
	const char *end = from + len - 1; /* `len` counts the NUL */

	if (!only_ids && ((path[1] == 'l' && path[2] == 'x' && path[3] == 'c') ||
			  (path[1] == 'm' && path[2] == 'a' && path[3] == 'c' && path[4] == 'h')))
		return 1;
	if (len > SCOPE_LEN + 1 && is_scope(end)) {
		if (!only_ids)
			return 1;
		end -= SCOPE_LEN;
		len -= SCOPE_LEN;
	}
	return len > ID_LEN + 1 && are_hex(end - ID_LEN) && are_hex(end - HEX_DIGITS);
}

static __always_inline int pass_on(struct scratch *room, const char *from, __u32 len, __u32 kind, __u32 maker,
				   const struct maker_name *name)
{
	struct container_event *event = &room->event;
	struct event_key key = {};
	__u32 index = COUNT_PASSED;
	__u64 *number = bpf_map_lookup_elem(&counts, &index);

	if (!number)
		return 0;
	event->at_ns = bpf_ktime_get_ns();
	event->kind = kind;
	event->pid = bpf_get_current_pid_tgid() >> 32;
	event->maker = maker;
	event->run = maker & MAKER_OF_CGROUPS ? run_of(bpf_get_current_task()) : 0;
	event->cut = len > PATH_LEN;
	__builtin_memcpy(event->comm, name->comm, sizeof(event->comm));
	bpf_probe_read_str(event->path, sizeof(event->path), len > PATH_LEN ? from + len - PATH_LEN : from);
	key.cpu = bpf_get_smp_processor_id();
	key.number = *number;
	*number += 1;
	if (bpf_map_update_elem(&events, &key, event, BPF_ANY))
		health_count(&counts, COUNT_LOST);
	return 0;
}

static __always_inline int on_cgroup(struct bpf_raw_tracepoint_args *ctx, __u32 kind)
{
	const char *from = (const char *)ctx->args[1];
	__u32 zero = 0, maker = 0;
	struct scratch *room = bpf_map_lookup_elem(&scratches, &zero);
	struct maker_name name = {};
	long len;

	if (!room)
		return 0;
	if (kind == CONTAINER_MKDIR) {
		health_count(&counts, COUNT_MADE);
		maker = maker_of_current(&name);
		if (!maker && run_of(bpf_get_current_task()))
			health_count(&counts, COUNT_INSIDE);
	}
	len = bpf_probe_read_str(room->path, sizeof(room->path), from);
	if (len <= 0)
		return 0;
	if (!(maker & MAKER_OF_CGROUPS) && !may_be_container(room->path, from, len, 0))
		return 0;
	return pass_on(room, from, len, kind, maker, &name);
}

SEC("raw_tp/cgroup_mkdir")
int containers_mkdir(struct bpf_raw_tracepoint_args *ctx)
{
	return on_cgroup(ctx, CONTAINER_MKDIR);
}

SEC("raw_tp/cgroup_rmdir")
int containers_rmdir(struct bpf_raw_tracepoint_args *ctx)
{
	return on_cgroup(ctx, CONTAINER_RMDIR);
}

static __always_inline void join(__u64 task)
{
	if (!run_of(task))
		add_member(task, bpf_ktime_get_ns());
}

SEC("raw_tp/cgroup_attach_task")
int containers_attach(struct bpf_raw_tracepoint_args *ctx)
{
	const char *from = (const char *)ctx->args[1];
	__u32 zero = 0;
	struct scratch *room = bpf_map_lookup_elem(&scratches, &zero);
	long len;

	if (!room)
		return 0;
	len = bpf_probe_read_str(room->path, sizeof(room->path), from);
	if (len > 0 && may_be_container(room->path, from, len, 1))
		join(ctx->args[2]);
	return 0;
}

SEC("raw_tp/sched_process_exec")
int containers_exec(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 task = ctx->args[0];
	struct maker_name name = {};
	__u32 maker;

	bpf_get_current_comm(&name, sizeof(name));
	maker = maker_of(&name);
	if (maker & MAKER_OF_CGROUPS) {
		add_runtime(task, bpf_ktime_get_ns(), &name);
		return 0;
	}
	if (maker)
		add_member(task, bpf_ktime_get_ns());
	if (run_of(task) && !is_descriptor(name.comm))
		bpf_map_delete_elem(&executed_as, &task);
	return 0;
}

SEC("raw_tp/sched_process_fork")
int containers_fork(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 parent = ctx->args[0], child = ctx->args[1], run = run_of(parent);
	struct maker_name *known;

	if (!run)
		return 0;
	known = bpf_map_lookup_elem(&executed_as, &parent);
	if (known) {
		struct maker_name name = *known; /* 4.18 takes no pointer into a map as a value */

		add_runtime(child, run, &name);
	} else {
		add_member(child, run);
	}
	return 0;
}

SEC("raw_tp/sched_process_exit")
int containers_exit(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 task = ctx->args[0];

	if (!bpf_map_delete_elem(&members, &task))
		bpf_map_delete_elem(&executed_as, &task);
	return 0;
}

char _license[] SEC("license") = "GPL";
