"""What a person sees of a record: the sentence first, words wrapped at the terminal's width, the rest whole."""

import pytest

from kickwatch.journal.console import render

BEGIN = {"timestamp": "2026-01-01T00:00:00Z", "level": "error", "event": "kickwatch.broadcast_detected"}
HEADLINE = "3 x do_sync_core per container, sent by the task that creates the container"
STACK = ["smp_text_poke_batch_finish", "__static_key_slow_inc_cpuslocked", "mem_cgroup_write"]
CONFIRM = "bpftrace -e 'tracepoint:csd:csd_queue_cpu { @[kstack(12)] = count(); } interval:s:60 { exit(); }'"


def test_an_alert_on_a_narrow_terminal() -> None:
    fields = {"headline": HEADLINE, "containers": 12, "holders": [], "confirm": CONFIRM, "stack": STACK, "share": 0.5}
    assert render(BEGIN | fields, 80, colours=False).splitlines() == [
        "2026-01-01T00:00:00Z [error   ] kickwatch.broadcast_detected:",
        "    3 x do_sync_core per container, sent by the task that creates the container",
        "    containers=12 holders=[] share=0.5",
        f"    confirm: {CONFIRM}",
        "    stack:",
        *(f"        {frame}" for frame in STACK),
    ]


def test_the_same_on_a_wide_one() -> None:
    fields = {"headline": HEADLINE, "explanation": "8 of 8", "containers": 12}
    assert render(BEGIN | fields, 200, colours=False).splitlines() == [
        f"2026-01-01T00:00:00Z [error   ] kickwatch.broadcast_detected: {HEADLINE}",
        "    explanation: 8 of 8",
        "    containers=12",
    ]


def test_a_long_sentence_is_wrapped_between_words() -> None:
    lines = render(BEGIN | {"what": "word " * 100, "remedy": "thing " * 50}, 120, colours=False).splitlines()
    assert all(len(line) <= 120 for line in lines)
    assert len(lines[0]) > 110
    assert " ".join(" ".join(lines).split()).count("word") == 100
    assert any(line.startswith("    remedy: thing") for line in lines)


def test_a_few_figures_stand_on_the_same_line() -> None:
    record = {"timestamp": "T", "level": "info", "event": "kickwatch.resumed", "paused_s": 12.5, "why": None}
    assert render(record, 80, colours=False) == "T [info    ] kickwatch.resumed: paused_s=12.5 why=null"
    del record["paused_s"], record["why"]
    assert render(record, 80, colours=False) == "T [info    ] kickwatch.resumed"


def test_objects_and_texts_of_many_lines_are_indented() -> None:
    bill = [{"reason": "a", "stack": ["f" * 30, "g" * 30]}, {}, {"reason": "b" * 60}]
    record = {
        "event": "e",
        "bill": bill,
        "verifier": "first\n  second " + "x" * 60,
        "deep": {"a": [["b" * 60]], "c": 1},
    }
    assert render(record, 80, colours=False).splitlines() == [
        " [        ] e",
        "    bill:",
        "        - reason=a",
        "          stack:",
        f"              {'f' * 30}",
        f"              {'g' * 30}",
        "        - {}",
        f"        - reason: {'b' * 60}",
        "    verifier:",
        "        first",
        f"          second {'x' * 60}",
        "    deep:",
        "        c=1",
        "        a:",
        "            -",
        f"                {'b' * 60}",
    ]


@pytest.mark.parametrize("key", ["stack", "exc_info", "exception", "stack_info"])
@pytest.mark.parametrize("value", [["a", "b"], True, "text", 1, None, ("a",), {"a": 1}])
def test_no_key_means_anything_to_the_renderer(key: str, value: object) -> None:
    (line,) = render({"event": "e", key: value}, 80, colours=False).splitlines()
    assert f"{key}=" in line


def test_colours_are_on_the_level_and_the_name_alone() -> None:
    first, second = render(BEGIN | {"what": "x" * 20, "n": 1}, 200, colours=True).splitlines()
    assert first.startswith(
        "2026-01-01T00:00:00Z [\x1b[31merror   \x1b[0m] \x1b[1mkickwatch.broadcast_detected\x1b[0m: xxx"
    )
    assert second == "    n=1"


def test_nothing_that_is_not_printable_reaches_the_terminal() -> None:
    record = {"event": "e\x1b[2J", "what": "a\tb\r\x1b]0;title\x07", "na\nme": "\u202e", "list": ["\x9b" * 60]}
    text = render(record, 80, colours=False)
    assert all(line.isprintable() for line in text.splitlines())
    assert "\\x1b]0;title\\x07" in text
    assert '"na\\nme"="\\u202e"' in text


@pytest.mark.parametrize("width", [-1, 0, 1, 39])
def test_a_terminal_without_a_width_gets_lines_all_the_same(width: int) -> None:
    assert "do_sync_core" in render(BEGIN | {"headline": HEADLINE}, width, colours=False)
