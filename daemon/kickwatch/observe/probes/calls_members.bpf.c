// SPDX-License-Identifier: GPL-2.0
/* calls.bpf.c for the requests that tasks of containers send. The map `members` is that of containers.bpf.c. */
#define ONLY_MEMBERS
#include "calls.bpf.c"
