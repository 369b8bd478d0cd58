"""Names of what kickwatch creates on a node: the instance, the cgroup parent, the trial."""

import os
import secrets
from hashlib import blake2s
from pathlib import Path

from kickwatch.node.roots import HOST

_APPLICATION = b"kickwatch.instance.v1"
CGROUP_NAME = "kickwatch"
CONTAINERS_SLICE = "kickwatchcontainers.slice"
OWN_CGROUPS = (CGROUP_NAME, CONTAINERS_SLICE)  # parents of kickwatch's containers, this one's and any other's


def instance_of(machine_id: str, hostname: str) -> str:
    """Twelve hex digits that are stable on a node: after a restart they identify what a killed kickwatch left.

    Derived from /etc/machine-id with a keyed hash, because the id itself must not be published (machine-id(5)). A node
    without one uses its hostname.
    """
    secret = machine_id.strip() or f"hostname:{hostname}"
    return blake2s(secret.encode(), key=_APPLICATION, digest_size=6).hexdigest()


def read_instance(etc: Path = HOST.etc) -> str:
    """The instance of this node."""
    try:
        machine_id = (etc / "machine-id").read_text(encoding="ascii", errors="replace")
    except OSError:
        machine_id = ""
    return instance_of(machine_id, os.uname().nodename)


def cgroup_parent(cgroup_driver: str) -> str:
    """The cgroup parent to pass to the engine: a slice for the systemd driver, a path for cgroupfs.

    The slice must not be the service's own. Removing our parent means stopping the slice, which would stop the service,
    and the service's limits are meant for the service alone. So the name is not `kickwatch.slice`, and it has no dash:
    systemd nests `kickwatch-containers.slice` below `kickwatch.slice` (systemd.slice(5)).
    """
    return CONTAINERS_SLICE if cgroup_driver == "systemd" else f"/{CGROUP_NAME}"


def new_trial_id() -> str:
    """Eight random hex digits, enough to distinguish the trials in one node's log."""
    return secrets.token_hex(4)
