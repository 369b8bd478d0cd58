/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * kickwatch-helper: what its modes share.
 *
 * Line protocol: the parent writes one command a line to standard input, each is answered by one final line on
 * standard output, perhaps after `progress N` lines:
 *
 *   ready [key=value ...]           once, at the start; an `error` line and exit status 1 instead if it cannot work
 *   done NANOSECONDS [key=value ...]  the command's duration on CLOCK_MONOTONIC
 *   error ERRNO TEXT                the command failed; what was done so far stays and `remove` still works
 *
 * The program ends, and gives back what it made, when standard input closes, on SIGTERM, and when its parent dies.
 */
#ifndef KICKWATCH_HELPER_H
#define KICKWATCH_HELPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The protocol (protocol.c). */
void follow_parent(void);                                                    /* once, before anything else */
bool ended_by_signal(void);                                                  /* SIGTERM */
bool next_command(char *line, size_t size);                                  /* false: the end */
bool must_stop(void);                                                        /* SIGTERM, or the parent is gone */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
int say_error(int error, const char *format, ...) __attribute__((format(printf, 2, 3))); /* returns -1 */
bool read_number(const char *text, long low, long high, long *number);
uint64_t now_ns(void);

/* Memory cgroups made in order, removed in order (memcgs.c). */
struct memcgs {
	int parent;   /* directory in which they are made */
	int home;     /* cgroup.procs of the cgroup this process came from */
	int scratch;  /* directory of the file that is created and unlinked in each */
	long first, next; /* serial numbers of the live ones: [first, next) */
};

typedef int (*prepare_fn)(int memcg); /* called with each new directory before it is entered; 0 or -1, said */

int memcgs_open(struct memcgs *groups, const char *parent, const char *home, const char *scratch);
int memcgs_create(struct memcgs *groups, long count, long progress_every, prepare_fn prepare);
int memcgs_remove(struct memcgs *groups);

/* Answers `create [ARGUMENTS]` by `create`, `remove` itself, until the end; returns the exit status. */
typedef void (*create_fn)(struct memcgs *groups, const char *arguments);
int memcgs_serve(struct memcgs *groups, create_fn create);

/* Write or read a cgroup file relative to its directory: 0, or an errno. */
int write_file(int dir, const char *name, const char *text);
int read_file(int dir, const char *name, char *text, size_t size);

/* The modes: argv[0] is the mode's name; they return the exit status. */
int canary_main(int argc, char **argv);
int reproduce_main(int argc, char **argv);
int barriers_main(int argc, char **argv);
int slabinfo_main(int argc, char **argv);

#endif
