"""Which cgroups are containers, and whose: a table of the names that engines give to them. Pure.

A path is that of the cgroup below its hierarchy's root, as the kernel's tracepoints have it. With the cgroupfs driver
an engine makes a directory named after the container below a parent of its choice. With the systemd driver it asks
systemd for a scope, `slice:prefix:name` in OCI's words, whose cgroup is `<slices>/prefix-name.scope`. In cgroup v1 each
hierarchy has the same name, though not always the same parents. Services, sessions and slices are no containers.

The names are those of: moby daemon/daemon_unix.go (`docker`), containerd pkg/cri and nerdctl (`cri-containerd`,
`nerdctl`), cri-o internal/config/cgmgr (`crio`), podman libpod (`libpod`), runc and crun (their own names), lxc
cgfsng.c (`lxc.payload`), systemd-nspawn and machined (`machine-NAME.scope`), libvirt (`machine-lxc`).
"""

import re
from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

_ID = r"(?P<id>[0-9a-f]{64})"
_BUILD = r"(?P<id>[0-9a-z]{25})"  # a step of a build by BuildKit


class ContainerPath(NamedTuple):
    """A container: the engine, as far as the path tells, and its name, which is the same in all hierarchies."""

    engine: str
    name: str


class _Row(NamedTuple):
    """`leaf` matches the last component, `parents` is looked for in the rest. `engine` is empty for no container."""

    engine: str
    leaf: re.Pattern[str]
    parents: re.Pattern[str] | None = None


def _row(engine: str, leaf: str, parents: str = "") -> _Row:
    return _Row(engine, re.compile(leaf), re.compile(parents) if parents else None)


# The first row that matches decides.
_ROWS = (
    # Monitors beside a container, and virtual machines.
    _row("", r"(?:crio|libpod|cri-o)-conmon-.*"),
    _row("", r"lxc\.(?:monitor|pivot).*"),
    _row("", r"machine-(?:qemu|vz|bhyve)\\x2d.*\.scope"),
    # Scopes: the systemd driver.
    _row("docker", rf"docker-(?:{_ID}|[0-9a-z]{{25}})\.scope"),
    _row("containerd (CRI)", rf"cri-containerd-{_ID}\.scope"),
    _row("CRI-O", rf"crio-{_ID}(?:\.scope)?"),
    _row("podman", rf"libpod-{_ID}(?:\.scope)?"),
    _row("nerdctl", rf"nerdctl-{_ID}\.scope"),
    _row("runc", r"runc-(?P<id>.+)\.scope"),
    _row("crun", r"crun-(?P<id>.+)\.scope"),
    _row("youki", r"youki-(?P<id>.+)\.scope"),
    _row("other", rf"[\w.]+(?:-[\w.]+)*-{_ID}\.scope"),
    # `slice:prefix:name` taken for a path: a systemd-style parent with the cgroupfs driver.
    _row("containerd (CRI)", rf".+:cri-containerd:{_ID}"),
    _row("other", rf".+:[\w.-]+:{_ID}"),
    # Bare ids: the cgroupfs driver.
    _row("docker", _ID, r"/docker(?:/|$)"),
    _row("docker", _BUILD, r"/(?:docker/)?buildkit(?:/|$)"),
    _row("Kubernetes", _ID, r"/(?:kubepods|kubelet|pod[0-9a-f-]{36}|pod[0-9a-f]{32})"),
    _row("podman", _ID, r"/libpod_parent(?:/|$)"),
    _row("other", _ID),
    # Containers that run an operating system.
    _row("lxc", r"lxc\.payload\.(?P<id>.+)"),
    _row("lxc", r"(?P<id>(?!lxc\.)[^/]+)", r"^(?:.*/)?lxc$"),
    _row("libvirt-lxc", r"machine-(?P<id>lxc\\x2d.+)\.scope"),
    _row("systemd-nspawn", r"machine-(?P<id>.+)\.scope", r"/machine\.slice$"),
    _row("systemd-nspawn", r"systemd-nspawn@(?P<id>.+)\.service"),
)

ENGINES = tuple(dict.fromkeys(row.engine for row in _ROWS if row.engine))  # as the count names them


@lru_cache(maxsize=4096)
def container_of(path: str) -> ContainerPath | None:
    """The container whose cgroup this is; None for any other cgroup, also for one inside a container."""
    parents, _, leaf = path.rpartition("/")
    for row in _ROWS:
        if (found := row.leaf.fullmatch(leaf)) and (row.parents is None or row.parents.search(parents)):
            return ContainerPath(row.engine, found.groupdict().get("id") or leaf) if row.engine else None
    return None


def is_below(path: str, names: Collection[str]) -> bool:
    """Whether a component of the path is one of `names`."""
    return not set(path.split("/")).isdisjoint(names)
