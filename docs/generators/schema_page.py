"""The keys of every log record with their types, from the JSON Schema that the tests hold against real records."""

import json
from pathlib import Path
from typing import Any

from generators.command_pages import cell

SCHEMA = Path(__file__).parents[2] / "daemon" / "kickwatch" / "journal" / "events.schema.json"
_INTRODUCTION = """# JSON schema of the log

Types and meaning of the keys of every record, from
[events.schema.json](../../daemon/kickwatch/journal/events.schema.json) (JSON Schema 2020-12).
[Events](../events.md) says what to do about each. Besides its own keys each record has the [keys of every
record](../events.md#keys-of-every-record). A key with ? may be missing; `null` means that a figure could not be
measured.

"""


def page() -> str:
    """The page: the keys of a change first, then event by event."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    definitions = schema["$defs"]
    events = {name: one for name, one in definitions.items() if "event" in one.get("properties", {})}
    parts = [_section("Keys of a change", "Every alert of the daemon has these.", definitions["change"])]
    for one in events.values():
        text = one["description"] + (" With the keys of a change." if "$ref" in one else "")
        parts.append(_section(f"`{one['properties']['event']['const']}`", text, one))
    return _INTRODUCTION + "\n".join(parts)


def _section(title: str, text: str, definition: dict[str, Any]) -> str:
    required = set(definition.get("required", definition["properties"]))
    rows = [
        f"| `{key}`{'' if key in required else '?'} | {cell(_type(typed))} | {cell(typed.get('description', ''))} |"
        for key, typed in definition["properties"].items()
        if key not in {"event", "level"}
    ]
    head = ["", "| key | type | meaning |", "|---|---|---|", *rows] if rows else []
    return "\n".join([f"## {title}", "", text, *head, ""])


def _type(typed: dict[str, Any]) -> str:
    """The type in words: `string`, `array of string`, `number or null`, the values of a closed set."""
    if "enum" in typed:
        return ", ".join(f"`{json.dumps(value)}`" for value in typed["enum"])
    if "$ref" in typed:
        return str(typed["$ref"]).rpartition("/")[2]
    for key in ("anyOf", "oneOf"):
        if key in typed:
            return " or ".join(_type(one) for one in typed[key])
    kinds = typed.get("type", "any")
    kind = " or ".join(kinds) if isinstance(kinds, list) else str(kinds)
    return f"{kind} of {_type(typed['items'])}" if "items" in typed else kind
