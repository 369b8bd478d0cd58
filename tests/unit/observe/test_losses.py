"""Losses in words: one sentence a cause, the same whichever probe met the cause first."""

from itertools import permutations

import pytest

from kickwatch.observe.losses import Loss, Lost, sentences

LOCKED = "kernel lockdown forbids reads", "boot with lockdown=integrity"
FOUND = (Loss(Lost.HOLDERS, *LOCKED), Loss(Lost.UNDER_MUTEX, *LOCKED), Loss(Lost.HOLDERS, *LOCKED))


@pytest.mark.parametrize("order", tuple(permutations(FOUND)))
def test_a_cause_that_several_probes_met_is_one_sentence_in_any_order(order: tuple[Loss, ...]) -> None:
    """Or the same loss would read differently in two trials."""
    assert sentences(order) == [
        "kernel lockdown forbids reads; lost: whether a sender holds slab_mutex, who holds slab_mutex;"
        " fix: boot with lockdown=integrity"
    ]


def test_each_cause_has_its_own_sentence() -> None:
    other = Loss(Lost.SLAB_MUTEX, "its address is not listed", "")
    assert sentences((other, *FOUND)) == [f"{other.what}; lost: {other.lost}", *sentences(FOUND)]
