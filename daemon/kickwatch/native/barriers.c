/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The positive control: a known number of real, harmless call-function requests, made with membarrier(2).
 *
 *   barriers MANY SINGLE SENDER,TARGET[,TARGET...]
 *
 * `many`: MANY private expedited barriers. The kernel sends `ipi_mb` to every CPU that runs a thread of ours, in one
 * multi-CPU call a barrier. `single`: SINGLE barriers with MEMBARRIER_CMD_FLAG_CPU (5.10) for the first target:
 * `ipi_rseq`, one single request each. The sender is pinned on the first CPU, one spinner on each other one.
 *
 * The kernel interrupts a CPU only if its rq->curr has our mm at that moment, so a barrier counts only if the
 * spinner cannot have been off its CPU. Each spinner publishes its own context switches again and again; the sender
 * takes a fresh value of every one, makes the barrier, and takes the values afterwards: an equal value means current
 * throughout. With SCHED_FIFO that is the rule; without, a round may end in doubt, and the answer says so:
 *
 *   done NS asked=A performed=P calls=LOW:HIGH requests=LOW:HIGH targets=T policy=fifo|fair
 *
 * P barriers were made, at least LOW and at most HIGH calls and requests must be seen; LOW = HIGH means exact. A
 * round whose spinners did not all get onto their CPUs in time is not made but tried again, in up to BURSTS bursts.
 */
#define _GNU_SOURCE
#include "helper.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CPU = 8192, MAX_TARGETS = 1024, BURSTS = 10 };

/* No round begins later. Both are far under the 950 ms a second that the kernel grants real-time tasks. */
static const uint64_t burst_ns = 60 * 1000000ULL;

/*
 * Spinners outlast the sender: one that gave up while the sender was held up in the middle of a round (by the fair
 * server of 6.8+, which lends the CPU to others for 50 ms, or by the host) would put that round in doubt.
 */
static const uint64_t patience_ns = 300 * 1000000ULL;

/* Under the shortest slice a fair scheduler grants (0.7 ms). */
static const uint64_t slice_ns = 400000ULL;

/* How long the sender waits for the beats of all before it looks at its own slice again, plus 1 us a spinner. */
static const uint64_t moment_ns = 200000ULL;

static int sender_cpu, targets[MAX_TARGETS], target_count;
static bool rseq_ready;

struct spinner {
	_Alignas(64) atomic_long beat; /* rises while it is on its CPU */
	atomic_long switches;          /* its context switches at that beat */
	atomic_long judged;           /* the last round it judged */
	atomic_long final;             /* its context switches after that round's barrier; -1: it gave up before */
	long base;                     /* the sender's: `switches` just before the barrier */
	pthread_t thread;
	struct burst *burst;
};

struct burst {
	_Alignas(64) atomic_long closed; /* the last round whose barrier was made; the_end ends it */
	sem_t up, go; /* each spinner says it is there; the sender lets all go at once */
	uint64_t deadline_ns, patience_end_ns;
	bool fifo;
	int count;
	struct spinner *spinners;
};

struct tally {
	long asked, performed, calls_low, requests_low, requests_high;
	int error;
	bool fifo;
};

static const long the_end = __LONG_MAX__;

static int membarrier(int command, unsigned int flags, int cpu)
{
	return (int)syscall(SYS_membarrier, command, flags, cpu);
}

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
 * Without SCHED_FIFO a slice may end in the middle of a barrier: so it is given away in good time, before the beat
 * that would invite one.
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

/* Publishes its context switches until *value >= round; false when its patience is over. */
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
		/* Giving up before the barrier proves nothing about the moment of the barrier. */
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

/* Waits until each spinner has shown within the last moments that it is on its CPU; false at the deadline. */
static bool all_on_cpu(struct burst *burst)
{
	do {
		if (now_ns() > burst->deadline_ns)
			return false;
		(void)fresh_switches(burst->fifo); /* the sender's slice must last too */
	} while (!all_beat(burst, now_ns() + moment_ns + 1000ULL * (uint64_t)burst->count));
	for (int i = 0; i < burst->count; i++)
		burst->spinners[i].base = atomic_load(&burst->spinners[i].switches);
	return true;
}

/* Short, since a spinner judges at once. The yield matters if its CPU went offline and it came to ours. */
static bool stayed_on_cpu(const struct spinner *spinner, long round)
{
	for (int i = 1; atomic_load(&spinner->judged) < round; i++)
		if (i % 4096 == 0)
			sched_yield();
		else
			relax();
	return atomic_load(&spinner->final) == spinner->base;
}

/* One round: true if the barrier was made. */
static bool make_barrier(struct burst *burst, long round, bool single, struct tally *tally)
{
	int sure = 0;

	if (!all_on_cpu(burst))
		return false;
	if (single ? membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ, MEMBARRIER_CMD_FLAG_CPU, targets[0])
		   : membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0)) {
		tally->error = errno;
		return false;
	}
	atomic_store(&burst->closed, round);
	for (int i = 0; i < burst->count; i++)
		sure += stayed_on_cpu(&burst->spinners[i], round);
	tally->performed++;
	tally->calls_low += sure > 0;
	tally->requests_low += sure;
	tally->requests_high += burst->count;
	return true;
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

