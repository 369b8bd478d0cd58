"""Whatever fails on a record's way out, the caller goes on and the record is written."""

import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from kickwatch.journal import console, journal, native
from kickwatch.journal.journal import Event, configure_logging, logger
from schema_values import SCHEMA

FORMS = ("json", "console")
# Names that structlog, its renderers, Python's calls or the log itself use for their own ends.
TAKEN = [
    *("event", "level", "schema", "priority", "timestamp", "suppressed", "lost", "log_error"),
    *("self", "_", "__", "__class__", "args", "kw", "msg", "message", "name", "record", "logger", "extra"),
    *("method_name", "event_kw", "event_dict", "positional_args", "exc_info", "exception", "stack", "stack_info"),
]


class Mute:
    def __repr__(self) -> str:
        raise RuntimeError("no words")


@pytest.fixture(autouse=True)
def structlog_as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def strange() -> dict[str, Any]:
    circle: list[object] = []
    circle.append(circle)
    return {
        "surrogate": "\ud800",
        "octets": b"\xff\x00",
        "nan": math.nan,
        "circle": circle,
        "mute": Mute(),
        "keys": {(1, 2): {3}, None: Mute()},
        "long": "x" * 2**20,
        "error": ValueError("\x1b"),
        "stack": ["a", "b"],
        "exc_info": True,
    }


@pytest.mark.parametrize("form", FORMS)
def test_strange_values_are_written_and_end_nobody(form: str) -> None:
    stream = io.StringIO()
    configure_logging(form=form, stream=stream)
    for key, value in strange().items():
        logger().error(Event.BROADCAST_DETECTED, headline=value, **{key: value})
    logger().error(Event.BROADCAST_DETECTED, **strange())
    text = stream.getvalue()
    assert text.count("kickwatch.broadcast_detected") == len(strange()) + 1
    assert text.count("x" * 2**20) >= 2
    assert "log_error" not in text
    if form == "json":
        *_, last = (json.loads(line, parse_constant=pytest.fail) for line in text.splitlines())
        assert last.keys() >= strange().keys()
        assert (last["surrogate"], last["nan"], last["stack"]) == ("\ud800", "nan", ["a", "b"])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", TAKEN)
def test_a_key_with_a_name_that_is_taken_is_a_key_as_any_other(form: str, key: str) -> None:
    stream = io.StringIO()
    configure_logging(form=form, stream=stream)
    logger().error(Event.BROADCAST_DETECTED, **{key: ["the", "value"]})
    name = f"{key}_" if key in SCHEMA["properties"] else key
    if form == "json":
        record = json.loads(stream.getvalue())
        assert record[name] == ["the", "value"]
        assert (record["event"], record["level"]) == ("kickwatch.broadcast_detected", "error")
    else:
        assert f"{name}=[the, value]" in stream.getvalue()


def test_a_renamed_key_takes_no_other_ones_place() -> None:
    stream = io.StringIO()
    configure_logging(form="json", stream=stream)
    logger().error(Event.BROADCAST_DETECTED, level=1, level_=2, level__=3)
    record = json.loads(stream.getvalue())
    assert (record["level"], record["level_"], record["level__"], record["level___"]) == ("error", 2, 3, 1)


def fails(*_: object, **__: object) -> Any:
    raise RuntimeError("broken")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", range(6))
def test_any_processor_may_fail(form: str, place: int) -> None:
    stream = io.StringIO()
    configure_logging(form=form, stream=stream)
    processors = structlog.get_config()["processors"]
    assert len(processors) == 6
    structlog.configure(processors=[*processors[:place], fails, *processors[place + 1 :]])
    logger().error(Event.BROADCAST_DETECTED, headline="3 x", stack=["a"], mute=Mute())
    record = json.loads(stream.getvalue())
    assert record["timestamp"].endswith("Z")
    assert (record["event"], record["level"], record["priority"]) == ("kickwatch.broadcast_detected", "error", 3)
    assert (record["headline"], record["stack"], record["log_error"]) == ("3 x", ["a"], "RuntimeError: broken")


def test_a_renderer_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    configure_logging(form="console", stream=stream)
    monkeypatch.setattr(console, "render", fails)
    logger().error(Event.BROADCAST_DETECTED, headline="3 x")
    record = json.loads(stream.getvalue())
    assert (record["headline"], record["log_error"]) == ("3 x", "RuntimeError: broken")


@pytest.mark.parametrize("what", ["sentence", "send", "encode"])
def test_the_way_to_the_journal_may_fail(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    configure_logging(form="json", stream=stream)
    lines = journal.JsonLines(stream, prefixed=True)
    structlog.configure(logger_factory=lambda *_: journal.Journal(tmp_path / "socket", lines))
    monkeypatch.setattr(journal if what == "sentence" else native, what, fails)
    logger().error(Event.BROADCAST_DETECTED, headline="3 x")
    assert stream.getvalue().startswith("<3>{")
    record = json.loads(stream.getvalue()[3:])
    assert (record["headline"], record["log_error"]) == ("3 x", "RuntimeError: broken")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("error", [OSError, ValueError, RuntimeError, RecursionError, UnicodeError])
def test_a_stream_may_fail(form: str, error: type[Exception]) -> None:
    class Broken(io.StringIO):
        def write(self, _: str) -> int:
            raise error

    configure_logging(form=form, stream=Broken())
    logger().error(Event.BROADCAST_DETECTED, headline="3 x")
    stream = io.StringIO()
    configure_logging(form=form, stream=stream)
    logger().error(Event.BROADCAST_DETECTED, headline="again")
    assert "again" in stream.getvalue()


def test_a_floor_that_drops_is_no_failure() -> None:
    stream = io.StringIO()
    configure_logging(form="json", stream=stream, level="error")
    logger().info(Event.STOPPED)
    logger().debug(Event.STOPPED)
    logger().critical(Event.FAILED, what="x", remedy="y")
    assert [json.loads(line)["level"] for line in stream.getvalue().splitlines()] == ["critical"]
