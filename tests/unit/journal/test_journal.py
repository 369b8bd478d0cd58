"""Where records go and in which form; that whoever reads the log can vanish or stop without harm to the daemon."""

import io
import json
import os
import pty
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest
import structlog

from kickwatch.journal import native
from kickwatch.journal.events import NEVER_DROPPED, RATE, Event
from kickwatch.journal.journal import (
    STREAM_WAIT_MS,
    configure_logging,
    logger,
    reaches_journal,
    sentence,
)

ALERT = {"headline": "32 x kick_all_cpus_sync per container, sent by a kworker", "verdict": "broadcasting"}


@pytest.fixture(autouse=True)
def structlog_as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.fixture
def journal_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TextIO]:
    """A stream that systemd connected to the journal, as far as its environment says."""
    with (tmp_path / "stderr").open("w+", encoding="utf-8") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        yield stream


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Callable[[], socket.socket]]:
    """Listens on `tmp_path / "socket"`; each call starts a new listener."""
    made = []

    def listen() -> socket.socket:
        (tmp_path / "socket").unlink(missing_ok=True)
        one = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        one.bind(str(tmp_path / "socket"))
        one.settimeout(5)
        made.append(one)
        return one

    yield listen
    for one in made:
        one.close()


def lines(stream: TextIO) -> list[str]:
    stream.seek(0)
    return stream.read().splitlines()


def test_every_message_id_is_128_bits_and_its_own() -> None:
    ids = [event.message_id for event in Event]
    assert len(set(ids)) == len(ids) == len(Event)
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)
    assert Event.BROADCAST_DETECTED.message_id == "10792d80760541a0abc7713fc57d1d66"
    assert Event("kickwatch.started") is Event.STARTED
    assert json.dumps(Event.STARTED) == '"kickwatch.started"'


def test_elsewhere_a_record_is_one_json_object_a_line() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)
    logger().error(Event.BROADCAST_DETECTED, **ALERT)
    (line,) = lines(stream)
    record = json.loads(line)
    assert record.pop("timestamp")
    assert record == ALERT | {
        "event": "kickwatch.broadcast_detected",
        "level": "error",
        "priority": 3,
        "schema": 1,
    }


def test_on_request_lines_for_people() -> None:
    stream = io.StringIO()
    configure_logging(form="console", stream=stream)
    logger().warning(Event.KNOB_IGNORED, what="a knob is ignored")
    (line,) = lines(stream)
    assert "kickwatch.knob_ignored" in line
    assert "a knob is ignored" in line
    assert "priority" not in line
    assert "schema" not in line


def test_an_alert_with_its_stack_is_readable_without_a_colour() -> None:
    stream = io.StringIO()
    configure_logging(form="console", stream=stream)
    logger().error(Event.BROADCAST_DETECTED, stack=["kick_all_cpus_sync", "x" * 60], **ALERT)
    first, *rest = lines(stream)
    assert first.endswith("[error   ] kickwatch.broadcast_detected:")
    assert rest[0].strip() == ALERT["headline"]
    assert rest[1:] == ["    verdict=broadcasting", "    stack:", "        kick_all_cpus_sync", f"        {'x' * 60}"]


def test_the_level_is_a_floor() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream, level="warning")
    logger().info(Event.STOPPED)
    logger().warning(Event.KNOB_IGNORED, what="x")
    assert len(lines(stream)) == 1


def test_the_journal_gets_native_fields(
    journal_stream: TextIO, journald: Callable[[], socket.socket], tmp_path: Path
) -> None:
    listening = journald()
    configure_logging(stream=journal_stream, journal=tmp_path / "socket")
    logger().error(Event.BROADCAST_DETECTED, stack=["a", "b"], **ALERT)
    fields = listening.recv(1 << 16).decode().splitlines()
    assert fields[:4] == [
        "MESSAGE=broadcast detected: 32 x kick_all_cpus_sync per container, sent by a kworker",
        "PRIORITY=3",
        "SYSLOG_IDENTIFIER=kickwatch",
        "MESSAGE_ID=10792d80760541a0abc7713fc57d1d66",
    ]
    assert {
        "KICKWATCH_EVENT=kickwatch.broadcast_detected",
        "KICKWATCH_SCHEMA=1",
        "KICKWATCH_VERDICT=broadcasting",
        'KICKWATCH_STACK=["a", "b"]',
    } <= set(fields)
    assert lines(journal_stream) == []


def test_without_journald_lines_reach_the_journal_with_their_priority(journal_stream: TextIO, tmp_path: Path) -> None:
    configure_logging(stream=journal_stream, journal=tmp_path / "socket")
    logger().error(Event.BROADCAST_DETECTED, **ALERT)
    logger().info(Event.STOPPED)
    told = lines(journal_stream)
    assert [line[:3] for line in told] == ["<3>", "<6>"]
    assert json.loads(told[0][3:])["verdict"] == "broadcasting"


def test_json_on_request_reaches_the_journal_as_lines(
    journal_stream: TextIO, journald: Callable[[], socket.socket], tmp_path: Path
) -> None:
    journald()
    configure_logging(form="json", stream=journal_stream, journal=tmp_path / "socket")
    logger().warning(Event.KNOB_IGNORED, what="x")
    assert lines(journal_stream)[0].startswith("<4>{")


