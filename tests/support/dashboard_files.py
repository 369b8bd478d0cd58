"""The dashboards of deploy/grafana as they are checked in: their panels and queries."""

import json
from typing import Any

from monitoring import DEPLOY

DASHBOARDS = ("fleet", "node", "bill", "isolated")
CHOICES = {"$__rate_interval": "1m", "$release": ".+", "$instance": ".+"}


def panels_of(name: str) -> list[dict[str, Any]]:
    """The panels of a dashboard."""
    panels: list[dict[str, Any]] = json.loads((DEPLOY / "grafana" / f"{name}.json").read_text())["panels"]
    return panels


def queries_of(name: str) -> list[tuple[str, str]]:
    """(title, query) of every target of every panel, with all nodes and all releases chosen."""
    found = [(panel["title"], target["expr"]) for panel in panels_of(name) for target in panel["targets"]]
    return [(title, _chosen(query)) for title, query in found]


def _chosen(query: str) -> str:
    for variable, value in CHOICES.items():
        query = query.replace(variable, value)
    return query
