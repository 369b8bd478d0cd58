/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * kw-helper: small experiments that need a separate process. kickwatch controls them through pipes (the protocol is in
 * helper.h), so it can sample at exact moments.
 *
 *   kw-helper canary PARENT N v1|v2 HOME SCRATCH    a batch of bare memory cgroups
 *   kw-helper reproduce PARENT v1|v2 HOME SCRATCH   the test of 2017
 *   kw-helper barriers MANY SINGLE CPU,CPU[,...]    the positive control
 *   kw-helper slabinfo FILE                         one wait for slab_mutex
 *
 * PARENT, HOME: cgroup directories of the memory hierarchy; SCRATCH: a directory for a file.
 * Exit status: 0 standard input was closed, 1 cannot work, 2 usage, 143 ended by SIGTERM.
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
		fprintf(stderr, "kw-helper: canary PARENT N v1|v2 HOME SCRATCH | reproduce PARENT v1|v2 HOME SCRATCH | "
				"barriers MANY SINGLE CPU,CPU[,...] | slabinfo FILE\n");
	return status == 0 && ended_by_signal() ? 128 + SIGTERM : status;
}