def test_a_stream_that_is_not_the_journals_gets_no_native_records(
    journald: Callable[[], socket.socket], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    journald()
    stream = io.StringIO()
    assert not reaches_journal(stream)
    configure_logging(stream=stream, journal=tmp_path / "socket")
    logger().info(Event.STOPPED)
    assert len(lines(stream)) == 1


def test_journald_restarts_and_no_record_is_lost(
    journal_stream: TextIO, journald: Callable[[], socket.socket], tmp_path: Path
) -> None:
    first = journald()
    configure_logging(stream=journal_stream, journal=tmp_path / "socket")
    logger().info(Event.UNDRAINED, by="file")
    assert b"KICKWATCH_BY=file\n" in first.recv(1 << 16)
    first.close()
    logger().info(Event.UNDRAINED, by="signal")
    second = journald()
    logger().info(Event.DRAINED, by="file")
    assert b"KICKWATCH_EVENT=kickwatch.drained\n" in second.recv(1 << 16)
    (line,) = lines(journal_stream)
    assert line.startswith("<6>{")
    assert '"signal"' in line


QUEUED = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())  # 10, and 512 where a systemd was booted


async def test_a_stopped_journald_holds_the_event_loop_up_for_a_moment_and_once(
    journald: Callable[[], socket.socket], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = 400 + QUEUED
    reading, writing = os.pipe()  # the stream is journald's too, and it reads none of it
    with os.fdopen(writing, "w", buffering=1) as stream:
        status = os.fstat(writing)
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        monkeypatch.setattr("sys.stderr", stream)
        journald()
        configure_logging(journal=tmp_path / "socket")
        began = time.monotonic()
        for number in range(records):
            logger().info(Event.BROADCAST_ENDED, explanation="x" * 1000, number=number)
        took_s = time.monotonic() - began
        # a wait for each would be 20 s at journald, and 40 s at the stream
        assert (native.FULL_WAIT_MS + STREAM_WAIT_MS) / 1e3 * 0.9 < took_s < 10
        waited = os.read(reading, 1 << 20).decode().splitlines()
        logger().info(Event.BROADCAST_ENDED, explanation="once more")
        (last,) = os.read(reading, 1 << 20).decode().splitlines()
    os.close(reading)
    queued = json.loads(waited[0][3:])["number"]
    assert json.loads(last[3:])["lost"] == records - queued - len(waited)


def test_a_reader_that_is_gone_ends_nobody() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    configure_logging(stream=stream)
    logger().info(Event.STOPPED)
    logger().info(Event.STOPPED)
    stream.close()  # nothing waits in it


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_stream_that_is_closed_ends_nobody(form: str) -> None:
    stream = io.StringIO()
    configure_logging(form=form, stream=stream)
    stream.close()
    logger().error(Event.KNOB_IGNORED, what="x")


def test_a_value_that_json_cannot_say_ends_nobody() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)
    circle: list[object] = []
    circle.append(circle)
    logger().info(Event.KNOB_IGNORED, what="x", circle=circle)
    logger().info(Event.KNOB_IGNORED, what="x", path=Path("/a"))
    first, second = map(json.loads, lines(stream))
    assert "kickwatch.knob_ignored" in str(first)
    assert second["path"] == "/a"


def test_floods_are_limited_and_alerts_never() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)
    for number in range(3 * RATE.burst):
        logger().warning(Event.KNOB_IGNORED, what=str(number))
        logger().error(Event.BROADCAST_DETECTED, **ALERT)
        logger().error(Event.OBSERVER_BLIND, what="0 of 23", cpus=[])
    told = [json.loads(line)["event"] for line in lines(stream)]
    assert told.count("kickwatch.knob_ignored") == RATE.burst
    assert told.count("kickwatch.broadcast_detected") == 3 * RATE.burst
    assert told.count("kickwatch.observer_blind") == 3 * RATE.burst
    assert Event.REGRESSION_ENDED in NEVER_DROPPED
    assert Event.TRIAL_FAILED not in NEVER_DROPPED


@pytest.mark.parametrize(
    ("event", "keys", "message"),
    [
        (Event.BROADCAST_DETECTED, ALERT, f"broadcast detected: {ALERT['headline']}"),
        (Event.BROADCAST_ENDED, {"explanation": "all silent", "trials": ["a"]}, "broadcast ended: all silent"),
        (Event.ENGINE_LOST, {"what": "no engine", "remedy": "start it"}, "engine lost: no engine: start it"),
        (Event.RELOADED, {"changed": ["a.b: 1 -> 2", "a.c: 3 -> 4"]}, "reloaded: changed=a.b: 1 -> 2; a.c: 3 -> 4"),
        (Event.RESUMED, {"paused_s": 12.5}, "resumed: paused_s=12.5"),
        (Event.STOPPED, {}, "stopped"),
        (Event.SUMMARY, {"verdict": "quiet", "void": {}, "bill": []}, "summary: verdict=quiet"),
    ],
)
def test_a_sentence_for_people(event: Event, keys: dict[str, Any], message: str) -> None:
    record = {"schema": 1, **keys, "event": event, "level": "info", "priority": 6, "timestamp": "2026-01-01T00:00:00Z"}
    assert sentence(record) == message


def test_a_sentence_stays_short() -> None:
    record = {"event": Event.TRIAL_FINISHED} | {f"key_{number}": "x" * 1000 for number in range(20)}
    assert len(sentence(record)) < 1200


def test_a_terminal_that_reads_no_more_costs_a_bounded_wait_and_no_more(tmp_path: Path) -> None:
    """A frozen ssh connection: the daemon's event loop must go on, whatever the length of its records."""
    ours, theirs = pty.openpty()
    try:
        with os.fdopen(theirs, "w", encoding="utf-8") as stream:
            configure_logging(form="console", stream=stream)
            began = time.monotonic()
            for _ in range(40):
                logger().error(Event.HISTORY_TROUBLE, what="x" * 2000, remedy="y" * 2000, aside="")
            took_s = time.monotonic() - began
    finally:
        os.close(ours)
    assert took_s < 40 * 2 * STREAM_WAIT_MS / 1000.0
