"""Names that mark what is ours on a node: the instance, the cgroup parent, the containers."""

import os
import secrets
from hashlib import blake2s
from pathlib import Path

_APPLICATION = b"kickwatch.instance.v1"
CGROUP_NAME = "kickwatch"
CONTAINERS_SLICE = "kickwatchcontainers.slice"


def instance_of(machine_id: str, hostname: str) -> str:
    """Twelve hex digits that stay the same on one node, so that a restart knows what a killed kickwatch left.

    Derived from /etc/machine-id by a keyed hash, since the id itself must not be published (machine-id(5)); nodes
    without one fall back to their hostname.
    """
    secret = machine_id.strip() or f"hostname:{hostname}"
    return blake2s(secret.encode(), key=_APPLICATION, digest_size=6).hexdigest()


def read_instance(etc: Path = Path("/etc")) -> str:
    """The instance of this node."""
    try:
        machine_id = (etc / "machine-id").read_text(encoding="ascii", errors="replace")
    except OSError:
        machine_id = ""
    return instance_of(machine_id, os.uname().nodename)


def cgroup_parent(cgroup_driver: str) -> str:
    """What the engine is given as parent: the systemd driver wants a slice, cgroupfs a path.

    The slice is none of the service's: its limits are for the service alone, and stopping it, which removing our
    parent comes to, would stop the service. So no `kickwatch.slice`, and no dash in the name either: systemd puts
    `kickwatch-containers.slice` below `kickwatch.slice` (systemd.slice(5)).
    """
    return CONTAINERS_SLICE if cgroup_driver == "systemd" else f"/{CGROUP_NAME}"


def new_trial_id() -> str:
    """Eight hex digits; unique enough to tell the trials of a node apart in its log."""
    return secrets.token_hex(4)
