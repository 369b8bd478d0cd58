/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The positive control: a known number of real, harmless call-function requests, made with membarrier(2).
 *
 *   barriers MANY SINGLE SENDER,TARGET[,TARGET...] [NAME]
 *
 * `many`: MANY private expedited barriers. For each the kernel sends `ipi_mb`, in one multi-CPU call, to every CPU that
 * runs a thread of ours. `single`: SINGLE barriers with MEMBARRIER_CMD_FLAG_CPU (5.10) for the first target: `ipi_rseq`,
 * one single request each. The sender is pinned to the first CPU, one spinner (spinners.h) to each other CPU. NAME, at
 * most 15 bytes, becomes the sender's name (comm), by which the probe knows its requests.
 *
 * With SCHED_FIFO a spinner normally stays on its CPU during a barrier. Without, a round may be in doubt, and the answer
 * tells:
 *
 *   done NS asked=A performed=P calls=LOW:HIGH requests=LOW:HIGH targets=T policy=fifo|fair
 *
 * P barriers were made. At least LOW and at most HIGH calls and requests must be seen; LOW = HIGH means exact. A round
 * whose spinners are not all on their CPUs in time makes no barrier; it is tried again, in at most BURSTS bursts.
 */
#define _GNU_SOURCE
#include "helper.h"
#include "spinners.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MAX_TARGETS = 1024, BURSTS = 10 };

static int sender_cpu, targets[MAX_TARGETS], target_count;
static bool rseq_ready;

struct tally {
	long asked, performed, calls_low, requests_low, requests_high;
	int error;
	bool fifo;
};

static int membarrier(int command, unsigned int flags, int cpu)
{
	return (int)syscall(SYS_membarrier, command, flags, cpu);
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

/* Starts the spinners, makes as many barriers as the deadline allows, ends the spinners. */
static void run_burst(bool single, struct tally *tally)
{
	struct burst burst;

	tally->error = burst_begin(&burst, targets, single ? 1 : target_count);
	tally->fifo = burst.fifo;
	for (long round = 1; !tally->error && tally->performed < tally->asked; round++)
		if (!make_barrier(&burst, round, single, tally))
			break;
	burst_end(&burst);
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
		reply_error(tally.error, "after %ld barriers: %s", tally.performed, strerror(tally.error));
	else
		reply("done %llu asked=%ld performed=%ld calls=%ld:%ld requests=%ld:%ld targets=%d policy=%s",
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

	if (argc < 4 || argc > 5 || !read_number(argv[1], 1, 10000, &many) || !read_number(argv[2], 1, 10000, &single) ||
	    !read_cpus(argv[3]))
		return 2;
	if (argc == 5 && prctl(PR_SET_NAME, argv[4]) != 0) {
		reply_error(errno, "take the name %s: %s", argv[4], strerror(errno));
		return 1;
	}
	error = pin_sender();
	if (error) {
		reply_error(error, "run on CPU %d: %s", sender_cpu, strerror(error));
		return 1;
	}
	/* While this is the only thread, registering sends nothing. */
	if (membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0) {
		reply_error(errno, "membarrier private expedited (4.14): %s", strerror(errno));
		return 1;
	}
	rseq_ready = membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ, 0, 0) == 0;
	reply("ready sender=%d targets=%d rseq=%s", sender_cpu, target_count, rseq_ready ? "yes" : "no");
	while (next_command(line, sizeof(line))) {
		if (!strcmp(line, "many"))
			answer(many, false);
		else if (!strcmp(line, "single") && rseq_ready)
			answer(single, true);
		else if (!strcmp(line, "single"))
			reply_error(ENOSYS, "membarrier with a CPU flag (5.10) is not available");
		else
			reply_error(EINVAL, "unknown command");
	}
	return 0;
}