/* The sender takes the real-time class too, so that spinners do not wait for it; refused means fair for all. */
static bool set_sender_fifo(bool fifo)
{
	struct sched_param param = { .sched_priority = fifo ? 1 : 0 };

	return sched_setscheduler(0, fifo ? SCHED_FIFO : SCHED_OTHER, &param) == 0;
}

static void let_go(struct burst *burst, int started)
{
	burst->deadline_ns = now_ns() + burst_ns;
	burst->patience_end_ns = now_ns() + patience_ns;
	for (int i = 0; i < started; i++)
		sem_post(&burst->go);
}

static void run_rounds(struct burst *burst, bool single, struct tally *tally)
{
	for (int i = 0; i < burst->count; i++)
		while (sem_wait(&burst->up) != 0)
			;
	let_go(burst, burst->count);
	for (long round = 1; tally->performed < tally->asked; round++)
		if (!make_barrier(burst, round, single, tally))
			break;
	atomic_store(&burst->closed, the_end);
}

/* Starts the spinners, makes as many barriers as the deadline allows, ends the spinners. */
static void run_burst(bool single, struct tally *tally)
{
	struct spinner *spinners = aligned_alloc(64, sizeof(*spinners) * (size_t)target_count);
	struct burst burst = { .count = single ? 1 : target_count, .spinners = spinners };
	int started = 0;

	if (!spinners) {
		tally->error = ENOMEM;
		return;
	}
	burst.fifo = tally->fifo = set_sender_fifo(true);
	sem_init(&burst.up, 0, 0);
	sem_init(&burst.go, 0, 0);
	for (; started < burst.count; started++) {
		spinners[started] = (struct spinner){ .burst = &burst };
		tally->error = start_spinner(&spinners[started], targets[started]);
		if (tally->error)
			break;
	}
	if (tally->error) { /* a spinner is missing: the others go home */
		atomic_store(&burst.closed, the_end);
		let_go(&burst, started);
	} else {
		run_rounds(&burst, single, tally);
	}
	for (int i = 0; i < started; i++)
		pthread_join(spinners[i].thread, NULL);
	if (burst.fifo)
		set_sender_fifo(false);
	sem_destroy(&burst.up);
	sem_destroy(&burst.go);
	free(spinners);
}

static void answer(long asked, bool single)
{
	struct tally tally = { .asked = asked };
	const struct timespec pause = { .tv_nsec = 20000000 };
	uint64_t start = now_ns();

	for (int i = 0; i < BURSTS && tally.performed < asked && !tally.error; i++) {
		if (i)
			nanosleep(&pause, NULL);
		run_burst(single, &tally);
	}
	if (tally.error)
		say_error(tally.error, "after %ld barriers: %s", tally.performed, strerror(tally.error));
	else
		say("done %llu asked=%ld performed=%ld calls=%ld:%ld requests=%ld:%ld targets=%d policy=%s",
		    (unsigned long long)(now_ns() - start), asked, tally.performed, tally.calls_low, tally.performed,
		    tally.requests_low, tally.requests_high, single ? 1 : target_count, tally.fifo ? "fifo" : "fair");
}

/* "0,2,5": the sender, then the targets, all different. */
static bool read_cpus(char *list)
{
	char *rest = NULL;
	long cpu;
	int seen = 0;

	for (char *word = strtok_r(list, ",", &rest); word; word = strtok_r(NULL, ",", &rest), seen++) {
		if (!read_number(word, 0, MAX_CPU - 1, &cpu) || seen > MAX_TARGETS)
			return false;
		for (int i = 0; i < seen; i++)
			if (cpu == (i ? targets[i - 1] : sender_cpu))
				return false;
		if (seen)
			targets[seen - 1] = (int)cpu;
		else
			sender_cpu = (int)cpu;
	}
	target_count = seen - 1;
	return seen >= 2;
}

static int pin_sender(void)
{
	size_t size = CPU_ALLOC_SIZE(MAX_CPU);
	cpu_set_t *set = CPU_ALLOC(MAX_CPU);
	int error = 0;

	if (!set)
		return ENOMEM;
	CPU_ZERO_S(size, set);
	CPU_SET_S((size_t)sender_cpu, size, set);
	if (sched_setaffinity(0, size, set) != 0)
		error = errno;
	CPU_FREE(set);
	return error;
}

int barriers_main(int argc, char **argv)
{
	long many, single;
	char line[64];
	int error;

	if (argc != 4 || !read_number(argv[1], 1, 10000, &many) || !read_number(argv[2], 1, 10000, &single) ||
	    !read_cpus(argv[3]))
		return 2;
	error = pin_sender();
	if (error) {
		say_error(error, "run on CPU %d: %s", sender_cpu, strerror(error));
		return 1;
	}
	/* While this is the only thread, registering sends nothing. */
	if (membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0) {
		say_error(errno, "membarrier private expedited (4.14): %s", strerror(errno));
		return 1;
	}
	rseq_ready = membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ, 0, 0) == 0;
	say("ready sender=%d targets=%d rseq=%s", sender_cpu, target_count, rseq_ready ? "yes" : "no");
	while (next_command(line, sizeof(line))) {
		if (!strcmp(line, "many"))
			answer(many, false);
		else if (!strcmp(line, "single") && rseq_ready)
			answer(single, true);
		else if (!strcmp(line, "single"))
			say_error(ENOSYS, "membarrier with a CPU flag (5.10) is not available");
		else
			say_error(EINVAL, "unknown command");
	}
	return 0;
}
