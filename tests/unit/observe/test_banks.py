"""Reading two banks: every request is in exactly one snapshot, though the probe goes on counting."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickwatch.errors import ObserveError
from kickwatch.observe.banks import Banks
from kickwatch.observe.request_cells import Totals
from kickwatch.observe.request_maps import BankFigures

KEY, OTHER = b"key", b"other"


class FakeCounter:
    """A fake of the probe: counts requests in the bank in use. `late`: readings that see a request in part."""

    def __init__(self) -> None:
        self.cells: list[Counter[bytes]] = [Counter(), Counter()]
        self.targets = [[0, 0], [0, 0]]
        self.bank = 0
        self.late = 0
        self.readings = 0
        self.refused = False

    def count(self, key: bytes, cpu: int) -> None:
        self.cells[self.bank][key] += 1
        self.targets[self.bank][cpu] += 1

    def read(self, bank: int) -> BankFigures:
        self.readings += 1
        if self.refused:
            raise ObserveError("BPF map cells: lookup failed", "")
        targets = list(self.targets[bank])
        if self.late:
            self.late -= 1
            targets[0] -= 1
        totals = {key: Totals(requests, 0, 0, 1) for key, requests in self.cells[bank].items()}
        return BankFigures(totals, targets, 0, {(1, 2): 3})


class Reader:
    """The banks and their probe."""

    def __init__(self) -> None:
        self.banks, self.probe = Banks(), FakeCounter()

    def turn(self) -> BankFigures:
        return self.banks.turn(self.configure, self.probe.read)

    def configure(self) -> None:
        self.probe.bank = self.banks.in_use


@given(st.lists(st.none() | st.tuples(st.sampled_from([KEY, OTHER]), st.integers(0, 1)), max_size=40))
def test_each_snapshot_has_all_requests_before_it(steps: list[tuple[bytes, int] | None]) -> None:
    """None is a reading."""
    reader, cells, targets = Reader(), Counter[bytes](), [0, 0]
    for step in [*steps, None, None]:
        if step is not None:
            reader.probe.count(*step)
            cells[step[0]] += 1
            targets[step[1]] += 1
            continue
        seen = reader.turn()
        assert {key: totals.requests for key, totals in seen.totals.items()} == cells
        assert list(seen.targets) == targets


def test_requests_during_the_reading_are_in_the_next_snapshot() -> None:
    reader = Reader()
    reader.probe.count(KEY, 0)
    read = reader.probe.read

    def busy(bank: int) -> BankFigures:
        reader.probe.count(KEY, 1)
        return read(bank)

    first = reader.banks.turn(reader.configure, busy)
    assert (first.totals[KEY].requests, list(first.targets)) == (1, [1, 0])
    second = reader.turn()
    assert (second.totals[KEY].requests, list(second.targets)) == (2, [1, 1])


def test_a_request_that_is_counted_in_part_is_read_again() -> None:
    reader = Reader()
    reader.probe.count(KEY, 0)
    reader.probe.late = 3
    assert list(reader.turn().targets) == [1, 0]
    assert reader.probe.readings == 4


def test_a_difference_that_stays_is_asked_about_once() -> None:
    reader = Reader()
    reader.probe.targets[0][0] = -1
    reader.turn()
    asked = reader.probe.readings
    reader.turn()
    reader.turn()
    assert asked > 10
    assert reader.probe.readings == asked + 2


def test_hits_of_both_banks_are_added() -> None:
    reader = Reader()
    reader.turn()
    assert reader.turn().hits == {(1, 2): 6}


def test_a_refused_reading_loses_nothing() -> None:
    reader = Reader()
    reader.probe.count(KEY, 0)
    reader.probe.refused = True
    with pytest.raises(ObserveError):
        reader.turn()
    reader.probe.refused = False
    reader.probe.count(KEY, 1)
    assert reader.turn().totals[KEY].requests == 2


def test_emptied_maps_begin_at_zero() -> None:
    reader = Reader()
    reader.probe.count(KEY, 0)
    reader.turn()
    reader.probe.cells = [Counter(), Counter()]
    reader.probe.targets = [[0, 0], [0, 0]]
    reader.banks.forget()
    reader.probe.count(OTHER, 1)
    seen = reader.turn()
    assert set(seen.totals) == {OTHER}
    assert list(seen.targets) == [0, 1]
