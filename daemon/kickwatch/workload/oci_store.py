"""The files of an engine without a daemon: bundles, images, the runtime's state, and the cgroups that a bundle names.

A container *is* its bundle directory, which is made first and removed last, with our labels as annotations in it: so
the reaper knows what a killed kickwatch left, whatever state the runtime was in. Everything here blocks.
"""

import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from errno import EINVAL, EPERM
from pathlib import Path

import msgspec

from kickwatch.errors import CgroupError
from kickwatch.node.cgroups import Cgroups, remove_tree
from kickwatch.node.handed_on import Noted, take_back
from kickwatch.node.kernel import boot_id
from kickwatch.process.atomic_file import write_whole
from kickwatch.workload.engine import LABEL, LABEL_INSTANCE, ContainerSpec
from kickwatch.workload.image import image_reference
from kickwatch.workload.oci_bundle import PROGRAM, Here, bundle

_DIRECTORIES = ("bundles", "state")
_MOUNT_POINTS = ("proc", "dev", "sys")


class _Linux(msgspec.Struct, rename="camel"):
    cgroups_path: str


class _Register(msgspec.Struct):
    """The part of a config.json that the reaper goes by."""

    linux: _Linux
    annotations: dict[str, str] = {}


class _HandedOn(msgspec.Struct):
    """What the cgroups above ours handed on before the first container."""

    boot_id: str
    ways: dict[str, Noted]


