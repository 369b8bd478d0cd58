"""The Vector example ships every event, and the queries of the page ask for fields and events that exist."""

import json
import re
import tomllib
from pathlib import Path

from kickwatch.journal.events import Event
from kickwatch.journal.journal import fields_of

ROOT = Path(__file__).parents[3]
VECTOR = ROOT / "deploy" / "loki" / "vector.toml"
PAGE = (ROOT / "docs" / "howto" / "logs.md").read_text()
KEYS = set(re.findall(r'"([a-z_]+)":', (ROOT / "daemon/kickwatch/journal/events.schema.json").read_text()))
BROADCAST = {
    "event": Event.BROADCAST_DETECTED,
    "level": "error",
    "priority": 3,
    "kernel": "6.1.0",
    "func": "do_nothing",
}


def test_it_ships_the_message_id_of_every_event() -> None:
    source = tomllib.loads(VECTOR.read_text())["sources"]["kickwatch"]
    assert source["include_matches"]["MESSAGE_ID"] == [event.message_id for event in Event]
    named = re.findall(r'"(\w{32})", # (\S+)', VECTOR.read_text())
    assert named == [(event.message_id, event.value) for event in Event]


def test_its_labels_are_fields_of_a_record() -> None:
    fields = dict(fields_of(BROADCAST))
    assert fields["MESSAGE_ID"] == Event.BROADCAST_DETECTED.message_id
    asked = set(re.findall(r"\.(KICKWATCH_\w+)", VECTOR.read_text()))
    assert asked == {"KICKWATCH_EVENT", "KICKWATCH_LEVEL"} <= fields.keys()
    sink = tomllib.loads(VECTOR.read_text())["sinks"]["kickwatch_loki"]
    assert sink["labels"] == {"job": "kickwatch", "event": "{{ event }}", "level": "{{ level }}"}


def queries() -> list[str]:
    return [row.replace(r"\|", "|") for row in re.findall(r"^\| [^|`]+ \| `(.+)` \|$", PAGE, re.MULTILINE)]


def test_the_queries_ask_for_fields_that_records_have() -> None:
    fields = {name for query in queries() for name in re.findall(r"KICKWATCH_(\w+)", query)}
    assert len(fields) > 4
    assert {name.lower() for name in fields} <= KEYS


def test_the_queries_ask_for_events_that_exist() -> None:
    """Each regular expression for `event` finds at least one for each of its alternatives."""
    asked = [found for query in queries() for found in re.findall(r'\bevent(=~?)"([^"]+)"', query)]
    assert len(asked) == len([query for query in queries() if "event=" in query]) >= 6
    for operator, pattern in asked:
        wanted = re.escape(pattern) if operator == "=" else pattern
        found = [event for event in Event if re.fullmatch(wanted, event.value)]
        assert len(found) == (1 if operator == "=" else pattern.count("|") + 1), pattern


def test_the_levels_are_those_of_the_schema() -> None:
    schema = json.loads((ROOT / "daemon/kickwatch/journal/events.schema.json").read_text())
    levels = set(re.findall(r'"(debug|info|warning|error|critical)"', json.dumps(schema)))
    asked = {
        level for query in queries() for found in re.findall(r'level=~"([^"]+)"', query) for level in found.split("|")
    }
    assert asked == {"warning", "error"} <= levels
