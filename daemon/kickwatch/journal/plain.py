"""Any value as text and as JSON: a log that fails on a strange value would hide the problem it should report.

No function here raises, whatever the value: bytes, NaN, a list that contains itself, an object whose `__repr__` fails.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

_MAX_DEPTH = 50  # of nested values; deeper ones become text


def as_json(value: object) -> str:
    """Valid JSON, ASCII only, on one line. Values that JSON cannot express become strings."""
    try:
        return json.dumps(value, default=text, allow_nan=False)
    except Exception:  # noqa: BLE001 -- keys that are not text, NaN, a value that contains itself, a __str__ that fails
        return json.dumps(plain(value), default=text, allow_nan=False)


def text(value: object) -> str:
    """`str()` of a value; if that fails `repr()`, or its type alone."""
    ways = (repr, object.__repr__) if isinstance(value, bytes | bytearray) else (str, repr, object.__repr__)
    for way in ways:
        try:
            return way(value)
        except Exception:  # noqa: BLE001, S112 -- the next way may work
            continue
    return f"<{type(value).__name__}>"


def plain(value: object, above: tuple[int, ...] = ()) -> Any:
    """The same value, made of dicts, lists, strings, finite numbers, booleans and None only."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, float | int):
        return _number(value)
    if not isinstance(value, Mapping | list | tuple | set | frozenset):
        return text(value)
    if id(value) in above or len(above) >= _MAX_DEPTH:
        return _shape(value)
    try:
        return _container(value, (*above, id(value)))
    except Exception:  # noqa: BLE001 -- a container that cannot be iterated
        return text(value)


def _container(value: Any, above: tuple[int, ...]) -> Any:
    if not isinstance(value, Mapping):
        return [plain(item, above) for item in value]
    found: dict[str, Any] = {}
    for key, item in value.items():
        name = key if isinstance(key, str) else text(key)
        while name in found:  # 1 and "1"
            name += "_"
        found[name] = plain(item, above)
    return found


def _number(value: Any) -> Any:
    """JSON has no NaN. Python writes at most 4300 decimal digits, but any number of hexadecimal ones."""
    if isinstance(value, float):
        return value if math.isfinite(value) else text(value)
    try:
        int.__repr__(value)
    except ValueError:
        return hex(value)
    return value


def _shape(value: object) -> str:
    """The text for a container that contains itself or is nested too deeply, as in Python's `repr`."""
    return "{...}" if isinstance(value, Mapping) else "[...]"
