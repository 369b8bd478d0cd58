"""The token bucket: what passes, what is counted, and that no interleaving lets more through than the rate."""

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from kickwatch.journal.limits import Limiter, Rate


class Clock:
    """A clock that the test advances."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def limiter(clock: Clock, **rates: Rate) -> Limiter:
    return Limiter(rates, Rate(burst=3, period_s=10), {"alert"}, clock)


def test_a_burst_passes_and_the_rest_is_counted_and_said() -> None:
    clock = Clock()
    one = limiter(clock)
    assert [one.admit("a") for _ in range(5)] == [0, 0, 0, None, None]
    clock.now_s += 9.9
    assert one.admit("a") is None
    clock.now_s += 0.2
    assert one.admit("a") == 3
    assert one.admit("a") is None


def test_a_quiet_name_gets_its_burst_back_and_no_more() -> None:
    clock = Clock()
    one = limiter(clock)
    for _ in range(4):
        one.admit("a")
    clock.now_s += 1e6
    assert [one.admit("a") for _ in range(4)] == [1, 0, 0, None]


def test_names_have_buckets_and_rates_of_their_own() -> None:
    one = limiter(Clock(), b=Rate(burst=1, period_s=10))
    assert [one.admit("a"), one.admit("b"), one.admit("b"), one.admit("a")] == [0, 0, None, 0]


def test_a_spared_name_always_passes() -> None:
    one = limiter(Clock())
    assert [one.admit("alert") for _ in range(1000)] == [0] * 1000


def test_as_a_processor_it_drops_the_record_or_adds_the_count() -> None:
    clock = Clock()
    one = limiter(clock)
    for _ in range(3):
        assert one(None, "info", {"event": "a", "x": 1}) == {"event": "a", "x": 1}
    for _ in range(2):
        with pytest.raises(structlog.DropEvent):
            one(None, "info", {"event": "a"})
    clock.now_s += 10
    assert one(None, "info", {"event": "a", "x": 1}) == {"event": "a", "x": 1, "suppressed": 2}


@given(st.lists(st.tuples(st.floats(0, 30), st.sampled_from("ab")), max_size=200))
def test_never_more_than_the_rate_and_every_record_is_accounted_for(steps: list[tuple[float, str]]) -> None:
    clock = Clock()
    one = limiter(clock)
    began_s = clock.now_s
    passed, asked, told = {"a": 0, "b": 0}, {"a": 0, "b": 0}, {"a": 0, "b": 0}
    for pause_s, name in steps:
        clock.now_s += pause_s
        asked[name] += 1
        admitted = one.admit(name)
        if admitted is not None:
            passed[name] += 1
            told[name] += admitted
        assert passed[name] <= 3 + (clock.now_s - began_s) / 10 + 1e-6
        assert passed[name] + told[name] <= asked[name]
        if admitted is not None:
            assert passed[name] + told[name] == asked[name]
