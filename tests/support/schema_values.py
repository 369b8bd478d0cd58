"""Test values derived from the schema of events: the least, the longest and the oddest that each event may have."""

import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

SCHEMA: dict[str, Any] = json.loads(
    resources.files("kickwatch.journal").joinpath("events.schema.json").read_text("utf-8")
)
KINDS = ("least", "longest", "oddest 0", "oddest 5")
LONG = "word " * 400 + "x" * 3000
# Texts that a kernel, an engine or a person may put into a name or an error message.
ODD_TEXTS = (
    "",
    " ",
    "null",
    "a b=c, [d] {e}: \"f\" 'g'",
    "ends with a backslash \\",
    "two\nlines\n\nand a last one\n",
    "\r\x1b[31mred\x1b[0m\x07\x00",
    "\x1b]0;a title\x07",
    "lone \ud800 surrogate",
    "turned \u202e around, \u2028 a separator, a \xa0 space",
    "Grüße 漢字 🎉",
    LONG,
)
ODD_NUMBERS = (0, 1e-320, 0.1 + 0.2, 1.7976931348623157e308, 2**63, 10**300)


def fields_of(name: str, kind: str) -> dict[str, Any]:
    """Valid fields of one event such as `started`. `kind` is one of KINDS; its number rotates the odd values."""
    definition = SCHEMA["$defs"][name]
    properties, required = dict(definition["properties"]), set(definition.get("required", ()))
    if "$ref" in definition:
        change = SCHEMA["$defs"]["change"]
        properties |= change["properties"]
        required |= set(change.get("required", ()))
    kind, _, turn = kind.partition(" ")
    chosen = [key for key in properties if key not in {"event", "level"} and (kind != "least" or key in required)]
    return {key: value_of(properties[key], kind, number + int(turn or 0)) for number, key in enumerate(chosen)}


def level_of(name: str) -> str:
    """The most severe level that an event may have."""
    level: str = SCHEMA["$defs"][name]["properties"]["level"]["enum"][-1]
    return level


def value_of(schema: dict[str, Any], kind: str, turn: int) -> Any:
    """A valid value. `kind` is least, longest or oddest; `turn` selects one of several."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][turn % len(schema["enum"])]
    named = schema["type"]
    if isinstance(named, list):
        named = named[-1] if kind == "least" else named[turn % len(named)]
    return _MAKERS[named](schema, kind, turn)


def _text(schema: dict[str, Any], kind: str, turn: int) -> str:
    if "pattern" in schema:
        assert schema["pattern"] == "^[0-9a-f]{8,64}$", "no value is known for another pattern"
        return "0badcafe" * (1 if kind == "least" else 8)
    return {"least": "", "longest": LONG}.get(kind, ODD_TEXTS[turn % len(ODD_TEXTS)])


def _number(schema: dict[str, Any], kind: str, turn: int) -> float:
    least = schema.get("minimum", -(2**53))
    if kind == "least":
        return float(least) if schema["type"] == "number" else int(least)
    most = schema.get("maximum", 10**400)
    odd = ODD_NUMBERS[turn % len(ODD_NUMBERS)]
    whole = "integer" in schema["type"]
    return max(least, min(most, int(odd) if whole else odd))


def _list(schema: dict[str, Any], kind: str, turn: int) -> list[Any]:
    length = {"least": schema.get("minItems", 0), "longest": 64}.get(kind, len(ODD_TEXTS))
    return [value_of(schema["items"], kind, turn + number) for number in range(min(length, schema.get("maxItems", 64)))]


def _object(schema: dict[str, Any], kind: str, turn: int) -> dict[str, Any]:
    named = {key: value_of(one, kind, turn + n) for n, (key, one) in enumerate(schema.get("properties", {}).items())}
    if kind == "least":
        return {key: value for key, value in named.items() if key in schema.get("required", ())}
    if schema.get("additionalProperties") is False:
        return named
    further = schema.get("additionalProperties", True)
    odd = {"type": "string"} if further is True else further
    return named | {text or "empty": value_of(odd, kind, turn + n) for n, text in enumerate(ODD_TEXTS[:-1])}


_MAKERS = {
    "string": _text,
    "integer": _number,
    "number": _number,
    "null": lambda *_: None,
    "boolean": lambda _schema, _kind, turn: bool(turn % 2),
    "array": _list,
    "object": _object,
}


def leaves(value: object) -> Iterator[object]:
    """Every key, and every value that is not a container."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value
