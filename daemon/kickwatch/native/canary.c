/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The canary: a batch of bare memory cgroups, a small form of the test of 2017, without limits.
 *
 * Commands: `create [COUNT [PIPES]]` creates, enters, uses and leaves N (COUNT) memory cgroups, with PIPES pipes in each;
 * `remove` removes all that exist.
 */
#include "helper.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { MOST = 100000 };

static long batch;

static void create(struct memcgs *groups, const char *arguments)
{
	uint64_t start = now_ns();
	long count = batch;
	int end = 0;

	groups->pipes = 0;
	if (*arguments && (sscanf(arguments, "%ld%n %ld%n", &count, &end, &groups->pipes, &end) < 1 || arguments[end] ||
			   count < 1 || count > MOST || groups->pipes < 0 || groups->pipes > MOST_PIPES))
		reply_error(EINVAL, "create [COUNT [PIPES]], 1 to %d, 0 to %d", MOST, MOST_PIPES);
	else if (groups->first != groups->next)
		reply_error(EEXIST, "the last batch was not removed");
	else if (memcgs_create(groups, count, 0, NULL) == 0)
		reply("done %llu", (unsigned long long)(now_ns() - start));
}

int canary_main(int argc, char **argv)
{
	struct memcgs groups;

	if (argc != 6 || !read_number(argv[2], 1, MOST, &batch) || (strcmp(argv[3], "v1") && strcmp(argv[3], "v2")))
		return 2;
	if (memcgs_open(&groups, argv[1], argv[4], argv[5]) != 0)
		return 1;
	return memcgs_serve(&groups, create);
}
