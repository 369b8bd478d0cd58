/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The program of a pod's pause container, where the container runtime's own is not on the node: holds the pod's
 * namespaces until SIGTERM or SIGINT, and reaps what is left to it. Takes no arguments.
 *
 * It may be pid 1 of a pid namespace, whose init the kernel spares signals that have no handler: so they are blocked
 * and taken with sigwaitinfo().
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>

int main(void)
{
	sigset_t awaited;

	sigemptyset(&awaited);
	sigaddset(&awaited, SIGTERM);
	sigaddset(&awaited, SIGINT);
	sigaddset(&awaited, SIGCHLD);
	sigprocmask(SIG_BLOCK, &awaited, NULL);
	for (;;) {
		int sig = sigwaitinfo(&awaited, NULL);

		if (sig == SIGTERM || sig == SIGINT)
			return 0;
		if (sig == SIGCHLD)
			while (waitpid(-1, NULL, WNOHANG) > 0)
				;
	}
}
