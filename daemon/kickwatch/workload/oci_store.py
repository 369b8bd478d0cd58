"""The files of the oci engine: bundles, images, the runtime's state, and the cgroups that a bundle names.

A container exists as long as its bundle directory, which is made first and removed last, with our labels as annotations
in it. So the reaper finds what a killed kickwatch left, whatever state the runtime was in. Everything here blocks.
"""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from errno import EBUSY, EINVAL, EPERM
from pathlib import Path

import msgspec

from kickwatch.errors import CgroupError
from kickwatch.node.cgroup_removal import everybody, remove_tree
from kickwatch.node.cgroups import Cgroups
from kickwatch.node.delegation import writable
from kickwatch.process.atomic_file import write_whole
from kickwatch.process.run_directory import make_run_directory, remove_run_directory
from kickwatch.workload.engine import LABEL, LABEL_INSTANCE, ContainerSpec
from kickwatch.workload.image import image_reference
from kickwatch.workload.oci_bundle import PROGRAM, BundleHost, bundle_config
from kickwatch.workload.oci_controllers import ControllerRecord
from kickwatch.workload.oci_mounts import detach_below

_DIRECTORIES = ("bundles", "state")
_MOUNT_POINTS = ("proc", "dev", "sys")


class _Linux(msgspec.Struct, rename="camel"):
    cgroups_path: str


class _BundleConfig(msgspec.Struct):
    """The part of a config.json that the reaper reads."""

    linux: _Linux
    annotations: dict[str, str] = {}


