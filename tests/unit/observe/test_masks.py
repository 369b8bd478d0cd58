"""Masks of CPUs as words, and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickwatch.errors import ObserveError
from kickwatch.observe.layouts import MASK_WORDS
from kickwatch.observe.masks import MOST_CPUS, cpus_in, mask_of, mask_words

sets_of_cpus = st.sets(st.integers(0, MOST_CPUS - 1))


@given(sets_of_cpus)
def test_a_mask_has_the_bits_of_its_cpus(cpus: set[int]) -> None:
    words = mask_of(cpus)
    assert len(words) == MASK_WORDS
    assert {64 * index + bit for index, word in enumerate(words) for bit in range(64) if word >> bit & 1} == cpus


@given(sets_of_cpus)
def test_the_cpus_of_a_mask_are_found_in_order(cpus: set[int]) -> None:
    assert list(cpus_in(sum(1 << cpu for cpu in cpus))) == sorted(cpus)


def test_cpus_without_a_place_are_left_out() -> None:
    assert mask_of([3, MOST_CPUS]) == mask_of([3])


@pytest.mark.parametrize(("last", "words"), [(0, 1), (63, 1), (64, 2), (511, 8), (1023, 16)])
def test_the_length_of_masks_follows_from_the_last_possible_cpu(last: int, words: int) -> None:
    assert mask_words(list(range(last + 1))) == words


def test_more_than_1024_cpus_are_an_error() -> None:
    with pytest.raises(ObserveError, match="1024 CPUs") as raised:
        mask_words([0, 1024])
    assert raised.value.remedy.startswith("boot with nr_cpus=1024")
