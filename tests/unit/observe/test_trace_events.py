"""Records of the ring, as the probe writes them."""

import struct

import pytest

from kickwatch.observe.layouts import TRACE_EVENT, TRACE_TEXT
from kickwatch.observe.trace_events import BANK, Kind, Losses, event_of

FIELDS = (123, 0xFFFF, 0xABC, Kind.WAIT, 3, 2, -17, BANK, 41, 40, 0, b"kworker/0:1\0\0\0\0\0")


def test_a_record_becomes_an_event() -> None:
    event = event_of(TRACE_EVENT.pack(*FIELDS))
    assert event == (123, 0xFFFF, 0xABC, Kind.WAIT, 3, 2, -17, BANK, 41, 40, "kworker/0:1", "")
    assert (event.bank, event._replace(flags=0).bank) == (1, 0)


def test_a_text_ends_at_its_zero_byte() -> None:
    record = TRACE_TEXT.pack(TRACE_EVENT.pack(*FIELDS), b"/kickwatch/x\0rest of an older path")
    assert event_of(record).text == "/kickwatch/x"


def test_a_record_that_is_cut_is_refused() -> None:
    with pytest.raises(struct.error):
        event_of(bytes(TRACE_EVENT.size - 1))


def test_losses_are_summed() -> None:
    assert Losses().events == 0
    assert Losses(calls=1, by_kind={Kind.REQUEST: 3, Kind.EXIT: 2}, skipped=4).events == 9
