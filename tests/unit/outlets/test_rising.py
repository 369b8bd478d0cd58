"""Counters from figures that can fall: they never fall or jump, and are exact if no reading was missed."""

from hypothesis import given
from hypothesis import strategies as st

from kickwatch.outlets.metrics.rising import Rising

KEYS = st.sampled_from(["a", "b", "c", "d"])
COUNTS = st.dictionaries(st.sampled_from(["x", "y"]), st.dictionaries(KEYS, st.integers(0, 2**64)))


@given(st.lists(COUNTS), st.booleans())
def test_totals_never_fall(readings: list[dict[str, dict[str, int]]], returns: bool) -> None:
    rising: Rising[str] = Rising(["x", "y"], sources_return=returns)
    before = dict(rising.totals)
    for counts in readings:
        rising.feed(counts)
        assert all(rising.totals[label] >= before[label] for label in before)
        before = dict(rising.totals)


STEPS = st.lists(st.one_of(st.tuples(KEYS, st.integers(0, 1000)), st.sampled_from(["read", "recycle"])))


class Map:
    """A model of a probe's map: it counts, is read, and can be emptied at any time."""

    def __init__(self) -> None:
        self.entries: dict[str, int] = {}
        self.counted = 0
        self.rising: Rising[str] = Rising(["requests"])

    def count(self, key: str, events: int) -> None:
        self.entries[key] = self.entries.get(key, 0) + events
        self.counted += events

    def read(self) -> int:
        self.rising.feed({"requests": self.entries})
        return self.rising.totals["requests"]


@given(STEPS)
def test_nothing_is_counted_twice_when_a_map_is_emptied(steps: list[str | tuple[str, int]]) -> None:
    model = Map()
    for step in steps:
        if step == "read":
            assert model.read() <= model.counted
        elif step == "recycle":
            model.entries = {}
        else:
            model.count(*step)
    assert model.read() <= model.counted


@given(STEPS)
def test_nothing_is_lost_if_a_map_is_read_before_and_after_it_is_emptied(steps: list[str | tuple[str, int]]) -> None:
    model = Map()
    for step in steps:
        if step == "read":
            assert model.read() == model.counted
        elif step == "recycle":
            model.read()
            model.entries = {}
            model.read()
        else:
            model.count(*step)
    assert model.read() == model.counted


def test_counts_after_a_map_was_emptied_are_added() -> None:
    rising: Rising[str] = Rising(["requests"])
    for entries in ({"a": 100, "b": 7}, {"a": 130, "b": 7}, {"b": 3}, {"a": 2, "b": 4}):
        rising.feed({"requests": entries})
    assert rising.totals == {"requests": 107 + 30 + 3 + 2 + 1}


def test_a_cpu_that_was_offline_keeps_its_figure() -> None:
    rising: Rising[str] = Rising(["CAL"], sources_return=True)
    for cpus in ({0: 10, 1: 1000}, {0: 20}, {0: 30, 1: 1005}):
        rising.feed({"CAL": cpus})
    assert rising.totals == {"CAL": 1010 + 10 + 10 + 5}


def test_a_32_bit_counter_that_wraps_loses_little() -> None:
    rising: Rising[str] = Rising(["CAL"], sources_return=True)
    for count in (2**32 - 5, 20):
        rising.feed({"CAL": {0: count}})
    assert rising.totals == {"CAL": 2**32 - 5 + 20}


def test_a_skipped_rise_is_never_counted() -> None:
    rising: Rising[str] = Rising(["spent"])
    rising.skip({"spent": {"k": 500}})
    rising.feed({"spent": {"k": 510}})
    assert rising.totals == {"spent": 10}
