/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Threads that prove that they are on their CPUs (spinners.c), for the positive control (barriers.c).
 *
 * The kernel interrupts a CPU for membarrier(2) only if its rq->curr has our mm at that moment, so a barrier counts only
 * if the spinner cannot have left its CPU. Each spinner publishes its own context switches again and again. The sender
 * takes a fresh value of each, makes the barrier, and takes the values afterwards: an equal value means that the spinner
 * was current all the time.
 */
#ifndef KICKWATCH_SPINNERS_H
#define KICKWATCH_SPINNERS_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct spinner {
	_Alignas(64) atomic_long beat; /* rises while it is on its CPU */
	atomic_long switches;          /* its context switches at that beat */
	atomic_long judged;            /* the last round it has judged */
	atomic_long final;             /* its context switches after that round's barrier; -1: it gave up before */
	long base;                     /* the sender's: `switches` just before the barrier */
	pthread_t thread;
	struct burst *burst;
};

/* A set of spinners that run for some rounds, each with one barrier. */
struct burst {
	_Alignas(64) atomic_long closed; /* the last round whose barrier was made; burst_end() sets the end */
	sem_t up, go; /* each spinner reports that it runs; the sender releases all at once */
	uint64_t deadline_ns, patience_end_ns;
	bool fifo, released;
	int count, started;
	struct spinner *spinners;
};

enum { MAX_CPU = 8192 };

/* Starts one spinner on each CPU and releases them: 0, or an errno. burst_end() in either case. */
int burst_begin(struct burst *burst, const int *cpus, int count);
void burst_end(struct burst *burst);

/* Waits until each spinner has just shown that it is on its CPU; false at the deadline. */
bool all_on_cpu(struct burst *burst);

/* True if the spinner was on its CPU since all_on_cpu() until it saw the barrier of `round`. */
bool stayed_on_cpu(const struct spinner *spinner, long round);

#endif
