"""The table of streams: a row for every name, and rows that the rest of the code can derive from."""

from string import Formatter

import pytest

from kickwatch.detect.streams import STREAMS, Stream, StreamName, allowance_of
from kickwatch.detect.verdict import VerdictReason
from kickwatch.model import AlarmKind

ROWS = [pytest.param(row, id=row.name.value) for row in STREAMS.values()]


def test_every_stream_has_one_row() -> None:
    assert set(STREAMS) == set(StreamName)
    assert all(row.name is name for name, row in STREAMS.items())


@pytest.mark.parametrize("row", ROWS)
def test_an_allowance_lies_below_its_clip_and_a_coin_has_none(row: Stream) -> None:
    if row.coin:
        assert row.hit_above == (0.0 if row.paired else 0.5)
        with pytest.raises(ValueError, match="coin"):
            allowance_of(row.name)
    else:
        allowance = allowance_of(row.name)
        assert 0.0 < allowance.mean < allowance.clip
        assert 0.0 <= row.hit_above <= allowance.mean


@pytest.mark.parametrize("row", ROWS)
def test_a_stream_that_convicts_has_a_reason_and_no_other_has(row: Stream) -> None:
    assert (row.reason is not None) is (row.alarm is AlarmKind.BROADCASTING)
    assert row.alarm is not AlarmKind.REGRESSED  # the relative rule's, which is no stream


@pytest.mark.parametrize("row", ROWS)
def test_a_sentence_names_only_what_an_alarm_knows(row: Stream) -> None:
    for sentence in filter(None, (row.sentence, row.sentence_by_counters)):
        names = {name for _, name, _, _ in Formatter().parse(sentence) if name is not None}
        assert names <= {"each", "allowed", "longest_ms", *(["mostly"] if row.paired else [])}
        assert not (row.coin and names & {"each", "allowed"})


def test_only_the_canary_speaks_by_counters() -> None:
    """Without a probe its CAL - TLB is all there is."""
    by_counters = [row for row in STREAMS.values() if row.sentence_by_counters or row.reason_by_counters]
    assert [row.name for row in by_counters] == [StreamName.CANARY]
    assert by_counters[0].reason_by_counters is VerdictReason.CANARY_INTERRUPTS
