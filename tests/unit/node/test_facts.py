"""What is read of the node for the diagnosis of a refusal."""

import resource

import pytest

from kickwatch.node.facts import read_facts
from kickwatch.node.roots import HOST

UNLIMITED = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("limits", "memlock"),
    [((65536, 65536), 65536), ((0, 65536), 0), ((65536, UNLIMITED), None), ((UNLIMITED,) * 2, None)],
)
def test_a_limit_of_locked_memory_that_any_process_may_raise_is_none(
    limits: tuple[int, int], memlock: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    assert read_facts(HOST).memlock == memlock
