/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The test that was published with "slab: avoid IPIs when creating kmem caches" (4.12). Each loop creates a memory cgroup
 * with limits on memory and kernel memory, enters it, and creates and unlinks a file.
 *
 * Commands: `create COUNT EVERY` does COUNT more loops, with a `progress N` line after each EVERY loops (0: none);
 * `remove` removes all cgroups. The answer to `create` reports what happened to the limits:
 *   limit=set|absent|refused:ERRNO   memory.limit_in_bytes, or memory.max on v2
 *   kmem=set|noop|absent|refused:ERRNO   memory.kmem.limit_in_bytes: refused with 524 (ENOTSUPP) since 5.16,
 *                                    accepted and ignored since 6.6 and 6.1.y, absent on v2
 */
#define _GNU_SOURCE
#include "helper.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIMIT "1073741824"

static bool is_v2;
static char limit_fate[32], kmem_fate[32];

static void set_limit(int memcg, const char *name, char fate[32])
{
	char back[64];
	int error = write_file(memcg, name, LIMIT);

	if (fate[0]) /* known from the first loop; reading the limit in each would slow the loop down */
		return;
	if (error == ENOENT)
		snprintf(fate, 32, "absent");
	else if (error)
		snprintf(fate, 32, "refused:%d", error);
	else if (read_file(memcg, name, back, sizeof(back)) == 0 && atoll(back) != atoll(LIMIT))
		snprintf(fate, 32, "noop");
	else
		snprintf(fate, 32, "set");
}

static int set_limits(int memcg)
{
	if (is_v2) {
		set_limit(memcg, "memory.max", limit_fate);
		return 0;
	}
	set_limit(memcg, "memory.limit_in_bytes", limit_fate);
	set_limit(memcg, "memory.kmem.limit_in_bytes", kmem_fate);
	return 0;
}

static void create(struct memcgs *groups, const char *arguments)
{
	uint64_t start = now_ns();
	long count, every;

	if (sscanf(arguments, "%ld %ld", &count, &every) != 2 || count < 1 || every < 0)
		reply_error(EINVAL, "create COUNT EVERY");
	else if (memcgs_create(groups, count, every, set_limits) == 0)
		reply("done %llu limit=%s kmem=%s", (unsigned long long)(now_ns() - start), limit_fate,
		    is_v2 ? "absent" : kmem_fate);
}

int reproduce_main(int argc, char **argv)
{
	struct memcgs groups;

	if (argc != 5 || (strcmp(argv[2], "v1") && strcmp(argv[2], "v2")))
		return 2;
	is_v2 = !strcmp(argv[2], "v2");
	if (memcgs_open(&groups, argv[1], argv[3], argv[4]) != 0)
		return 1;
	return memcgs_serve(&groups, create);
}
