"""A wall clock that a test sets for one process, while it runs; the machine's, and every monotonic one, go on.

A library that is preloaded answers for CLOCK_REALTIME. Debian's faketime does not do: where it leaves CLOCK_MONOTONIC
alone, its clock_nanosleep() refuses to sleep until a moment of it, which is what Python's time.sleep() asks for.
"""

import os
import struct
import subprocess
from pathlib import Path

_SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *ahead_s;

__attribute__((constructor)) static void begin(void)
{
	int fd = open(getenv("WALL_CLOCK"), O_RDONLY | O_CLOEXEC);

	ahead_s = mmap(0, sizeof(*ahead_s), PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	int status = syscall(SYS_clock_gettime, clock, now);

	if (!status && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		now->tv_sec += *ahead_s;
	return status;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec precise;
	int status = clock_gettime(CLOCK_REALTIME, &precise);

	now->tv_sec = precise.tv_sec;
	now->tv_usec = precise.tv_nsec / 1000;
	return status;
}

time_t time(time_t *given)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (given)
		*given = now.tv_sec;
	return now.tv_sec;
}
"""


class WallClock:
    """Right at first. `environment` makes a process see it."""

    def __init__(self, directory: Path) -> None:
        """Build the library there."""
        self._file = directory / "ahead_s"
        self.set(0)
        library, source = directory / "wall_clock.so", directory / "wall_clock.c"
        source.write_text(_SOURCE, encoding="ascii")
        command = ["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", str(library), str(source)]
        subprocess.run(command, check=True)
        self.environment = {"LD_PRELOAD": str(library), "WALL_CLOCK": str(self._file)}

    def set(self, ahead_s: int) -> None:
        """So many seconds ahead of the machine's, from now on; negative: behind."""
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o644)  # not truncated: it is mapped
        os.pwrite(descriptor, struct.pack("=q", ahead_s), 0)
        os.close(descriptor)
