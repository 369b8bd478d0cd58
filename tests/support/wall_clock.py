"""A wall clock that a test can set for one running process, without changing the machine's or any monotonic clock.

A preloaded library replaces CLOCK_REALTIME. Debian's faketime is no alternative: with an unchanged CLOCK_MONOTONIC its
clock_nanosleep() rejects absolute times of that clock, which Python's time.sleep() uses.
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
    """Correct at first. `environment`: variables of a process that should use it."""

    def __init__(self, directory: Path) -> None:
        """Build the library in `directory`."""
        self._file = directory / "ahead_s"
        self.set(0)
        library, source = directory / "wall_clock.so", directory / "wall_clock.c"
        source.write_text(_SOURCE, encoding="ascii")
        command = ["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", str(library), str(source)]
        subprocess.run(command, check=True)
        self.environment = {"LD_PRELOAD": str(library), "WALL_CLOCK": str(self._file)}

    def set(self, ahead_s: int) -> None:
        """Set it `ahead_s` seconds ahead of the machine's clock; negative: behind."""
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o644)  # without O_TRUNC, because the file is mapped
        os.pwrite(descriptor, struct.pack("=q", ahead_s), 0)
        os.close(descriptor)
