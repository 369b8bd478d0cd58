"""Which cgroup controllers were enabled above ours before a runtime enabled all of them: kept in a file, and restored.

The file outlives a kickwatch that is killed, so the next start can restore them. Everything here blocks.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from kickwatch.node.cgroups import Cgroups
from kickwatch.node.kernel import boot_id
from kickwatch.node.subtree_control import SubtreeState, disable_added, subtree_states
from kickwatch.process.atomic_file import write_whole


class _Contents(msgspec.Struct):
    """The file's JSON: the boot it belongs to, and each cgroup by its path."""

    boot_id: str
    ways: dict[str, SubtreeState]


class ControllerRecord:
    """The record in one file. Methods raise OSError.

    `recorded`: whether this process has recorded the cgroups and not restored them. `expected`: what the file should
    contain then, in case it is removed; empty on cgroup v1.
    """

    def __init__(self, file: Path, proc: Path) -> None:
        """`proc`: where proc is mounted."""
        self.file = file
        self._proc = proc
        self.recorded = False
        self.expected: Mapping[Path, SubtreeState] = {}

    def record(self, cgroups: Cgroups) -> None:
        """Record the cgroups before the first container. A repeated call writes the first reading again."""
        if not self.recorded:
            self.expected = subtree_states(cgroups)
        self.expected = self.add(self.expected)
        self.recorded = True

    def add(self, before: Mapping[Path, SubtreeState]) -> Mapping[Path, SubtreeState]:
        """Add cgroups to the file; returns its contents.

        What the file has already is kept: the runtime of a killed kickwatch may have changed the cgroups since.
        """
        contents = {**before, **self._read()} if before else {}
        if contents:
            self._write(contents)
        return contents

    def restore(self) -> None:
        """Disable the controllers that were not enabled at first. What succeeds is deleted from the file."""
        expected, self.expected, self.recorded = self.expected, {}, False
        if failed := disable_added({**expected, **self._read()}):
            self._write(failed)
        else:
            self.file.unlink(missing_ok=True)

    def _read(self) -> dict[Path, SubtreeState]:
        """Deepest cgroup first. Empty for a record of another boot, whose cgroups no longer exist."""
        try:
            contents = msgspec.json.decode(self.file.read_bytes(), type=_Contents)
        except (OSError, msgspec.MsgspecError):
            return {}
        cgroups = contents.ways if contents.boot_id == boot_id(self._proc) else {}
        deepest_first = sorted(map(Path, cgroups), key=lambda path: len(path.parts), reverse=True)
        return {path: cgroups[str(path)] for path in deepest_first}

    def _write(self, cgroups: Mapping[Path, SubtreeState]) -> None:
        contents = _Contents(boot_id(self._proc), {str(path): noted for path, noted in cgroups.items()})
        write_whole(self.file, msgspec.json.encode(contents))
