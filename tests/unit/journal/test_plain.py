"""Anything becomes text and JSON, and comes back as far as JSON can say it."""

import json
import math
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickwatch.journal.plain import as_json, plain, text


class Mute:
    """What cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")


class Trap(dict[str, Any]):
    """Cannot be walked, nor shown."""

    def items(self) -> Any:
        raise RuntimeError("no")

    __repr__ = Mute.__repr__


class Colour(Enum):
    RED = 1


CIRCLE: list[object] = [1]
CIRCLE.append(CIRCLE)
DEEP: list[object] = []
for _ in range(100_000):
    DEEP = [DEEP]


PAIRS: list[tuple[object, object]] = [
    (b"\x00\xff", "b'\\x00\\xff'"),
    (bytearray(b"a"), "bytearray(b'a')"),
    (math.nan, "nan"),
    (-math.inf, "-inf"),
    ("lone \ud800", "lone \ud800"),
    (CIRCLE, [1, "[...]"]),
    ({(1, 2): 3}, {"(1, 2)": 3}),
    ({1: "a", "1": "b"}, {"1": "a"}),
    ({None: 1, Path("/x"): Path("/y")}, {"None": 1, "/x": "/y"}),
    ((1, (2,)), [1, [2]]),
    (Colour.RED, "Colour.RED"),
    (10**5000, hex(10**5000)),
    ({"a": [math.nan, 1.5]}, {"a": ["nan", 1.5]}),
    ("x" * 2**20, "x" * 2**20),
]


@pytest.mark.parametrize(("value", "expected"), PAIRS, ids=range(len(PAIRS)))
def test_values_that_json_has_no_form_for_become_text(value: object, expected: object) -> None:
    found = json.loads(as_json(value), parse_constant=pytest.fail)
    if value == {1: "a", "1": "b"}:
        assert plain(value) == {"1": "a", "1_": "b"}
    else:
        assert found == expected


def test_one_bad_value_costs_no_other() -> None:
    found = json.loads(as_json({"good": [1, {"a": None}], "bad": Mute(), "worse": Trap(a=1), "set": {7}}))
    assert found.pop("bad").startswith("<")
    assert found.pop("worse").startswith("<")
    assert found == {"good": [1, {"a": None}], "set": [7]}


def test_what_is_too_deep_is_cut() -> None:
    assert json.loads(as_json({"deep": DEEP, "after": 1}))["after"] == 1
    assert text(Mute()).startswith("<")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_what_json_can_say_comes_back(value: object) -> None:
    assert json.loads(as_json(value)) == value
    assert plain(value) == value
