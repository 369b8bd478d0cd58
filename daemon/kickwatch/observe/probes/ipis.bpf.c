// SPDX-License-Identifier: GPL-2.0
/*
 * Interrupts sent to isolated CPUs and to others, of every kind: call-function requests, and what is none (reschedule
 * interrupts, irq_work that a CPU sends itself). Armed only where CPUs are isolated.
 *
 * Tracepoints, since 6.4: ipi:ipi_send_cpumask(const struct cpumask *cpumask, unsigned long callsite, void *callback),
 * "trace: Add trace_ipi_send_cpumask()"; ipi:ipi_send_cpu(const unsigned int cpu, unsigned long callsite, void
 * *callback), "trace: Add trace_ipi_send_cpu()". They fire on the sending CPU, with preemption disabled.
 *
 * Fewer interrupts than requests are sent: a CPU whose queue is not empty, or that polls while it is idle, needs none.
 */
#include "masks.h"

struct ipis_config {
	__u32 words; /* of the kernel's CPU masks, at most MASK_WORDS */
	__u32 unused;
	__u64 isolated[MASK_WORDS];
};

struct ipis {
	__u64 isolated; /* sent to isolated CPUs */
	__u64 others;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ipis_config);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ipis);
} ipis SEC(".maps");

SEC("raw_tp/ipi_send_cpu")
int ipi_send_cpu(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 zero = 0;
	struct ipis_config *cfg = bpf_map_lookup_elem(&config, &zero);
	struct ipis *sum = bpf_map_lookup_elem(&ipis, &zero);

	if (!cfg || !sum)
		return 0;
	if (in_mask(cfg->isolated, (__u32)ctx->args[0]))
		sum->isolated += 1;
	else
		sum->others += 1;
	return 0;
}

SEC("raw_tp/ipi_send_cpumask")
int ipi_send_cpumask(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 zero = 0;
	struct ipis_config *cfg = bpf_map_lookup_elem(&config, &zero);
	struct ipis *sum = bpf_map_lookup_elem(&ipis, &zero);
	__u64 mask = ctx->args[0], word;
	int i;

	if (!cfg || !sum)
		return 0;
#pragma unroll
	for (i = 0; i < MASK_WORDS; i++) {
		if (i < cfg->words) {
			word = 0;
			bpf_probe_read(&word, sizeof(word), (void *)(mask + i * sizeof(word)));
			sum->isolated += hweight64(word & cfg->isolated[i]);
			sum->others += hweight64(word & ~cfg->isolated[i]);
		}
	}
	return 0;
}

char _license[] SEC("license") = "GPL";
