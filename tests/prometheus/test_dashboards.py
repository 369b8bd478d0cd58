"""The dashboards are what dashboards.py makes, ask only for series that exist, and leave nothing unnamed."""

import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from dashboard_files import DASHBOARDS, panels_of, queries_of
from kickwatch.outlets.metrics.registry import Metrics
from module_file import load
from monitoring import DEPLOY

pytestmark = pytest.mark.prometheus

CODE = load(DEPLOY / "grafana" / "dashboards.py")


def test_every_dashboard_is_checked_in() -> None:
    assert {path.stem for path in (DEPLOY / "grafana").glob("*.json")} == set(DASHBOARDS) == set(CODE.DASHBOARDS)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_what_the_code_makes(name: str) -> None:
    """After a change of dashboards.py: `make dashboards`."""
    assert Path(DEPLOY / "grafana" / f"{name}.json").read_text() == CODE.text_of(name)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_asks_for_series_that_exist(name: str) -> None:
    families = text_string_to_metric_families(Metrics("1").text().decode())
    shown = {sample.name for family in families for sample in family.samples}
    groups = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"]
    recorded = {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}
    asked = {found for _, query in queries_of(name) for found in re.findall(r"(?:\w+:)?kickwatch_[a-z0-9_:]+", query)}
    assert len(asked) >= 4
    assert asked <= shown | recorded


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_panel_has_a_title_a_description_and_named_queries(name: str) -> None:
    panels = panels_of(name)
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["description"].endswith("."), panel["title"]
        names = [target["refId"] for target in panel["targets"]]
        assert names == sorted(set(names)) != [""]
