"""Where Docker's socket is, as its users say it: `unix:///path` beside a plain path, and DOCKER_HOST."""

from collections.abc import Mapping
from typing import NamedTuple

_SCHEME = "unix://"


class DockerHost(NamedTuple):
    """`socket`: the path that DOCKER_HOST names, else empty. `warning`: why it is not used, else empty."""

    socket: str
    warning: str


def plain_path(socket: str) -> str:
    """The path without the scheme that Docker's own tools want."""
    return socket.removeprefix(_SCHEME)


def docker_host(environment: Mapping[str, str]) -> DockerHost:
    """What DOCKER_HOST says. An engine elsewhere starts no containers on this node, so it is not used."""
    host = environment.get("DOCKER_HOST", "")
    if not host or plain_path(host).startswith("/"):
        return DockerHost(plain_path(host), "")
    shown = host[:60]
    return DockerHost("", f"DOCKER_HOST is {shown}: not used, since kickwatch needs an engine that runs on this node")


def beside(host: DockerHost, socket: str, source: str) -> DockerHost:
    """The same where `source` configures `socket`, which counts: a DOCKER_HOST that differs is reported."""
    differs = host.socket and host.socket != plain_path(socket)
    return DockerHost("", f"DOCKER_HOST is {host.socket}: not used, since {source} has {socket}" if differs else "")
