/* SPDX-License-Identifier: GPL-2.0-only */
/* Creates, enters, uses and leaves memory cgroups, one after the other; removes them together. For cgroup v1 and v2. */
#define _GNU_SOURCE
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { STOP_CHECK_EVERY = 64, RMDIR_TRIES = 100, PAUSE_EVERY = 64 };

int write_file(int dir, const char *name, const char *text)
{
	int fd = openat(dir, name, O_WRONLY | O_CLOEXEC), error = 0;

	if (fd < 0)
		return errno;
	if (write(fd, text, strlen(text)) < 0)
		error = errno;
	close(fd);
	return error;
}

int read_file(int dir, const char *name, char *text, size_t size)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC), error = 0;
	ssize_t got;

	if (fd < 0)
		return errno;
	got = read(fd, text, size - 1);
	if (got < 0)
		error = errno;
	text[got > 0 ? got : 0] = '\0';
	close(fd);
	return error;
}

/* Unique as long as this process runs, over all batches: the name of a dying memcg is never reused. */
static void name_of(char name[48], long serial)
{
	snprintf(name, 48, "kw-%d-%ld", getpid(), serial);
}

int memcgs_open(struct memcgs *groups, const char *parent, const char *home, const char *scratch)
{
	char procs[4096];

	*groups = (struct memcgs){ 0 };
	groups->parent = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (groups->parent < 0)
		return reply_error(errno, "%s: %s", parent, strerror(errno));
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", home);
	groups->home = open(procs, O_WRONLY | O_CLOEXEC);
	if (groups->home < 0)
		return reply_error(errno, "%s: %s", procs, strerror(errno));
	groups->scratch = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (groups->scratch < 0)
		return reply_error(errno, "%s: %s", scratch, strerror(errno));
	return 0;
}

/*
 * "0" is the writing process, on v1 and v2. On v2 PARENT may have controllers enabled for its children, and then it
 * cannot contain a process ("no internal processes"). So the process returns to the cgroup that it came from.
 */
static int go_home(struct memcgs *groups)
{
	if (write(groups->home, "0", 1) < 0)
		return reply_error(errno, "return to the first cgroup: %s", strerror(errno));
	return 0;
}

static int touch(struct memcgs *groups, const char *name)
{
	int fd = openat(groups->scratch, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);

	if (fd < 0)
		return reply_error(errno, "create a file in the scratch directory: %s", strerror(errno));
	close(fd);
	if (unlinkat(groups->scratch, name, 0) != 0)
		return reply_error(errno, "unlink a file in the scratch directory: %s", strerror(errno));
	return 0;
}

/*
 * A pipe takes 2 KiB of kernel memory, and is charged for it to the memcg in which it is made. Before "mm: memcg/slab: use a
 * single set of kmem_caches for all accounted allocations" (5.9) a kworker makes the caches of a memcg after the first
 * request for an object, which is charged to nobody: so there are pauses. Fewer pipes than wanted are no error.
 */
static void make_pipes(struct memcgs *groups)
{
	const struct timespec pause = { .tv_nsec = 25000000 };

	for (long made = 0; made < groups->pipes && groups->holds < 2 * MOST_PIPES; made++) {
		if (pipe2(&groups->held[groups->holds], O_CLOEXEC) != 0)
			return;
		groups->holds += 2;
		if (made % PAUSE_EVERY == 0)
			nanosleep(&pause, NULL);
	}
}

static void close_pipes(struct memcgs *groups)
{
	while (groups->holds > 0)
		close(groups->held[--groups->holds]);
}

static int create_one(struct memcgs *groups, prepare_fn prepare)
{
	char name[48];
	int dir, error, status = 0;

	name_of(name, groups->next);
	if (mkdirat(groups->parent, name, 0755) != 0)
		return reply_error(errno, "mkdir %s: %s", name, strerror(errno));
	groups->next++;
	dir = openat(groups->parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return reply_error(errno, "%s: %s", name, strerror(errno));
	if (prepare)
		status = prepare(dir);
	if (status == 0) {
		error = write_file(dir, "cgroup.procs", "0");
		if (error)
			status = reply_error(error, "%s/cgroup.procs: %s", name, strerror(error));
		else
			status = touch(groups, name);
		if (status == 0)
			make_pipes(groups);
	}
	close(dir);
	return status;
}

int memcgs_create(struct memcgs *groups, long count, long progress_every, prepare_fn prepare)
{
	for (long made = 1; made <= count; made++) {
		if (made % STOP_CHECK_EVERY == 0 && must_stop()) {
			(void)go_home(groups);
			return -1;
		}
		if (create_one(groups, prepare) != 0) {
			/* The error line is written; a command has only one answer, so a second error is ignored. */
			(void)!write(groups->home, "0", 1);
			return -1;
		}
		if (progress_every && made % progress_every == 0)
			reply("progress %ld", made);
	}
	return go_home(groups);
}

/* EBUSY ends soon: a task is counted until shortly after its exit, and css references end after a grace period. */
static int remove_one(struct memcgs *groups, const char *name)
{
	const struct timespec pause = { .tv_nsec = 2000000 };

	for (int i = 0; i < RMDIR_TRIES; i++) {
		if (unlinkat(groups->parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
			return 0;
		if (errno != EBUSY)
			break;
		nanosleep(&pause, NULL);
	}
	return reply_error(errno, "rmdir %s: %s", name, strerror(errno));
}

int memcgs_remove(struct memcgs *groups)
{
	char name[48];

	close_pipes(groups);
	for (; groups->first < groups->next; groups->first++) {
		name_of(name, groups->first);
		if (remove_one(groups, name) != 0)
			return -1;
	}
	return 0;
}

int memcgs_serve(struct memcgs *groups, create_fn create)
{
	char line[64];

	reply("ready");
	while (next_command(line, sizeof(line))) {
		uint64_t start = now_ns();

		if (!strcmp(line, "create") || !strncmp(line, "create ", 7))
			create(groups, line[6] ? line + 7 : "");
		else if (strcmp(line, "remove"))
			reply_error(EINVAL, "unknown command");
		else if (memcgs_remove(groups) == 0)
			reply("done %llu", (unsigned long long)(now_ns() - start));
	}
	return memcgs_remove(groups) == 0 ? 0 : 1;
}
