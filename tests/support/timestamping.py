"""An image whose program makes a kernel worker broadcast, on any stock kernel: a real fault outside the creation path.

SO_TIMESTAMP on a socket enables netstamp_needed_key unless it is already enabled, and closing the socket disables it.
Each time a worker (netstamp_clear) patches the kernel's text: three broadcasts to enable, three to disable.
"""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "foreign-timestamping:1"
BROADCASTS = 6
_PROGRAM = r"""
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
	int on = 1, fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_TIMESTAMP, &on, sizeof(on)))
		return 1;
	usleep(200000);
	return 0;
}
"""


@contextmanager
def image() -> Iterator[str]:
    """Yields the image's name; removes the image afterwards."""
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "program.c"
        source.write_text(_PROGRAM, encoding="ascii")
        subprocess.run(["gcc", "-static", "-O2", "-o", f"{directory}/program", str(source)], check=True)
        tar = f"{directory}/image.tar"
        subprocess.run(["tar", "-C", directory, "-cf", tar, "program"], check=True)
        run = ["docker", "import", "--change", 'ENTRYPOINT ["/program"]', tar, NAME]
        subprocess.run(run, check=True, capture_output=True)
    try:
        yield NAME
    finally:
        subprocess.run(["docker", "image", "rm", "-f", NAME], check=False, capture_output=True)
