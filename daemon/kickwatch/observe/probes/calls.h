/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What calls.bpf.c has beside cells.h: its configuration, and how it counts CPUs in the kernel's CPU masks. layouts.py
 * has the same structs.
 */
#ifndef KICKWATCH_CALLS_H
#define KICKWATCH_CALLS_H

#include <linux/types.h>

struct call { /* the CPU's last multi-CPU call, for the functions that it calls */
	__u64 conditional; /* its func if it is counted when its interrupts are sent, else 0 */
	__u64 inner;       /* its func if the next single request for it belongs to this call, else 0 */
	__u64 single;      /* not zero: a single request was queued, and may send a separate interrupt */
};

#define HOT_ARRAY 0
#include "cells.h"

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

/* Multi-CPU calls by function and mask: the CPUs of a mask cannot be walked without a loop, so the reader does that. */
struct mask_key {
	__u64 func;
	__u64 words[MASK_WORDS];
};

struct mask_calls {
	__u64 banks[BANKS];
};

/* The reader cuts the key to the words that this kernel's masks have, before it loads the program. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(key_size, sizeof(struct mask_key));
	__uint(value_size, sizeof(struct mask_calls));
} masks SEC(".maps");

/*
 * Other CPUs that are online and in the mask: into `key`, and their number into `event`. A mask of the kernel has `words`
 * words, and no memory after it is read.
 */
static __always_inline void take_others(struct calls_config *cfg, __u64 mask, struct mask_key *key, struct event *event)
{
	__u32 self = bpf_get_smp_processor_id(), found = 0, isolated = 0;
	__u64 word;
	int i;

#pragma unroll
	for (i = 0; i < MASK_WORDS; i++) {
		word = 0;
		if (i < cfg->words) {
			bpf_probe_read(&word, sizeof(word), (void *)(mask + i * sizeof(word)));
			word &= cfg->online[i];
			if (self >> 6 == i)
				word &= ~(1ULL << (self & 63));
			found += hweight64(word);
			isolated += hweight64(word & cfg->cells.isolated[i]);
		}
		key->words[i] = word;
	}
	event->requests = found;
	event->isolated = isolated;
}

/* Where the targets of a call are. If there is no room, they are not known. */
static __always_inline void count_mask(struct this_cpu *cpu, struct mask_key *key, struct event *event)
{
	struct mask_calls *found = bpf_map_lookup_elem(&masks, key), empty = {};

	if (!found) {
		bpf_map_update_elem(&masks, key, &empty, BPF_NOEXIST);
		found = bpf_map_lookup_elem(&masks, key);
	}
	if (found)
		__sync_fetch_and_add(&found->banks[event->bank], 1);
	else
		cpu->targets[event->bank][UNPLACED] += event->requests;
}

#endif
