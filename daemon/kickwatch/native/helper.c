/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * kickwatch-helper: the small experiments that need a process of their own, driven over pipes (helper.h has the
 * protocol) so that kickwatch can sample at exact moments.
 *
 *   helper canary PARENT N v1|v2 HOME SCRATCH    a batch of bare memory cgroups
 *   helper reproduce PARENT v1|v2 HOME SCRATCH   the 2017 test
 *   helper barriers MANY SINGLE CPU,CPU[,...]    the positive control
 *   helper slabinfo FILE                         one wait for slab_mutex
 *
 * PARENT, HOME: cgroup directories of the memory hierarchy; SCRATCH: a directory for a file.
 * Exit status: 0 the parent said goodbye, 1 could not work, 2 usage, 143 ended by SIGTERM.
 */
#include "helper.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	int status = 2;

	follow_parent();
	if (argc >= 2 && !strcmp(argv[1], "canary"))
		status = canary_main(argc - 1, argv + 1);
	else if (argc >= 2 && !strcmp(argv[1], "reproduce"))
		status = reproduce_main(argc - 1, argv + 1);
	else if (argc >= 2 && !strcmp(argv[1], "barriers"))
		status = barriers_main(argc - 1, argv + 1);
	else if (argc >= 2 && !strcmp(argv[1], "slabinfo"))
		status = slabinfo_main(argc - 1, argv + 1);
	if (status == 2)
		fprintf(stderr, "helper: canary PARENT N v1|v2 HOME SCRATCH | reproduce PARENT v1|v2 HOME SCRATCH | "
				"barriers MANY SINGLE CPU,CPU[,...] | slabinfo FILE\n");
	return status == 0 && ended_by_signal() ? 128 + SIGTERM : status;
}
