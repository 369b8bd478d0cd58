"""Anything as text and as JSON: a log that fails for a strange value would hide what it was to report.

No function here raises, whatever the value is: bytes, NaN, a list within itself, an object whose `__repr__` fails.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

_DEEPEST = 50  # values within values; beyond it the rest is shown as text


def as_json(value: object) -> str:
    """Valid JSON, ASCII only, on one line. What JSON has no form for becomes a string; the rest stays as it is."""
    try:
        return json.dumps(value, default=text, allow_nan=False)
    except Exception:  # noqa: BLE001 -- keys that are no text, NaN, a value within itself, a __str__ that fails
        return json.dumps(plain(value), default=text, allow_nan=False)


def text(value: object) -> str:
    """A value as `str()` has it; as `repr()`, or by its type alone, where that fails."""
    ways = (repr, object.__repr__) if isinstance(value, bytes | bytearray) else (str, repr, object.__repr__)
    for way in ways:
        try:
            return way(value)
        except Exception:  # noqa: BLE001, S112 -- the next way is the remedy
            continue
    return f"<{type(value).__name__}>"


def plain(value: object, above: tuple[int, ...] = ()) -> Any:
    """The same value of nothing but dicts, lists, strings, finite numbers, booleans and null."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, float | int):
        return _number(value)
    if not isinstance(value, Mapping | list | tuple | set | frozenset):
        return text(value)
    if id(value) in above or len(above) >= _DEEPEST:
        return _shape(value)
    try:
        return _container(value, (*above, id(value)))
    except Exception:  # noqa: BLE001 -- a container that cannot be walked
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
    """JSON has no NaN. Python refuses to write more than 4300 decimal digits; a hexadecimal number may have any."""
    if isinstance(value, float):
        return value if math.isfinite(value) else text(value)
    try:
        int.__repr__(value)
    except ValueError:
        return hex(value)
    return value


def _shape(value: object) -> str:
    """What stands for a container within itself, or too deep: as Python's own `repr` does."""
    return "{...}" if isinstance(value, Mapping) else "[...]"
