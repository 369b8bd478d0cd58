"""Slices on one track nest: a property over any slices."""

from hypothesis import given
from hypothesis import strategies as st

from kickwatch.trace.lanes import Slice, lanes

SPANS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=20)


@given(SPANS)
def test_every_slice_is_on_one_lane_and_each_lane_nests(spans: list[tuple[int, int]]) -> None:
    slices = [Slice(str(number), began, began + length, "c") for number, (began, length) in enumerate(spans)]
    found = lanes(slices)
    assert sorted(one.name for lane in found for one in lane) == sorted(one.name for one in slices)
    for lane in found:
        for one in lane:
            for other in lane:
                apart = one.ended_ns <= other.began_ns or other.ended_ns <= one.began_ns
                inside = one.began_ns <= other.began_ns and other.ended_ns <= one.ended_ns
                around = other.began_ns <= one.began_ns and one.ended_ns <= other.ended_ns
                assert apart or inside or around


def test_slices_that_nest_share_a_lane() -> None:
    assert (
        len(lanes([Slice("a", 0, 10, "c"), Slice("b", 2, 5, "c"), Slice("d", 5, 10, "c"), Slice("e", 11, 12, "c")]))
        == 1
    )
    assert len(lanes([Slice("a", 0, 10, "c"), Slice("b", 5, 12, "c")])) == 2
