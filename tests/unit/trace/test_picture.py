"""The documentation's picture of a trace: drawn from the file alone, small, and well-formed."""

from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

import module_file
from kickwatch.observe.trace_events import Kind
from kickwatch.trace.summary import make_trace
from recordings import SYNC, WAKEUP, call, event, ran, recording, sent

DOCS = Path(__file__).parents[3] / "docs"
SVG = "{http://www.w3.org/2000/svg}"
MOST_BYTES = 200_000


@pytest.fixture(scope="module")
def draw_trace() -> ModuleType:
    return module_file.load(DOCS / "draw_trace.py")


def test_a_broadcast_is_drawn_with_an_arrow_to_every_target(draw_trace: ModuleType, tmp_path: Path) -> None:
    wakeup = sent(2_300, WAKEUP, 1, csd=5)
    events = [*call(2_500, SYNC, [1, 2, 3]), wakeup, *ran(wakeup, 2_400, 2_450), event(Kind.EXEC, 2_200)]
    (tmp_path / "trace.json").write_bytes(make_trace(recording(events, calls=1, requests=4)).content)
    picture = ElementTree.fromstring(draw_trace.draw(draw_trace.Trace.read(tmp_path / "trace.json")))  # noqa: S314 -- our own
    texts = [text.text or "" for text in picture.iter(f"{SVG}text")]
    assert "close view: do_sync_core call, origin memcg, asked in mem_cgroup_write" in texts
    assert {f"CPU {cpu} runs" for cpu in (1, 2, 3)} | {"CPU 0 sends", "engine"} <= set(texts)
    assert len(list(picture.iter(f"{SVG}line"))) >= 3
    red = [box for box in picture.iter(f"{SVG}rect") if box.get("fill") == draw_trace.COLOURS["broadcast"]]
    assert len(red) >= 2 * 4  # in both views: the call and its three targets


def test_the_kept_picture_is_small_and_whole() -> None:
    content = (DOCS / "images/trace.svg").read_bytes()
    assert len(content) < MOST_BYTES
    picture = ElementTree.fromstring(content)  # noqa: S314 -- our own
    assert any("do_sync_core" in (text.text or "") for text in picture.iter(f"{SVG}text"))
