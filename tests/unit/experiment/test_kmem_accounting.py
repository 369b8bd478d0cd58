"""Whether kernel memory was charged, from the containers' memcgs and from the node."""

import pytest
from msgspec.structs import replace

from builders import containers
from kickwatch.experiment.kmem_accounting import KmemFacts, kmem_accounting
from kickwatch.model import Container, KmemAccounting

DEFERRED = KmemFacts(deferred=True)


def charged(*kmem_bytes: int | None) -> tuple[Container, ...]:
    """Containers whose memcgs showed these figures."""
    lives = containers(len(kmem_bytes))
    return tuple(replace(life, kmem_bytes=figure) for life, figure in zip(lives, kmem_bytes, strict=True))


def test_a_counter_must_be_above_zero_in_every_container() -> None:
    assert kmem_accounting(charged(1, 2), KmemFacts()) is KmemAccounting.ON
    assert kmem_accounting(charged(1, 0), KmemFacts()) is KmemAccounting.OFF


def test_one_charged_container_proves_a_deferred_statistic() -> None:
    assert kmem_accounting(charged(0, 4096, 0), DEFERRED) is KmemAccounting.ON
    assert kmem_accounting(charged(0, 0, 0), DEFERRED) is KmemAccounting.UNKNOWN
    assert kmem_accounting(charged(0, 0, 0), KmemFacts(deferred=True, paid=True)) is KmemAccounting.ON
    disabled = KmemFacts(disabled=True, deferred=True, paid=True)
    assert kmem_accounting(charged(0, 0, 0), disabled) is KmemAccounting.OFF


@pytest.mark.parametrize("deferred", [False, True])
def test_without_a_figure_it_is_unknown_and_the_command_line_outranks_all_figures(deferred: bool) -> None:
    assert kmem_accounting(charged(None), KmemFacts(deferred=deferred)) is KmemAccounting.UNKNOWN
    disabled = KmemFacts(disabled=True, deferred=deferred)
    assert kmem_accounting(charged(4096), disabled) is KmemAccounting.OFF


def test_a_failed_container_does_not_count() -> None:
    (failed,) = containers(0, failed=1)
    assert kmem_accounting((*charged(1), replace(failed, kmem_bytes=0)), KmemFacts()) is KmemAccounting.ON
