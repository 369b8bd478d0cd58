/* SPDX-License-Identifier: GPL-2.0 */
/* Masks of CPUs, the kernel's and the reader's. layouts.py has the same number of words. */
#ifndef KICKWATCH_MASKS_H
#define KICKWATCH_MASKS_H

#include "probe.h"

#define MASK_WORDS 16 /* 1024 CPUs */

static __always_inline __u32 hweight64(__u64 word)
{
	word -= (word >> 1) & 0x5555555555555555ULL;
	word = (word & 0x3333333333333333ULL) + ((word >> 2) & 0x3333333333333333ULL);
	word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
	return (__u32)((word * 0x0101010101010101ULL) >> 56);
}

/* 1 if the CPU is in a mask of MASK_WORDS words. */
static __always_inline __u32 in_mask(__u64 *mask, __u32 cpu)
{
	__u32 word = cpu >> 6;

	asm volatile("" : "+r"(word)); /* or the compiler leaves out the next line, which the verifier needs */
	word &= MASK_WORDS - 1;
	return cpu < 64 * MASK_WORDS ? mask[word] >> (cpu & 63) & 1 : 0;
}

#endif
