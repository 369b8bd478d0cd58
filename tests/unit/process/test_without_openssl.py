"""The commands and the daemon load no OpenSSL, and whoever needs it later in the same process gets it."""

import subprocess
import sys

import pytest

OPENSSL = {"ssl", "_ssl", "_hashlib"}
# The daemon's modules, and its metrics as it starts them.
DAEMON = """
import kickwatch.cli, kickwatch.commands.run, kickwatch.service.daemon
import asyncio
from kickwatch.configuration.types import Config, MetricsConfig
from kickwatch.outlets.metrics.outlet import PrometheusOutlet

async def serve() -> None:
    outlet = PrometheusOutlet(None)
    await outlet.start(Config(metrics=MetricsConfig(listen="127.0.0.1:0")))
    await outlet.close()

asyncio.run(serve())
"""


def printed(*statements: str) -> set[str]:
    script = "\n".join(["import sys", *statements])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def loaded(*statements: str) -> set[str]:
    return printed(*statements, "print(*sys.modules)")


@pytest.mark.parametrize("module", ["asyncio", "prometheus_client", "hashlib", "hmac"])
def test_each_of_them_loads_openssl(module: str) -> None:
    """Else the hiding is no longer needed."""
    assert loaded(f"import {module}") & OPENSSL


def test_the_daemon_and_its_metrics_load_none() -> None:
    modules = loaded(DAEMON)
    assert {"asyncio", "prometheus_client", "hashlib", "hmac"} <= modules
    assert not modules & OPENSSL


def test_what_was_loaded_before_stays() -> None:
    assert loaded("import ssl, _hashlib", DAEMON) >= OPENSSL
    assert printed("import ssl", DAEMON, "import asyncio.sslproto", "print(asyncio.sslproto.ssl is ssl)") == {"True"}


def test_the_docker_sdk_loads_it_for_itself() -> None:
    assert "ssl" in loaded(DAEMON, "import docker")


def test_who_speaks_tls_through_http_client_gets_the_real_one() -> None:
    """prometheus_client loads http.client, whose HTTPSConnection another package may want."""
    assert printed(
        DAEMON,
        "import http.client",
        "import ssl",
        "print(type(http.client.HTTPSConnection('localhost')._context) is ssl.SSLContext)",
    ) == {"True"}


def test_digests_are_those_of_openssl() -> None:
    text = "print(hashlib.sha256(b'x').hexdigest(), hashlib.blake2s(b'x', key=b'k', digest_size=6).hexdigest())"
    assert printed("import hashlib", text) == printed(DAEMON, "import hashlib", text)


def test_a_python_without_digests_of_its_own_uses_those_of_openssl() -> None:
    """Fedora and RHEL build Python so."""
    without = "import importlib.util as u; real = u.find_spec; u.find_spec = lambda n: None if n == '_md5' else real(n)"
    assert "_hashlib" in loaded(without, "import kickwatch.commands")
