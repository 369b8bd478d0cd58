/* SPDX-License-Identifier: GPL-2.0 */
/* The tasks that make containers or run in one, which containers.bpf.c finds and csd_members.bpf.c asks for. */
#ifndef KICKWATCH_MEMBERS_H
#define KICKWATCH_MEMBERS_H

#include "probe.h"

/*
 * By the address of the task_struct: no layout is needed, and it is the same in every PID namespace. The value is when the
 * program that made it a member was executed (ns), which its descendants inherit: it identifies that run of the program.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, __u64);
} members SEC(".maps");

static __always_inline int is_member(void)
{
	__u64 task = bpf_get_current_task();

	return bpf_map_lookup_elem(&members, &task) != 0;
}

#endif
