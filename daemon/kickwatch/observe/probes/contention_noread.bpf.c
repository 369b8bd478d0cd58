// SPDX-License-Identifier: GPL-2.0
/* contention.bpf.c for a kernel whose lockdown refuses reads of its memory: the same waits; their holders are not named. */
#define WITHOUT_READS
#include "contention.bpf.c"
