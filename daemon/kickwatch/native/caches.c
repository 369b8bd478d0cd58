/* SPDX-License-Identifier: GPL-2.0-only */
/* Allocates from many slab caches, and keeps what it allocated. */
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { FILES = 16, DIRECTORIES = 16, MISSING_NAMES = 64, PAIRS = 8, TIMERS = 8, MAPPINGS = 64 };

static char missing[512]; /* what this kernel or sandbox does not allow: "name (reason), ..." */

static void note_missing(const char *feature)
{
	size_t used = strlen(missing);

	snprintf(missing + used, sizeof(missing) - used, "%s%s (%s)", used ? ", " : "", feature, strerror(errno));
}

static char home[256]; /* path of our directory, to remove it at the end */

int open_home(const char *wanted)
{
	const char *places[] = { wanted, "/", "/dev/shm", "/run", "/tmp", "." };

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		int dir;

		if (!places[i])
			continue;
		snprintf(home, sizeof(home), "%s/kw-workload-%d", places[i], getpid());
		if (mkdir(home, 0700) != 0)
			continue;
		dir = open(home, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (dir >= 0)
			return dir;
		rmdir(home);
	}
	home[0] = '\0';
	return -1;
}

/* As in the test of 2017: create and unlink. The open descriptor keeps the inode, the dentry and the file. */
static void fill_files(int dir)
{
	char name[32];

	for (int i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "file%d", i);
		if (openat(dir, name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600) < 0) {
			note_missing("open");
			return;
		}
		unlinkat(dir, name, 0);
	}
}

static void fill_dentries(int dir)
{
	struct stat st;
	char name[32];

	for (int i = 0; i < DIRECTORIES; i++) {
		snprintf(name, sizeof(name), "dir%d", i);
		if (mkdirat(dir, name, 0700) != 0)
			return note_missing("mkdir");
		snprintf(name, sizeof(name), "link%d", i);
		if (symlinkat("a target that is too long to be stored inside the inode of any file system: it needs separate memory",
			      dir, name) != 0)
			return note_missing("symlink");
	}
	for (int i = 0; i < MISSING_NAMES; i++) { /* negative dentries */
		snprintf(name, sizeof(name), "missing%d", i);
		(void)fstatat(dir, name, &st, 0);
	}
}

void empty_home(int dir)
{
	char name[32];

	for (int i = 0; i < DIRECTORIES; i++) {
		snprintf(name, sizeof(name), "dir%d", i);
		unlinkat(dir, name, AT_REMOVEDIR);
		snprintf(name, sizeof(name), "link%d", i);
		unlinkat(dir, name, 0);
	}
	rmdir(home);
}

static void fill_pipes(void)
{
	int ends[2];

	for (int i = 0; i < PAIRS; i++) {
		if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
			return note_missing("pipe");
		if (write(ends[1], "x", 1) != 1)
			return note_missing("write to a pipe");
	}
}

static void fill_sockets(void)
{
	const struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const int kinds[] = { SOCK_STREAM, SOCK_DGRAM };
	int pair[2];

	for (int i = 0; i < PAIRS; i++) {
		if (socketpair(AF_UNIX, kinds[i % 2] | SOCK_CLOEXEC, 0, pair) != 0)
			return note_missing("socketpair");
		if (send(pair[0], "x", 1, MSG_DONTWAIT) != 1) /* an skb stays queued */
			return note_missing("send");
		if (socket(AF_UNIX, kinds[i % 2] | SOCK_CLOEXEC, 0) < 0)
			return note_missing("unix socket");
	}
	for (int i = 0; i < PAIRS; i++) {
		int fd = socket(AF_INET, kinds[i % 2] | SOCK_CLOEXEC, 0);

		if (fd < 0)
			return note_missing("inet socket");
		/* Both may fail if the loopback device is down: the socket is kept nevertheless. */
		if (bind(fd, (const struct sockaddr *)&any, sizeof(any)) == 0 && kinds[i % 2] == SOCK_STREAM)
			(void)listen(fd, 1);
	}
}

static void fill_events(void)
{
	struct epoll_event event = { .events = EPOLLIN };
	sigset_t none;
	int poll, fd;

	poll = epoll_create1(EPOLL_CLOEXEC);
	if (poll < 0)
		return note_missing("epoll");
	for (int i = 0; i < PAIRS; i++) {
		fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (fd < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) != 0)
			return note_missing("eventfd");
	}
	fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	if (fd < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) != 0)
		note_missing("timerfd");
	sigemptyset(&none);
	if (signalfd(-1, &none, SFD_CLOEXEC) < 0)
		note_missing("signalfd");
}

static void fill_watches(void)
{
	int fd = inotify_init1(IN_CLOEXEC);

	if (fd < 0 || inotify_add_watch(fd, home[0] ? home : "/", IN_CREATE | IN_DELETE) < 0)
		note_missing("inotify");
}

static void fill_timers(void)
{
	struct sigevent no_signal = { .sigev_notify = SIGEV_NONE };
	timer_t timer;

	for (int i = 0; i < TIMERS; i++)
		if (timer_create(CLOCK_MONOTONIC, &no_signal, &timer) != 0)
			return note_missing("timer_create"); /* ENOSYS without CONFIG_POSIX_TIMERS */
}

/* Adjacent mappings with different protection are not merged: each is a VMA with a page. */
static void fill_mappings(void)
{
	long page = sysconf(_SC_PAGESIZE);

	for (int i = 0; i < MAPPINGS; i++) {
		char *at = mmap(NULL, (size_t)page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (at == MAP_FAILED)
			return note_missing("mmap");
		*at = 1;
		if (i % 2)
			(void)mprotect(at, (size_t)page, PROT_READ);
	}
}

/* Allocates and frees a task_struct, mm, page tables and sighand. */
static void fill_child(void)
{
	pid_t child = fork();

	if (child == 0)
		_exit(0);
	if (child < 0)
		return note_missing("fork");
	while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
}

void fill_caches(int dir)
{
	if (dir >= 0) {
		fill_files(dir);
		fill_dentries(dir);
	} else {
		note_missing("a directory to write in");
	}
	fill_pipes();
	fill_sockets();
	fill_events();
	fill_watches();
	fill_timers();
	fill_mappings();
	fill_child();
	if (missing[0])
		fprintf(stderr, "workload: not available here: %s\n", missing);
}
