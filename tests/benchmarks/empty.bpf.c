// SPDX-License-Identifier: GPL-2.0
/* A program that does nothing, on the tracepoint of csd.bpf.c: most of its measured cost is the measuring itself. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

SEC("raw_tp/csd_queue_cpu")
int empty(void *ctx)
{
	return 0;
}

char _license[] SEC("license") = "GPL";
