"""What fails for a while: one record when it begins or its cause changes, one when it is over; names that are gone."""

import io
import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest
import structlog
from jsonschema import Draft202012Validator

from kickwatch.journal.events import RETIRED, Event
from kickwatch.journal.journal import configure_logging
from kickwatch.journal.trouble import TroubleLog

SCHEMA = json.loads(resources.files("kickwatch.journal").joinpath("events.schema.json").read_text("utf-8"))
KINDS = [
    (Event.METRICS_UNSERVED, Event.METRICS_SERVED, {"listen": "127.0.0.1:9893"}),
    (Event.TEXTFILE_UNWRITTEN, Event.TEXTFILE_WRITTEN, {}),
    (Event.BUDGET_UNWRITTEN, Event.BUDGET_WRITTEN, {}),
]


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    written = io.StringIO()
    configure_logging(form="json", stream=written)
    yield written
    structlog.reset_defaults()


def records(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(("begins", "ends", "more"), KINDS)
def test_it_is_logged_when_it_begins_when_its_cause_changes_and_when_it_ends(
    stream: io.StringIO, begins: Event, ends: Event, more: dict[str, str]
) -> None:
    trouble = TroubleLog(begins, ends)
    trouble.works(**more)
    assert records(stream) == []
    for what in ("the disk is full", "the disk is full", "the disk is gone"):
        trouble.failed(what, "see to the disk")
        assert trouble.lasts
    trouble.works(**more)
    trouble.works(**more)
    assert not trouble.lasts
    found = records(stream)
    assert [(record["event"], record["level"]) for record in found] == [
        (begins, "warning"),
        (begins, "warning"),
        (ends, "info"),
    ]
    assert [record["what"] for record in found[:2]] == ["the disk is full", "the disk is gone"]
    assert [list(Draft202012Validator(SCHEMA).iter_errors(record)) for record in found] == [[], [], []]


def test_what_is_no_longer_asked_for_ends_without_a_record(stream: io.StringIO) -> None:
    trouble = TroubleLog(Event.TEXTFILE_UNWRITTEN, Event.TEXTFILE_WRITTEN)
    trouble.failed("the disk is full", "see to the disk")
    trouble.forget()
    trouble.works()
    assert not trouble.lasts
    assert [record["event"] for record in records(stream)] == [Event.TEXTFILE_UNWRITTEN]


def test_what_is_retired_is_not_used_again() -> None:
    assert not set(RETIRED) & {event.value for event in Event}
    assert not set(RETIRED.values()) & {event.message_id for event in Event}
