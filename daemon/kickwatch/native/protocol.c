/* SPDX-License-Identifier: GPL-2.0-only */
/* The protocol of kw-helper (helper.h): reads commands, writes answers, and detects when to stop. */
#define _GNU_SOURCE
#include "helper.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t terminated;
static bool parent_gone;

static void on_term(int sig)
{
	(void)sig;
	terminated = 1;
}

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

bool must_stop(void)
{
	struct pollfd in = { .fd = STDIN_FILENO };

	if (poll(&in, 1, 0) > 0 && (in.revents & (POLLHUP | POLLERR | POLLNVAL)))
		parent_gone = true;
	return terminated || parent_gone;
}

bool next_command(char *line, size_t size)
{
	static char kept[256];
	static size_t filled;

	while (!terminated && !parent_gone) {
		char *end = memchr(kept, '\n', filled);
		ssize_t got;

		if (end) {
			size_t length = (size_t)(end - kept);

			snprintf(line, size, "%.*s", (int)length, kept);
			filled -= length + 1;
			memmove(kept, end + 1, filled);
			return true;
		}
		if (filled == sizeof(kept)) /* no command is so long */
			return false;
		got = read(STDIN_FILENO, kept + filled, sizeof(kept) - filled);
		if (got == 0 || (got < 0 && errno != EINTR))
			return false;
		if (got > 0)
			filled += (size_t)got;
	}
	return false;
}

/* One write per line: the parent reads the clock when it has the whole line. */
static void write_line(const char *prefix, const char *format, va_list arguments)
{
	char line[512];
	int used = snprintf(line, sizeof(line), "%s", prefix);
	size_t length;

	vsnprintf(line + used, sizeof(line) - (size_t)used - 1, format, arguments);
	length = strlen(line);
	line[length++] = '\n';
	for (size_t sent = 0; sent < length;) {
		ssize_t put = write(STDOUT_FILENO, line + sent, length - sent);

		if (put < 0 && errno != EINTR) {
			parent_gone = true;
			return;
		}
		if (put > 0)
			sent += (size_t)put;
	}
}

void reply(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	write_line("", format, arguments);
	va_end(arguments);
}

int reply_error(int error, const char *format, ...)
{
	char prefix[32];
	va_list arguments;

	snprintf(prefix, sizeof(prefix), "error %d ", error);
	va_start(arguments, format);
	write_line(prefix, format, arguments);
	va_end(arguments);
	return -1;
}

bool read_number(const char *text, long low, long high, long *number)
{
	char *end;

	errno = 0;
	*number = strtol(text, &end, 10);
	return !errno && end != text && !*end && *number >= low && *number <= high;
}

/* The pipe also shows that the parent has ended, but only on a read: without the signal a long loop would continue. */
void follow_parent(void)
{
	struct sigaction ignore = { .sa_handler = SIG_IGN };
	struct sigaction term = { .sa_handler = on_term }; /* no SA_RESTART: read() must return */

	sigaction(SIGPIPE, &ignore, NULL);
	sigaction(SIGTERM, &term, NULL);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
}

bool ended_by_signal(void)
{
	return terminated;
}
