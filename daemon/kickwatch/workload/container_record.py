"""The ids of the containers that kickwatch has started, on disk before they have a process.

What is left below our cgroup parent may be ended only if it is ours. A cgroup's name does not show that: engines name
cgroups after ids, and others may choose our parent for their containers (`docker run --cgroup-parent=/kickwatch`).

Only a CRI's pod has a process before its id is known. A CRI keeps pods on disk, and finds ours by their labels.
"""

import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from kickwatch.node.roots import HOST
from kickwatch.process.atomic_file import write_whole
from kickwatch.process.run_directory import make_run_directory, remove_run_directory

RECORD = HOST.run / "kickwatch" / "containers"  # in /run: no process outlives the boot
# Docker, Podman and CRIs; with the systemd driver as a scope. Podman's monitor has a cgroup after the same id.
_NAMED_AFTER_ID = re.compile(r"(?:docker-|libpod-|libpod-conmon-|cri-containerd-|crio-)?([0-9a-f]{64})(?:\.scope)?")


def id_of(cgroup_name: str) -> str:
    """The id after which an engine has named a cgroup; empty if it is not named so."""
    named = _NAMED_AFTER_ID.fullmatch(cgroup_name)
    return named[1] if named else ""


class ContainerRecord:
    """The file. What it lacks is left alone by the clean-up, so no error here is worth ending a trial."""

    def __init__(self, file: Path = RECORD) -> None:
        """`file` need not exist."""
        self._file = file

    def add(self, ids: Iterable[str]) -> None:
        """Append these ids."""
        with suppress(OSError):
            if not (lines := "".join(f"{one}\n" for one in ids)):
                return
            make_run_directory(self._file.parent)
            with self._file.open("a", encoding="ascii") as file:
                file.write(lines)

    def read(self) -> frozenset[str]:
        """Every id; none if the file cannot be read."""
        with suppress(OSError):
            return frozenset(self._file.read_text(encoding="ascii", errors="replace").split())
        return frozenset()

    def retain(self, present: Collection[str]) -> None:
        """Drop the ids that are not `present`."""
        known = self.read()
        kept = known.intersection(present)
        with suppress(OSError):
            if not kept:
                self._file.unlink(missing_ok=True)
                remove_run_directory(self._file.parent)
            elif kept != known:
                write_whole(self._file, "".join(f"{one}\n" for one in sorted(kept)).encode())
