"""kickwatch on Debian 13's kernel (6.12) with 4 CPUs and cgroup v2: the laboratory's whole list for that machine."""

from collections.abc import Callable

import pytest

LIMIT_S = 2400


@pytest.mark.long
@pytest.mark.guest
@pytest.mark.timeout(LIMIT_S + 60)
def test_debian_13_sees_and_convicts_as_this_node_does(laboratory: Callable[[float], str]) -> None:
    said = laboratory(LIMIT_S)
    assert "laboratory: 1 of 1 machines passed" in said.splitlines()[-1], said[-6000:]