class Store:
    """Everything below `root`. Its methods raise OSError, and CgroupError where one says so."""

    def __init__(self, root: Path, proc: Path) -> None:
        """`proc`: where proc is mounted."""
        self.root = root
        self._proc = proc

    @property
    def state(self) -> Path:
        """The runtime's `--root`."""
        return self.root / "state"

    def bundle_of(self, container_id: str) -> Path:
        """Its directory, there or not."""
        return self.root / "bundles" / container_id

    def image_of(self, reference: str) -> Path:
        """Its directory, there or not."""
        return self.root / "images" / reference.replace("/", "_")

    @property
    def _note(self) -> Path:
        """What the cgroups above ours handed on before the first container."""
        return self.root / "handed-on.json"

    def note_handed_on(self, before: Mapping[Path, Noted]) -> Mapping[Path, Noted]:
        """Note it, unless a killed kickwatch has: what that one's runtime switched on is not the node's own.

        Returns what is noted now.
        """
        noted = {**before, **self._noted_handed_on()} if before else {}  # nothing on cgroup v1
        if noted:
            self._write_note(noted)
        return noted

    def take_back(self, known: Mapping[Path, Noted] | None = None) -> None:
        """Switch off what was not on when it was noted, and forget what could be; empty directories go with it.

        `known`: what was noted, should the note have been removed since.
        """
        if failed := take_back({**(known or {}), **self._noted_handed_on()}):
            self._write_note(failed)
        else:
            self._note.unlink(missing_ok=True)
        self._clear_empty()

    def _noted_handed_on(self) -> dict[Path, Noted]:
        """The deepest first. Nothing of another boot: its cgroups are gone with it."""
        try:
            noted = msgspec.json.decode(self._note.read_bytes(), type=_HandedOn)
        except (OSError, msgspec.MsgspecError):
            return {}
        ways = noted.ways if noted.boot_id == boot_id(self._proc) else {}
        return {way: ways[str(way)] for way in sorted(map(Path, ways), key=lambda way: len(way.parts), reverse=True)}

    def _write_note(self, ways: Mapping[Path, Noted]) -> None:
        noted = _HandedOn(boot_id(self._proc), {str(way): told for way, told in ways.items()})
        write_whole(self._note, msgspec.json.encode(noted))

    def missing_of(self, reference: str, *, noted: bool) -> str:
        """What a container of this image needs and does not find; empty where all is there. `noted`: the note, too.

        The program is looked at whole: the name of an image has its digest.
        """
        home = self.image_of(reference)
        rootfs, file = home / "rootfs", home / "program"
        needed = [*(self.root / name for name in _DIRECTORIES), *(rootfs / name for name in _MOUNT_POINTS)]
        needed += [rootfs / PROGRAM.lstrip("/"), *([self._note] if noted else [])]
        for path in needed:
            if not path.exists():
                return str(path)
        try:
            sound = file.stat().st_mode & stat.S_IXUSR and image_reference(file.read_bytes()) == reference
        except FileNotFoundError:
            sound = False
        return "" if sound else str(file)

    def write_image(self, reference: str, program: bytes) -> None:
        """The program and an empty root beside it; the same program is written once."""
        home = self.image_of(reference)
        rootfs, file = home / "rootfs", home / "program"
        _make_own(self.root.parent, 0o755)
        _make_own(self.root, 0o700)
        for directory in (*(self.root / name for name in _DIRECTORIES), rootfs):
            directory.mkdir(parents=True, exist_ok=True)
        self._clear_halves()
        for name in _MOUNT_POINTS:
            (rootfs / name).mkdir(exist_ok=True)
        (rootfs / PROGRAM.lstrip("/")).touch()
        if not file.exists() or file.read_bytes() != program or not file.stat().st_mode & stat.S_IXUSR:
            write_whole(file, program, 0o755)

    def write_bundle(self, spec: ContainerSpec, *, seccomp: bool) -> None:
        """Complete, or not there. Raises FileExistsError where a container of that name is."""
        image = self.image_of(spec.image)
        here = Here(
            rootfs=str(image / "rootfs"),
            program=str(image / "program"),
            cgroup_namespace=(self._proc / "self/ns/cgroup").exists(),  # "cgroup: introduce cgroup namespaces", 4.6
            seccomp=seccomp,
        )
        home = self.bundle_of(spec.name)
        making = home.with_name(f".{home.name}")
        making.mkdir()
        try:
            (making / "config.json").write_bytes(msgspec.json.encode(bundle(spec, here)))
            making.rename(home)
        except BaseException:
            shutil.rmtree(making)
            raise

    def labelled(self, instance: str) -> Iterator[str]:
        """Ids of the containers with our labels and this instance."""
        for file in (self.root / "bundles").glob("*/config.json"):
            try:
                labels = msgspec.json.decode(file.read_bytes(), type=_Register).annotations
            except (OSError, msgspec.MsgspecError):
                continue  # not one of ours
            if LABEL in labels and labels.get(LABEL_INSTANCE) == instance:
                yield file.parent.name

    def _cgroup_dirs(self, container_id: str, cgroups: Cgroups) -> list[Path]:
        """Its cgroup in each hierarchy, there or not."""
        config = msgspec.json.decode((self.bundle_of(container_id) / "config.json").read_bytes(), type=_Register)
        return [mount / config.linux.cgroups_path.lstrip("/") for mount in cgroups.mounts]

    def members(self, container_id: str, cgroups: Cgroups) -> frozenset[int]:
        """The processes in its cgroups."""
        found: set[int] = set()
        for directory in self._cgroup_dirs(container_id, cgroups):
            with suppress(OSError):
                found.update(map(int, (directory / "cgroup.procs").read_text(encoding="ascii").split()))
        return frozenset(found)

    def remove_cgroups(self, container_id: str, cgroups: Cgroups) -> None:
        """With whatever lives in them. Raises CgroupError."""
        directories = self._cgroup_dirs(container_id, cgroups)
        remaining = [left for directory in directories for left in remove_tree(directory, kill=True)]
        if remaining:
            raise CgroupError(f"{remaining[0]} is in use and stays", "end the processes in its cgroup.procs")

    def remove_bundle(self, container_id: str) -> None:
        """The runtime's state of it, then the bundle: the register goes last, and whole."""
        home = self.bundle_of(container_id)
        half = home.with_name(f".{home.name.lstrip('.')}")
        with suppress(FileNotFoundError):
            shutil.rmtree(self.state / container_id)
        with suppress(FileNotFoundError):
            home.rename(half)
            shutil.rmtree(half)

    def remove_image(self, reference: str) -> None:
        """And the directories that are empty then."""
        home = self.image_of(reference)
        shutil.rmtree(home, ignore_errors=True)
        self._clear_empty()

    def sweep(self, instance: str, cgroups: Cgroups) -> int:
        """Remove all that this node's kickwatch left here, without a runtime; returns how many containers there were.

        For an engine with a daemon, since the one before it may have been one without. Raises CgroupError.
        """
        if not self.root.is_dir():
            return 0
        found = list(self.labelled(instance))
        for container_id in found:
            parents = {directory.parent for directory in self._cgroup_dirs(container_id, cgroups)}
            self.remove_cgroups(container_id, cgroups)
            self.remove_bundle(container_id)
            for parent in parents:
                remove_tree(parent)
        self._clear_halves()
        if not any((self.root / "bundles").glob("*")):
            shutil.rmtree(self.root / "images", ignore_errors=True)
        self.take_back()
        return len(found)

    def _clear_halves(self) -> None:
        """What a kickwatch that was killed had half made, or half removed."""
        for half in (self.root / "bundles").glob(".*"):
            shutil.rmtree(half, ignore_errors=True)

    def _clear_empty(self) -> None:
        self._clear_halves()
        for directory in (*(self.root / name for name in ("images", "bundles", "state")), self.root):
            with suppress(OSError):  # somebody's container is in there
                directory.rmdir()


def _make_own(directory: Path, mode: int) -> None:
    """Root mounts and executes what is found there: nobody else may have made it, or may write into it."""
    directory.mkdir(mode=mode, parents=True, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(EPERM, "it is not ours alone: remove it", str(directory))


def first_process(pid_file: Path) -> int:
    """What a runtime wrote into its `--pid-file`. Raises OSError."""
    text = pid_file.read_text(encoding="ascii", errors="replace").strip()
    if not text.isdecimal():
        raise OSError(EINVAL, "the runtime wrote no process id", str(pid_file))
    return int(text)
