/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Two readers of /proc/slabinfo at the same moment: one of them waits for slab_mutex, and the stack of its wait tells
 * which mutex that is, on kernels whose kallsyms has no data symbols. Each reads the file once; both begin together,
 * from a spinning start, since a read holds the mutex for some microseconds only.
 *
 * Command: `read`. Done at the kickwatch daemon's start, never in a loop: reading slabinfo stops all slab creation.
 */
#define _GNU_SOURCE
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

enum { READERS = 2, START_NS = 20 * 1000 * 1000, LONGEST_NS = 100 * 1000 * 1000 };

static const char *path;
static atomic_int waiting;

static void *reader(void *unused)
{
	uint64_t begun = now_ns();
	int file = open(path, O_RDONLY | O_CLOEXEC);
	char buffer[256]; /* small: each read() takes the mutex anew, so that the two are sure to meet */

	(void)unused;
	atomic_fetch_add(&waiting, 1);
	while (atomic_load(&waiting) < READERS && now_ns() - begun < START_NS)
		;
	while (file >= 0 && now_ns() - begun < LONGEST_NS && read(file, buffer, sizeof(buffer)) > 0)
		;
	if (file >= 0)
		close(file);
	return NULL;
}

static void read_together(void)
{
	uint64_t start = now_ns();
	pthread_t threads[READERS];
	int started = 0;

	atomic_store(&waiting, 0);
	while (started < READERS && pthread_create(&threads[started], NULL, reader, NULL) == 0)
		started++;
	for (int i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
	say("done %llu readers=%d", (unsigned long long)(now_ns() - start), started);
}

int slabinfo_main(int argc, char **argv)
{
	char command[64];

	if (argc != 2)
		return 2;
	path = argv[1];
	if (access(path, R_OK) != 0) {
		say_error(errno, "%s cannot be read", path);
		return 1;
	}
	say("ready");
	while (next_command(command, sizeof(command))) {
		if (!strcmp(command, "read"))
			read_together();
		else
			say_error(EINVAL, "the only command is `read`");
	}
	return 0;
}
