"""`kickwatch gate` on the real engine: a healthy kernel passes, and a run without a result does not."""

import json
import time
from pathlib import Path

import pytest

from command import kickwatch
from leftovers import leftovers
from node_daemon import CHURN_FIRST

SHORT = ["--set", "trial.window_s=0.5", "--set", f"trial.seed={CHURN_FIRST}", "--set", "trial.settle_s=0"]
pytestmark = [pytest.mark.docker, pytest.mark.kernel, pytest.mark.timeout(200)]


@pytest.mark.long
def test_a_healthy_kernel_passes_with_as_many_containers_as_the_error_rate_needs(tmp_path: Path) -> None:
    outcome = kickwatch("gate", "--error-rate", "1e-3", "--json", str(tmp_path / "gate.json"), *SHORT)
    assert outcome.status == 0, outcome.out + outcome.err
    found = json.loads((tmp_path / "gate.json").read_text())
    assert {check["outcome"] for check in found["checks"]} == {"passed"}
    assert (found["evidence"]["containers"], found["evidence"]["error_rate"]) == (18, 1e-3)
    assert f"verdict: quiet, {len(found['evidence']['trials'])} trial" in outcome.out


def test_a_run_that_its_time_limit_cuts_off_is_unknown_and_leaves_nothing() -> None:
    before = leftovers()
    begun_s = time.monotonic()
    outcome = kickwatch("gate", "--error-rate", "1e-12", "--time-limit", "10", "--ktap", "-", *SHORT)
    assert outcome.status == 4, outcome.out + outcome.err
    assert "not ok 2 creation_path" in outcome.out
    assert "ok 1 measurement" not in outcome.out.splitlines() or "too few to decide" in outcome.out
    assert time.monotonic() - begun_s < 60
    assert leftovers() == before
