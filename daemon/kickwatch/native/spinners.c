/* SPDX-License-Identifier: GPL-2.0-only */
/* Threads that prove that they are on their CPUs: see spinners.h. */
#define _GNU_SOURCE
#include "spinners.h"

#include "helper.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/resource.h>

/* No round begins later. Both limits are far below the 950 ms per second that the kernel grants to real-time tasks. */
static const uint64_t burst_ns = 60 * 1000000ULL;

/*
 * Spinners run longer than the sender. The sender can be delayed in the middle of a round, by the fair server of 6.8+,
 * which lends the CPU to other tasks for 50 ms, or by the host. A spinner that gave up then would put the round in doubt.
 */
static const uint64_t patience_ns = 300 * 1000000ULL;

/* Less than the shortest slice that a fair scheduler grants (0.7 ms). */
static const uint64_t slice_ns = 400000ULL;

/* How long the sender waits for all beats before it checks its own slice again; 1 us more for each spinner. */
static const uint64_t moment_ns = 200000ULL;

static const long the_end = __LONG_MAX__;

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

static long own_switches(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_nvcsw + usage.ru_nivcsw;
}

/*
 * Without SCHED_FIFO a slice may end in the middle of a barrier. So the thread yields early enough, before the beat after
 * which a barrier may be made.
 */
static long fresh_switches(bool fifo)
{
	static _Thread_local uint64_t since_ns;
	static _Thread_local long seen = -1;
	long switches = own_switches();

	if (fifo)
		return switches;
	if (switches == seen && now_ns() - since_ns > slice_ns) {
		sched_yield();
		switches = own_switches();
		since_ns = now_ns();
	} else if (switches != seen) {
		since_ns = now_ns();
	}
	seen = switches;
	return switches;
}

/* Publishes the thread's context switches until *value >= round; false when its patience is over. */
static bool beat_until(struct spinner *self, atomic_long *value, long round)
{
	while (atomic_load(value) < round) {
		if (now_ns() > self->burst->patience_end_ns)
			return false;
		atomic_store(&self->switches, fresh_switches(self->burst->fifo));
		atomic_fetch_add(&self->beat, 1);
		for (int i = 0; i < 32; i++) /* getrusage() takes a lock that all spinners share */
			relax();
	}
	return true;
}

static void *spin(void *argument)
{
	struct spinner *self = argument;
	struct burst *burst = self->burst;

	sem_post(&burst->up);
	while (sem_wait(&burst->go) != 0)
		;
	for (long round = 1; atomic_load(&burst->closed) != the_end; round++) {
		/* If it gives up before the barrier, it cannot tell where it was at the barrier. */
		atomic_store(&self->final, beat_until(self, &burst->closed, round) ? own_switches() : -1);
		atomic_store(&self->judged, round);
	}
	return NULL;
}

static bool all_beat(struct burst *burst, uint64_t deadline_ns)
{
	for (int i = 0; i < burst->count; i++)
		burst->spinners[i].base = atomic_load(&burst->spinners[i].beat);
	for (int i = 0; i < burst->count; i++)
		while (atomic_load(&burst->spinners[i].beat) == burst->spinners[i].base) {
			if (now_ns() > deadline_ns)
				return false;
			relax();
		}
	return true;
}

bool all_on_cpu(struct burst *burst)
{
	do {
		if (now_ns() > burst->deadline_ns)
			return false;
		(void)fresh_switches(burst->fifo); /* the sender's slice must last as well */
	} while (!all_beat(burst, now_ns() + moment_ns + 1000ULL * (uint64_t)burst->count));
	for (int i = 0; i < burst->count; i++)
		burst->spinners[i].base = atomic_load(&burst->spinners[i].switches);
	return true;
}

/* Takes little time, since a spinner judges at once. If its CPU went offline it runs on ours: hence the yield. */
bool stayed_on_cpu(const struct spinner *spinner, long round)
{
	for (int i = 1; atomic_load(&spinner->judged) < round; i++)
		if (i % 4096 == 0)
			sched_yield();
		else
			relax();
	return atomic_load(&spinner->final) == spinner->base;
}

static int start_spinner(struct spinner *spinner, int cpu)
{
	struct sched_param lowest = { .sched_priority = 1 };
	size_t size = CPU_ALLOC_SIZE(MAX_CPU);
	cpu_set_t *set = CPU_ALLOC(MAX_CPU);
	pthread_attr_t attributes;
	int error;

	if (!set)
		return ENOMEM;
	CPU_ZERO_S(size, set);
	CPU_SET_S((size_t)cpu, size, set);
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 65536);
	pthread_attr_setaffinity_np(&attributes, size, set);
	if (spinner->burst->fifo) {
		pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
		pthread_attr_setschedpolicy(&attributes, SCHED_FIFO);
		pthread_attr_setschedparam(&attributes, &lowest);
	}
	error = pthread_create(&spinner->thread, &attributes, spin, spinner);
	pthread_attr_destroy(&attributes);
	CPU_FREE(set);
	return error;
}

/* The sender must be real-time too, or it would wait for the spinners. If that is refused, all are fair. */
static bool set_sender_fifo(bool fifo)
{
	struct sched_param param = { .sched_priority = fifo ? 1 : 0 };

	return sched_setscheduler(0, fifo ? SCHED_FIFO : SCHED_OTHER, &param) == 0;
}

static void release(struct burst *burst)
{
	burst->released = true;
	burst->deadline_ns = now_ns() + burst_ns;
	burst->patience_end_ns = now_ns() + patience_ns;
	for (int i = 0; i < burst->started; i++)
		sem_post(&burst->go);
}

int burst_begin(struct burst *burst, const int *cpus, int count)
{
	*burst = (struct burst){ .count = count };
	burst->spinners = aligned_alloc(64, sizeof(*burst->spinners) * (size_t)count);
	if (!burst->spinners)
		return ENOMEM;
	burst->fifo = set_sender_fifo(true);
	sem_init(&burst->up, 0, 0);
	sem_init(&burst->go, 0, 0);
	for (; burst->started < count; burst->started++) {
		struct spinner *spinner = &burst->spinners[burst->started];
		int error;

		*spinner = (struct spinner){ .burst = burst };
		error = start_spinner(spinner, cpus[burst->started]);
		if (error)
			return error;
	}
	for (int i = 0; i < count; i++)
		while (sem_wait(&burst->up) != 0)
			;
	release(burst);
	return 0;
}

void burst_end(struct burst *burst)
{
	if (!burst->spinners)
		return;
	atomic_store(&burst->closed, the_end);
	if (!burst->released) /* not all could be started */
		release(burst);
	for (int i = 0; i < burst->started; i++)
		pthread_join(burst->spinners[i].thread, NULL);
	if (burst->fifo)
		set_sender_fifo(false);
	sem_destroy(&burst->up);
	sem_destroy(&burst->go);
	free(burst->spinners);
}
