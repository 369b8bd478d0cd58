"""The figures of a fleet: the rules' threshold and proof, and a page before single nodes alarm."""

# ruff: noqa: S311 - random numbers of a study, no secrets

import re
from itertools import islice
from math import isfinite
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner

from kickwatch.detect.simulate.command import simulate
from kickwatch.detect.simulate.fleet import (
    PAGE_AT,
    PAGE_STREAMS,
    SERIES_AT_MOST,
    Rollout,
    delay,
    false_pages,
    harmonic,
    load,
    pooled_evidence,
)

ROOT = Path(__file__).parents[3]
SPARSE = Rollout(nodes=40, containers=1, period_s=3600.0, broadcasts_per_container=0.25)


def rule(name: str) -> str:
    """The text of a rule, up to the next one. Without a YAML parser, which not every user land of these tests has."""
    text = (ROOT / "deploy/prometheus/rules.yml").read_text()
    (found,) = re.findall(
        rf"^      - (?:alert|record): {re.escape(name)}\n(.*?)(?=^      - |\Z)", text, re.MULTILINE | re.DOTALL
    )
    return str(found)


def test_it_computes_what_the_rules_say() -> None:
    assert re.findall(r"mean >= (\S+)", rule("KickwatchBadRelease")) == ["1e6"]
    assert PAGE_AT == 1e6
    (streams,) = re.findall(r'stream=~"([^"]*)"', rule("release:kickwatch_e_process:mean"))
    assert streams == "|".join(name.value for name in PAGE_STREAMS)


def test_sparse_nodes_are_a_page_days_before_half_of_them_alarm() -> None:
    found = delay(SPARSE, 5, 7)
    assert found.hours(found.page_p95) < found.hours(found.node_median) - 36.0
    assert isfinite(found.node_median)


def test_equal_seeds_give_equal_figures_and_others_do_not() -> None:
    rollout = Rollout(3, 2, 60.0, 0.3)
    assert delay(rollout, 4, 1) == delay(rollout, 4, 1) != delay(rollout, 4, 2)


def test_healthy_nodes_at_the_allowance_keep_a_mean_of_at_most_one() -> None:
    """The mean of e-values under the null: 3000 samples of three trials."""
    evidence, _ = next(islice(pooled_evidence(Rollout(3000, 2, 60.0, 0.05), Random(3)), 2, None))
    assert 0.3 < evidence < 1.2


def test_false_pages_follow_from_the_proof_in_the_rules() -> None:
    assert harmonic(10_000) == pytest.approx(9.79, abs=0.005)
    assert harmonic(1_000_000) == pytest.approx(14.39, abs=0.005)
    found = false_pages(5_000, 12)  # 10,000 draws
    assert found.pages_of_releases == pytest.approx(24 * 9.79e-6, rel=1e-3)
    assert found.pages_of_the_fleet == pytest.approx(4.058 * 14 * 9.79e-6, rel=1e-3)
    assert found.alarms_of_nodes == 5.0


def test_the_load_of_ten_thousand_nodes() -> None:
    found = load(10_000, 30)
    assert found.series == 10_000 * (SERIES_AT_MOST + 5)
    assert found.samples_per_s == pytest.approx(108_333, abs=1)
    assert found.gigabytes_a_day == pytest.approx(18.72, abs=0.01)


def test_a_plot_of_a_fleet_is_refused() -> None:
    result = CliRunner().invoke(simulate, ["--fleet", "--plot", "x.svg"])
    assert (result.exit_code, "leave it out" in result.output) == (2, True)


@pytest.mark.long
def test_the_scale_page_has_the_figures_of_the_command() -> None:
    """`kickwatch simulate --fleet --quick`: to be inserted again when the detectors or the rules change."""
    result = CliRunner().invoke(simulate, ["--fleet", "--quick"])
    assert result.exit_code == 0
    tables = result.output.strip().split("\n\n")
    assert len(tables) == 3
    page = (ROOT / "docs/explanation/scale.md").read_text()
    assert [table for table in tables if f"```text\n{table}\n```" not in page] == []
