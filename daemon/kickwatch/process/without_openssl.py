"""Loads asyncio, prometheus_client, grpclib and hashlib without OpenSSL, which they load and kickwatch has no use for.

kickwatch speaks no TLS (engines listen on unix sockets, Prometheus scrapes plain HTTP), and Python has its own digests
of the few bytes that kickwatch hashes. OpenSSL would be a tenth of the daemon, 4 MiB. The Docker SDK loads it for
itself where Docker is driven.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

_TLS, _DIGESTS = "ssl", "_hashlib"
# What hashlib loads instead of OpenSSL's. Some distributions build Python without most of them.
_OWN_DIGESTS = ("_md5", "_sha1", "_sha3", "_blake2")


class _LateTls(ModuleType):
    """Stands for `ssl` in modules that are loaded meanwhile: `object` for the names in their signatures, then `ssl`."""

    late = False

    def __getattr__(self, name: str) -> object:
        return getattr(import_module(_TLS), name) if self.late else object


def load_asyncio() -> None:
    """Import asyncio as in a Python that was built without `ssl`, unless `ssl` is loaded already."""
    with _in_place_of(_TLS, None):
        import asyncio  # noqa: F401, PLC0415


def load_grpclib() -> None:
    """Import grpclib's client as in a Python that was built without `ssl`, unless `ssl` is loaded already."""
    with _in_place_of(_TLS, None):
        import grpclib.client  # noqa: F401, PLC0415


def load_hashlib() -> None:
    """Import hashlib and hmac as in a Python that was built without OpenSSL, if this one has digests of its own."""
    with _in_place_of(_DIGESTS, None if all(map(find_spec, _OWN_DIGESTS)) else import_module(_DIGESTS)):
        import hashlib  # noqa: F401, PLC0415
        import hmac  # noqa: F401, PLC0415 -- `secrets` loads it


def load_prometheus_client() -> None:
    """Import prometheus_client, whose server for HTTPS is not started here, unless `ssl` is loaded already.

    It brings http.client and urllib.request. Whoever speaks TLS through them later gets the real `ssl`.
    """
    with _in_place_of(_TLS, tls := _LateTls(_TLS)):
        import prometheus_client  # noqa: F401, PLC0415
    tls.late = True


@contextmanager
def _in_place_of(name: str, module: ModuleType | None) -> Iterator[None]:
    """Let imports of `name` give this module meanwhile; None: fail as if there were none (see `sys.modules`)."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = module  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
