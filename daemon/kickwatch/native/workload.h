/* SPDX-License-Identifier: GPL-2.0-only */
/* workload: what its main program (workload.c) uses of caches.c. */
#ifndef KICKWATCH_WORKLOAD_H
#define KICKWATCH_WORKLOAD_H

/* Creates a directory of our own in the first place that allows it, `wanted` before others: its descriptor, or -1. */
int open_home(const char *wanted);

/* Allocates and keeps objects; files are created in the directory `dir`, if it is one. Names on standard error what the
 * kernel or sandbox does not allow. */
void fill_caches(int dir);

/* Removes the directory with all that fill_caches() has left in it. */
void empty_home(int dir);

#endif
