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
from functools import cache, lru_cache
from typing import NamedTuple

_ID = r"(?P<id>[0-9a-f]{64})"
_BUILD = r"(?P<id>[0-9a-z]{25})"  # a step of a build by BuildKit


class ContainerPath(NamedTuple):
    """A container: the engine, as far as the path tells, and its name, which is the same in all hierarchies.

    Another container may have that name, see `identity_of`.
    """

    engine: str
    name: str


# Names that people choose are unique for one engine and one user. Ids are so everywhere, whatever a path tells.
_USER = re.compile(r"/user\.slice/(user-\d+)\.slice/")
_UNIQUE = re.compile(f"(?:{_ID}|{_BUILD})".replace("?P<id>", "?:"))


def identity_of(found: ContainerPath, path: str) -> str:
    """What tells the container at `path` from all others of this node, in whatever hierarchy: two may have one name."""
    if _UNIQUE.fullmatch(found.name):
        return found.name
    user = _USER.match(path)
    return f"{found.engine} {user[1] if user else ''} {found.name}"


class _Row(NamedTuple):
    """`leaf` matches the last component, `parents` is found in the rest. `engine` is empty for no container."""

    engine: str
    leaf: str
    parents: str = ""


# The first row that matches decides.
_ROWS = (
    # Monitors beside a container, and virtual machines.
    _Row("", r"(?:crio|libpod|cri-o)-conmon-.*"),
    _Row("", r"lxc\.(?:monitor|pivot).*"),
    _Row("", r"machine-(?:qemu|vz|bhyve)\\x2d.*\.scope"),
    # Scopes: the systemd driver.
    _Row("docker", rf"docker-(?:{_ID}|[0-9a-z]{{25}})\.scope"),
    _Row("containerd (CRI)", rf"cri-containerd-{_ID}\.scope"),
    _Row("CRI-O", rf"crio-{_ID}(?:\.scope)?"),
    _Row("podman", rf"libpod-(?:payload-)?{_ID}(?:\.scope)?"),  # payload: of --cgroups=split, as quadlets have it
    _Row("nerdctl", rf"nerdctl-{_ID}\.scope"),
    _Row("runc", r"runc-(?P<id>.+)\.scope"),
    _Row("crun", r"crun-(?P<id>.+)\.scope"),
    _Row("youki", r"youki-(?P<id>.+)\.scope"),
    _Row("other", rf"[\w.]+(?:-[\w.]+)*-{_ID}\.scope"),
    # `slice:prefix:name` taken for a path: a systemd-style parent with the cgroupfs driver.
    _Row("containerd (CRI)", rf".+:cri-containerd:{_ID}"),
    _Row("other", rf".+:[\w.-]+:{_ID}"),
    # Bare ids: the cgroupfs driver.
    _Row("docker", _ID, r"/docker(?:/|$)"),
    _Row("docker", _BUILD, r"/(?:docker/)?buildkit(?:/|$)"),
    _Row("Kubernetes", _ID, r"/(?:kubepods|kubelet|pod[0-9a-f-]{36}|pod[0-9a-f]{32})"),
    _Row("podman", _ID, r"/libpod_parent(?:/|$)"),
    _Row("other", _ID),
    # Containers that run an operating system.
    _Row("lxc", r"lxc\.payload\.(?P<id>.+)"),
    _Row("lxc", r"(?P<id>(?!lxc\.)[^/]+)", r"^(?:.*/)?lxc$"),
    _Row("libvirt-lxc", r"machine-(?P<id>lxc\\x2d.+)\.scope"),
    _Row("systemd-nspawn", r"machine-(?P<id>.+)\.scope", r"/machine\.slice$"),
    _Row("systemd-nspawn", r"systemd-nspawn@(?P<id>.+)\.service"),
)

ENGINES = tuple(dict.fromkeys(row.engine for row in _ROWS if row.engine))  # as the count names them


@cache
def _compiled() -> tuple[tuple[str, re.Pattern[str], re.Pattern[str]], ...]:
    """The rows. Only passive mode needs them, so they are compiled when the first path is looked up."""
    return tuple((row.engine, re.compile(row.leaf), re.compile(row.parents)) for row in _ROWS)


@lru_cache(maxsize=4096)
def container_of(path: str) -> ContainerPath | None:
    """The container whose cgroup this is; None for any other cgroup, also for one inside a container."""
    parents, _, leaf = path.rpartition("/")
    for engine, pattern, above in _compiled():
        if (found := pattern.fullmatch(leaf)) and above.search(parents):
            return ContainerPath(engine, found.groupdict().get("id") or leaf) if engine else None
    return None


def is_below(path: str, names: Collection[str]) -> bool:
    """Whether a component of the path is one of `names`."""
    return not set(path.split("/")).isdisjoint(names)
