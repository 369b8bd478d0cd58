// SPDX-License-Identifier: GPL-2.0
/* csd.bpf.c for a kernel whose lockdown refuses reads of its memory: the same requests; `under_slab_mutex` is never set. */
#define WITHOUT_READS
#include "csd.bpf.c"