class BundleStore:
    """Everything below `root`. Methods raise OSError, and CgroupError where their docstring says so."""

    def __init__(self, root: Path, proc: Path) -> None:
        """`proc`: where proc is mounted."""
        self.root = root
        self._proc = proc
        self.controllers = ControllerRecord(root / "handed-on.json", proc)

    @property
    def state(self) -> Path:
        """The runtime's `--root`."""
        return self.root / "state"

    def bundle_of(self, container_id: str) -> Path:
        """The path of its bundle, which may not exist."""
        return self.root / "bundles" / container_id

    def image_of(self, reference: str) -> Path:
        """The path of its directory, which may not exist."""
        return self.root / "images" / reference.replace("/", "_")

    def restore_controllers(self) -> None:
        """See ControllerRecord.restore; also removes empty directories."""
        self.controllers.restore()
        self._remove_empty()

    def missing_file(self, reference: str) -> str:
        """A file that a container of this image needs and that is missing or damaged; empty if there is none.

        The program is read whole and compared with the digest in the image's name.
        """
        home = self.image_of(reference)
        rootfs, program = home / "rootfs", home / "program"
        needed = [*(self.root / name for name in _DIRECTORIES), *(rootfs / name for name in _MOUNT_POINTS)]
        needed += [rootfs / PROGRAM.lstrip("/"), *([self.controllers.file] if self.controllers.expected else [])]
        for path in needed:
            if not path.exists():
                return str(path)
        try:
            intact = program.stat().st_mode & stat.S_IXUSR and image_reference(program.read_bytes()) == reference
        except FileNotFoundError:
            intact = False
        return "" if intact else str(program)

    def write_image(self, reference: str, program: bytes) -> None:
        """Write the program and an empty root directory next to it, unless they exist."""
        home = self.image_of(reference)
        rootfs, file = home / "rootfs", home / "program"
        make_run_directory(self.root.parent)
        for directory in (self.root.parent, self.root):
            _make_own(directory)
        for directory in (*(self.root / name for name in _DIRECTORIES), rootfs):
            directory.mkdir(parents=True, exist_ok=True)
        self._remove_partial_bundles()
        for name in _MOUNT_POINTS:
            (rootfs / name).mkdir(exist_ok=True)
        (rootfs / PROGRAM.lstrip("/")).touch()
        if not file.exists() or file.read_bytes() != program or not file.stat().st_mode & stat.S_IXUSR:
            write_whole(file, program, 0o755)

    def write_bundle(self, spec: ContainerSpec, *, seccomp: bool) -> None:
        """Write a complete bundle or none. Raises FileExistsError if there is a container of that name."""
        image = self.image_of(spec.image)
        host = BundleHost(
            rootfs=str(image / "rootfs"),
            program=str(image / "program"),
            cgroup_namespace=(self._proc / "self/ns/cgroup").exists(),  # "cgroup: introduce cgroup namespaces", 4.6
            seccomp=seccomp,
        )
        home = self.bundle_of(spec.name)
        partial = home.with_name(f".{home.name}")
        partial.mkdir()
        try:
            (partial / "config.json").write_bytes(msgspec.json.encode(bundle_config(spec, host)))
            partial.rename(home)
        except BaseException:
            shutil.rmtree(partial)
            raise

    def own_containers(self, instance: str) -> Iterator[str]:
        """Ids of the containers with our labels and this instance."""
        for file in (self.root / "bundles").glob("*/config.json"):
            try:
                labels = msgspec.json.decode(file.read_bytes(), type=_BundleConfig).annotations
            except (OSError, msgspec.MsgspecError):
                continue  # not one of ours
            if LABEL in labels and labels.get(LABEL_INSTANCE) == instance:
                yield file.parent.name

    def _cgroup_dirs(self, container_id: str, cgroups: Cgroups) -> list[Path]:
        """The path of its cgroup in each hierarchy, which may not exist."""
        file = self.bundle_of(container_id) / "config.json"
        config = msgspec.json.decode(file.read_bytes(), type=_BundleConfig)
        return [mount / config.linux.cgroups_path.lstrip("/") for mount in cgroups.mounts]

    def members(self, container_id: str, cgroups: Cgroups) -> frozenset[int]:
        """The processes in its cgroups, without those that the kernel lists as 0 because they are being reaped."""
        found: set[int] = set()
        for directory in self._cgroup_dirs(container_id, cgroups):
            with suppress(OSError):
                found.update(map(int, (directory / "cgroup.procs").read_text(encoding="ascii").split()))
        return frozenset(found - {0})

    def remove_cgroups(self, container_id: str, cgroups: Cgroups) -> None:
        """Remove its cgroups and kill the processes in them. Raises CgroupError."""
        directories = self._cgroup_dirs(container_id, cgroups)
        remaining = [left for directory in directories for left in remove_tree(directory, kill=everybody)]
        if remaining:
            raise CgroupError(f"{remaining[0]} is in use and stays", "end the processes in its cgroup.procs")

    def remove_bundle(self, container_id: str) -> None:
        """Remove the runtime's state of it, then the bundle, which disappears in one step."""
        home = self.bundle_of(container_id)
        partial = home.with_name(f".{home.name.lstrip('.')}")
        with suppress(FileNotFoundError):
            self._remove_state(self.state / container_id)
        with suppress(FileNotFoundError):
            home.rename(partial)
            shutil.rmtree(partial)

    def _remove_state(self, directory: Path) -> None:
        try:
            shutil.rmtree(directory)
        except OSError as error:
            if error.errno != EBUSY:
                raise
            detach_below(directory, self._proc)
            shutil.rmtree(directory)

    def remove_image(self, reference: str) -> None:
        """Remove the image, and directories that are empty then."""
        home = self.image_of(reference)
        shutil.rmtree(home, ignore_errors=True)
        self._remove_empty()

    def remove_leftovers(self, instance: str, cgroups: Cgroups) -> int:
        """Remove without a runtime all that this node's kickwatch left here; returns the number of containers.

        Called before a trial with another engine, because an earlier kickwatch may have used this one. What cannot be
        removed is raised at the end: CgroupError, or OSError.
        """
        if not self.root.is_dir():
            return 0
        found, failures = list(self.own_containers(instance)), list[CgroupError | OSError]()
        for container_id in found:
            try:
                self._remove_leftover(container_id, cgroups)
            except (CgroupError, OSError) as error:  # the others go all the same
                failures.append(error)
        self._remove_partial_bundles()
        if not any((self.root / "bundles").glob("*")):
            shutil.rmtree(self.root / "images", ignore_errors=True)
        self.restore_controllers()
        if failures:
            raise failures[0]
        return len(found)

    def _remove_leftover(self, container_id: str, cgroups: Cgroups) -> None:
        """With the parents of its cgroups, where this process may remove those (a service may not, at a root)."""
        parents = {directory.parent for directory in self._cgroup_dirs(container_id, cgroups)}
        self.remove_cgroups(container_id, cgroups)
        self.remove_bundle(container_id)
        for parent in parents:
            remove_tree(parent, top=writable(parent.parent))

    def _remove_partial_bundles(self) -> None:
        """Remove bundles that a killed kickwatch was writing or removing."""
        for partial in (self.root / "bundles").glob(".*"):
            shutil.rmtree(partial, ignore_errors=True)

    def _remove_empty(self) -> None:
        self._remove_partial_bundles()
        for directory in (*(self.root / name for name in ("images", "bundles", "state")), self.root):
            with suppress(OSError):  # it holds a container, perhaps another instance's
                directory.rmdir()
        remove_run_directory(self.root.parent)


def _make_own(directory: Path) -> None:
    """Make a directory for this user alone. Raises PermissionError if others can write to what exists.

    Root mounts and executes what it finds there.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(EPERM, "not a directory that only this user can write to: remove it", str(directory))


def read_pid_file(pid_file: Path) -> int:
    """The pid that a runtime wrote into its `--pid-file`. Raises OSError."""
    text = pid_file.read_text(encoding="ascii", errors="replace").strip()
    if not text.isdecimal():
        raise OSError(EINVAL, "the runtime wrote no process id", str(pid_file))
    return int(text)
