// SPDX-License-Identifier: GPL-2.0
/*
 * Where task_struct keeps the name of a task, without BTF: copies the task that has a random name, which no other field
 * contains, when it is renamed. Tracepoint task:task_rename(struct task_struct *task, const char *comm), since 3.4; it
 * fires before the new name is written, so the reader renames itself twice. Its id would not do: in a PID namespace, as in
 * a pod, it is another one.
 */
#include "probe.h"

struct task_copy {
	char bytes[8192];
};

struct task_name {
	__u64 words[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct task_name);
} wanted SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct task_copy);
} task SEC(".maps");

SEC("raw_tp/task_rename")
int task_rename(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 zero = 0;
	struct task_name *name = bpf_map_lookup_elem(&wanted, &zero), is = {};
	struct task_copy *copy = bpf_map_lookup_elem(&task, &zero);

	bpf_get_current_comm(&is, sizeof(is));
	if (name && copy && is.words[0] == name->words[0] && is.words[1] == name->words[1])
		bpf_probe_read(copy, sizeof(*copy), (void *)bpf_get_current_task());
	return 0;
}

char _license[] SEC("license") = "GPL";
