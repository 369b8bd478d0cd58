"""One word, one meaning: names that went do not come back."""

import re
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "daemon" / "kickwatch"
GONE = {
    "Purse": "BudgetLedger",
    "Patience": "EngineBackoff",
    "Eyes": "ArmedObservers",
    "CsdSample": "RequestSample",
    "told_drained": "drain_reported",
    "from kickwatch.process.cancellation import finish": "run_shielded",
    "from kickwatch.process.cancellation import within": "timeout",
    "from kickwatch.process.cancellation import apart": "detached_group",
    "Event.NOTE": "an event for each condition",
    "UNEXPLAINED": "ELSEWHERE",
    "Ending": "Shutdown",
    "SERIAL_BY_FORCE": "FORCED_SERIAL",
    "CONDITION_OF": "STREAMS",
    "SWAPPED": "STREAMS",
    "SilenceTest": "QuietTest",
    "flush_silence": "flush_zeros",
    "batch_heard": "zero_is_certain",
    "Telemetry": "PrometheusOutlet, SummaryOutlet",
    "Board": "StatusFileOutlet",
}
FILES_GONE = {"whole.py", "shielded.py", "once.py", "recorded.py", "words.py", "probehelper.c"}


def test_names_that_went_do_not_come_back() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for name, instead in GONE.items():
            assert not re.search(rf"\b{re.escape(name)}\b", text), f"{path} says {name}: {instead}"


def test_files_that_went_do_not_come_back() -> None:
    found = {path.name for path in PACKAGE.rglob("*")} & FILES_GONE
    assert not found


def test_the_probes_use_the_kernels_words() -> None:
    text = (PACKAGE / "observe" / "probes" / "calls.bpf.c").read_text(encoding="utf-8")
    for name in ("ones(", "one(ctx", "chosen(", "here("):
        assert f" {name}" not in text
