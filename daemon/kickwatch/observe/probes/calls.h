/* SPDX-License-Identifier: GPL-2.0 */
/* The configuration of calls.bpf.c, and how it counts CPUs in the kernel's CPU masks. layouts.py has the same struct. */
#ifndef KICKWATCH_CALLS_H
#define KICKWATCH_CALLS_H

#include "cells.h"

#define MASK_WORDS 16 /* 1024 CPUs */

#define HAS_COND 1  /* the fifth argument is cond_func */
#define HAS_INNER 2 /* a multi-CPU call with one target calls the function for single requests */
#define HAS_SENT 4  /* the mask handed to the interrupt controller is also probed */
#define HAS_NODE 8  /* call_single_data begins with __call_single_node, since 5.8 */

struct calls_config {
	struct cells_config cells;
	__u32 words; /* of the kernel's CPU masks, at most MASK_WORDS */
	__u32 has;
	__u64 online[MASK_WORDS];
};

static __always_inline __u32 hweight64(__u64 word)
{
	word -= (word >> 1) & 0x5555555555555555ULL;
	word = (word & 0x3333333333333333ULL) + ((word >> 2) & 0x3333333333333333ULL);
	word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
	return (__u32)((word * 0x0101010101010101ULL) >> 56);
}

/* Other CPUs that are online and in the mask. A mask of the kernel has `words` words, and no memory after it is read. */
static __always_inline __u32 others_in(struct calls_config *cfg, __u64 mask)
{
	__u32 self = bpf_get_smp_processor_id(), found = 0;
	__u64 word;
	int i;

#pragma unroll
	for (i = 0; i < MASK_WORDS; i++) {
		if (i < cfg->words) {
			word = 0;
			bpf_probe_read(&word, sizeof(word), (void *)(mask + i * sizeof(word)));
			word &= cfg->online[i];
			if (self >> 6 == i)
				word &= ~(1ULL << (self & 63));
			found += hweight64(word);
		}
	}
	return found;
}

#endif
