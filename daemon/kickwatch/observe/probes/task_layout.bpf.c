// SPDX-License-Identifier: GPL-2.0
/*
 * Where task_struct keeps the name of a task, without BTF: copies our own task when it renames itself to a random name
 * that no other field contains. Tracepoint task:task_rename(struct task_struct *task, const char *comm), since 3.4; it
 * fires before the new name is written, so the reader renames twice.
 */
#include "probe.h"

struct task_copy {
	char bytes[8192];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} wanted_tid SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct task_copy);
} task SEC(".maps");

SEC("raw_tp/task_rename")
int task_rename(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 zero = 0, *tid = bpf_map_lookup_elem(&wanted_tid, &zero);
	struct task_copy *copy = bpf_map_lookup_elem(&task, &zero);

	if (tid && copy && *tid == (__u32)bpf_get_current_pid_tgid())
		bpf_probe_read(copy, sizeof(*copy), (void *)bpf_get_current_task());
	return 0;
}

char _license[] SEC("license") = "GPL";
