/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * kw-helper: the parts that its modes share.
 *
 * The line protocol: the parent writes commands to standard input, one per line. The answer to each is one final line on
 * standard output, possibly after `progress N` lines:
 *
 *   ready [key=value ...]             once, at the start; instead, an `error` line and exit status 1 if it cannot work
 *   done NANOSECONDS [key=value ...]  the command's duration on CLOCK_MONOTONIC
 *   error ERRNO TEXT                  the command failed; its results so far remain, and `remove` still works
 *
 * When standard input is closed, on SIGTERM, and when its parent dies, the program removes what it has created, and ends.
 */
#ifndef KICKWATCH_HELPER_H
#define KICKWATCH_HELPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The protocol (protocol.c). */
void follow_parent(void);                   /* once, before anything else */
bool ended_by_signal(void);                 /* SIGTERM */
bool next_command(char *line, size_t size); /* false: the end */
bool must_stop(void);                       /* SIGTERM, or the parent is gone */
void reply(const char *format, ...) __attribute__((format(printf, 1, 2)));
int reply_error(int error, const char *format, ...) __attribute__((format(printf, 2, 3))); /* returns -1 */
bool read_number(const char *text, long low, long high, long *number);
uint64_t now_ns(void);

enum { MOST_PIPES = 256 };

/* Memory cgroups that are created in order and removed in order (memcgs.c). */
struct memcgs {
	int parent;  /* directory in which they are created */
	int home;    /* cgroup.procs of the cgroup that this process came from */
	int scratch; /* directory of the file that is created and unlinked in each of them */
	long first, next; /* serial numbers of those that exist: [first, next) */
	long pipes;  /* how many pipes are made in each, MOST_PIPES in all; they are held until the removal */
	int held[2 * MOST_PIPES], holds;
};

/* Called with each new directory before it is entered: 0, or -1 after an error line. */
typedef int (*prepare_fn)(int memcg);

int memcgs_open(struct memcgs *groups, const char *parent, const char *home, const char *scratch);
int memcgs_create(struct memcgs *groups, long count, long progress_every, prepare_fn prepare);
int memcgs_remove(struct memcgs *groups);

/* Serves commands until the end: `create [ARGUMENTS]` by calling `create`, and `remove`. Returns the exit status. */
typedef void (*create_fn)(struct memcgs *groups, const char *arguments);
int memcgs_serve(struct memcgs *groups, create_fn create);

/* Write or read a file of a cgroup directory: 0, or an errno. */
int write_file(int dir, const char *name, const char *text);
int read_file(int dir, const char *name, char *text, size_t size);

/* The modes: argv[0] is the name of the mode; they return the exit status. */
int canary_main(int argc, char **argv);
int reproduce_main(int argc, char **argv);
int barriers_main(int argc, char **argv);
int slabinfo_main(int argc, char **argv);

#endif
