"""Loads asyncio and prometheus_client without `ssl`, which both load and kickwatch has no use for.

kickwatch speaks no TLS: engines listen on unix sockets, and Prometheus scrapes plain HTTP. `ssl` with OpenSSL's library
is a tenth of the daemon: 4 MiB (tests/benchmarks/bench_memory.py). The Docker SDK loads it for itself where Docker is
driven.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

_TLS = "ssl"


class _LateTls(ModuleType):
    """Stands for `ssl` in modules that are loaded meanwhile: `object` for the names in their signatures, then `ssl`."""

    late = False

    def __getattr__(self, name: str) -> object:
        return getattr(import_module(_TLS), name) if self.late else object


def load_asyncio() -> None:
    """Import asyncio as in a Python that was built without `ssl`, unless `ssl` is loaded already."""
    with _in_place_of_tls(None):
        import asyncio  # noqa: F401, PLC0415


def load_prometheus_client() -> None:
    """Import prometheus_client, whose server for HTTPS is not started here, unless `ssl` is loaded already.

    It brings http.client and urllib.request. Whoever speaks TLS through them later gets the real `ssl`.
    """
    with _in_place_of_tls(tls := _LateTls(_TLS)):
        import prometheus_client  # noqa: F401, PLC0415
    tls.late = True


@contextmanager
def _in_place_of_tls(module: ModuleType | None) -> Iterator[None]:
    """Let `import ssl` give this module meanwhile; None: fail as if there were no `ssl` (see `sys.modules`)."""
    if _TLS in sys.modules:
        yield
        return
    sys.modules[_TLS] = module  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_TLS]
