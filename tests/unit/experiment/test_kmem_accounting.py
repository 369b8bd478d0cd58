"""Whether kernel memory was charged, from the containers' memcgs and from the node."""

import dataclasses

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


@pytest.mark.parametrize("deferred", [False, True])
def test_programs_that_ended_before_their_memcg_was_read_are_proved_by_a_bare_memcg(deferred: bool) -> None:
    ended = tuple(replace(life, ended_unread=True) for life in charged(None, None))
    proof = KmemFacts(deferred=deferred, paid=True, own_memcgs=True)
    assert kmem_accounting(ended, proof) is KmemAccounting.ON
    assert kmem_accounting(ended, dataclasses.replace(proof, disabled=True)) is KmemAccounting.OFF


@pytest.mark.parametrize("missing", ["paid", "own_memcgs"])
def test_a_bare_memcg_proves_nothing_if_it_was_not_charged_or_the_containers_had_none(missing: str) -> None:
    ended = tuple(replace(life, ended_unread=True) for life in charged(None, None))
    facts = dataclasses.replace(KmemFacts(paid=True, own_memcgs=True), **{missing: False})
    assert kmem_accounting(ended, facts) is KmemAccounting.UNKNOWN


def test_a_memcg_without_a_figure_is_unknown_where_its_program_was_alive() -> None:
    (ended, waiting) = charged(None, None)
    lives = (replace(ended, ended_unread=True), waiting)
    assert kmem_accounting(lives, KmemFacts(paid=True, own_memcgs=True)) is KmemAccounting.UNKNOWN


def test_a_figure_counts_more_than_a_program_that_ended_unread() -> None:
    (ended, read) = charged(None, 0)
    lives = (replace(ended, ended_unread=True), read)
    assert kmem_accounting(lives, KmemFacts(paid=True, own_memcgs=True)) is KmemAccounting.OFF


def test_a_failed_container_alone_is_proved_by_nothing() -> None:
    assert kmem_accounting(containers(0, failed=1), KmemFacts(paid=True, own_memcgs=True)) is KmemAccounting.UNKNOWN
