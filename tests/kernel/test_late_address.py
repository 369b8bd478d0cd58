"""The address of the metrics on a node whose interface comes up after the daemon: real interfaces, in a namespace."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel

INSIDE = Path(__file__).parents[1] / "support" / "late_interface.py"


@pytest.mark.parametrize(
    ("listen", "address", "before"),
    [
        ("[fe80::1%kw0]:9893", "fe80::1/64", "No such device"),
        ("[2001:db8::1]:9893", "2001:db8::1/64", "Cannot assign requested address"),
        ("192.0.2.1:9893", "192.0.2.1/24", "Cannot assign requested address"),
    ],
)
def test_an_interface_that_comes_up_after_the_daemon_or_is_made_again_is_served(
    listen: str, address: str, before: str
) -> None:
    """The first try says why it cannot listen, and a later one listens.

    A link-local listener is bound to its interface by number: that of an interface which is made again is another.
    """
    done = subprocess.run(
        ["unshare", "--net", sys.executable, INSIDE, listen, address],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    waited, *served = done.stdout.splitlines()
    assert before in waited
    assert served == ["HTTP/1.1 200 OK"] * 2
