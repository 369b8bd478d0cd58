/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The only program of the container image: allocates from many slab caches inside its memory cgroup, waits at a barrier
 * until kickwatch has read that cgroup, and exits.
 *
 *   workload [--deadline-ms N] [--hold-ms N] [--dir PATH]
 *
 * At the barrier its comm is "kw-barrier", and it waits for SIGUSR1 for at most --deadline-ms (30000). With --hold-ms it
 * keeps its objects for another N ms after the release. --dir is the first place to try for its files. It waits without
 * any capability: where /proc is mounted with hidepid, a root without CAP_SYS_PTRACE, such as the daemon, can read the
 * comm of a root process only if that has no capability that the reader lacks (cap_ptrace_access_check()).
 *
 * Exit status: 0 released, 2 usage, 3 not released before the deadline, 143 ended by SIGTERM. A kernel feature that is
 * missing or forbidden is named in one line on standard error and is not an error.
 *
 * It runs as pid 1 of a scratch image: no shell, no /tmp, perhaps a read-only root. The kernel drops signals to the init
 * of a pid namespace if their action is the default. So both signals are blocked first, and taken with sigtimedwait().
 */
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_RELEASED = 0, EXIT_USAGE = 2, EXIT_DEADLINE = 3, EXIT_TERMINATED = 128 + SIGTERM };

static long long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* The signal of `set` that arrived within `ms`, or 0. */
static int wait_signal(const sigset_t *set, long long ms)
{
	long long deadline = now_ms() + ms;

	for (;;) {
		long long left = deadline - now_ms();
		struct timespec ts = { .tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000 };
		int sig;

		if (left < 0)
			ts = (struct timespec){ 0 };
		sig = sigtimedwait(set, NULL, &ts);
		if (sig > 0)
			return sig;
		if (errno != EINTR) /* EAGAIN: timeout */
			return 0;
	}
}

static void drop_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };

	if (syscall(SYS_capset, &header, none))
		fprintf(stderr, "workload: capset: %s\n", strerror(errno));
}

static int wait_at_barrier(const sigset_t *both, long deadline_ms, long hold_ms)
{
	sigset_t term;
	int sig;

	drop_capabilities();
	prctl(PR_SET_NAME, "kw-barrier");
	sig = wait_signal(both, deadline_ms);
	if (sig == SIGTERM)
		return EXIT_TERMINATED;
	if (sig == 0) {
		fprintf(stderr, "workload: the barrier was not released within %ld ms\n", deadline_ms);
		return EXIT_DEADLINE;
	}
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	if (hold_ms > 0 && wait_signal(&term, hold_ms) == SIGTERM)
		return EXIT_TERMINATED;
	return EXIT_RELEASED;
}

static bool read_ms(const char *text, long *ms)
{
	char *end;

	errno = 0;
	*ms = strtol(text, &end, 10);
	return !errno && end != text && !*end && *ms >= 0 && *ms <= 86400000L;
}

int main(int argc, char **argv)
{
	long deadline_ms = 30000, hold_ms = 0;
	const char *wanted = NULL;
	sigset_t both;
	int dir, status;

	sigemptyset(&both);
	sigaddset(&both, SIGUSR1);
	sigaddset(&both, SIGTERM);
	sigprocmask(SIG_BLOCK, &both, NULL);

	for (int i = 1; i < argc; i += 2) {
		const char *value = i + 1 < argc ? argv[i + 1] : "";

		if (!strcmp(argv[i], "--dir") && value[0])
			wanted = value;
		else if (!(!strcmp(argv[i], "--deadline-ms") && read_ms(value, &deadline_ms)) &&
			 !(!strcmp(argv[i], "--hold-ms") && read_ms(value, &hold_ms))) {
			fprintf(stderr, "workload: [--deadline-ms N] [--hold-ms N] [--dir PATH], not %s %s\n", argv[i],
				value);
			return EXIT_USAGE;
		}
	}
	dir = open_home(wanted);
	fill_caches(dir);
	status = wait_at_barrier(&both, deadline_ms, hold_ms);
	if (dir >= 0)
		empty_home(dir);
	return status;
}
