/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Two threads read /proc/slabinfo at the same time: one of them waits for slab_mutex, and the stack of its wait shows which
 * mutex that is, on kernels whose kallsyms has no data symbols. Each reads the file once. Both spin until the other is
 * ready, since a read holds the mutex only for some microseconds.
 *
 * Commands: `read`; `repeat`, by which both read it again and again for 100 ms, since CPUs that take turns on one thread (an
 * emulator's) meet only where one is stopped within a read; and `share`, by which both read through one descriptor. Then each read(2) holds the mutex of the file's
 * position, so that one of the two nearly always waits for a mutex, if not for slab_mutex: on PREEMPT_RT any wait shows
 * where a mutex has its owner. For those 20 ms they have SCHED_FIFO, if it is allowed: a holder is not preempted within a
 * read, so on a busy node two ordinary tasks may never meet. The daemon does this at its start alone: while slabinfo is read
 * no slab cache can be created.
 */
#define _GNU_SOURCE
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

enum { READERS = 2, START_NS = 60 * 1000 * 1000, LONGEST_NS = 100 * 1000 * 1000, SHARED_NS = 20 * 1000 * 1000 };

static const char *path;
static int shared; /* the descriptor that both read, -1 if each has its own */
static bool repeated;
static atomic_int waiting;

/* The first two CPUs that we may use, one for each reader: on one CPU they would take turns and never meet. */
static void pin_to_cpu(int which)
{
	cpu_set_t allowed, mine;

	if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0)
		return;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &allowed) || which-- > 0)
			continue;
		CPU_ZERO(&mine);
		CPU_SET(cpu, &mine);
		sched_setaffinity(0, sizeof(mine), &mine);
		return;
	}
}

static void *reader(void *number)
{
	const struct sched_param lowest = { .sched_priority = 1 };
	uint64_t begun, longest = shared >= 0 ? SHARED_NS : LONGEST_NS;
	int file = shared >= 0 ? shared : open(path, O_RDONLY | O_CLOEXEC);
	char buffer[256]; /* small: each read() takes the mutex again, and the two are sure to meet */

	pin_to_cpu((int)(intptr_t)number);
	begun = now_ns();
	atomic_fetch_add(&waiting, 1);
	while (atomic_load(&waiting) < READERS && now_ns() - begun < START_NS)
		;
	if (shared >= 0)
		sched_setscheduler(0, SCHED_FIFO, &lowest); /* of this thread; earlier it would keep the other from starting */
	begun = now_ns();
	while (file >= 0 && now_ns() - begun < longest)
		if (read(file, buffer, sizeof(buffer)) <= 0 && (!repeated || lseek(file, 0, SEEK_SET) != 0))
			break;
	if (file >= 0 && file != shared)
		close(file);
	return NULL;
}

static void read_together(void)
{
	uint64_t start = now_ns();
	pthread_t threads[READERS];
	int started = 0;

	atomic_store(&waiting, 0);
	while (started < READERS && pthread_create(&threads[started], NULL, reader, (void *)(intptr_t)started) == 0)
		started++;
	for (int i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
	reply("done %llu readers=%d", (unsigned long long)(now_ns() - start), started);
}

int slabinfo_main(int argc, char **argv)
{
	char command[64];

	if (argc != 2)
		return 2;
	path = argv[1];
	if (access(path, R_OK) != 0) {
		reply_error(errno, "%s cannot be read", path);
		return 1;
	}
	reply("ready");
	while (next_command(command, sizeof(command))) {
		shared = !strcmp(command, "share") ? open(path, O_RDONLY | O_CLOEXEC) : -1;
		repeated = strcmp(command, "read") != 0;
		if (!repeated || !strcmp(command, "repeat") || !strcmp(command, "share"))
			read_together();
		else
			reply_error(EINVAL, "the commands are `read`, `repeat` and `share`");
		if (shared >= 0)
			close(shared);
	}
	return 0;
}
