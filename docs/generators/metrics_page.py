"""Every metric with its type, its labels and their values, from a registry as the daemon makes it."""

from prometheus_client.metrics_core import Metric

from generators.command_pages import cell
from kickwatch.outlets.metrics.registry import Metrics

_INTRODUCTION = """# Metrics

Served for Prometheus on 127.0.0.1:9893 (`[metrics]` in the [configuration](configuration.md)), or written for
node_exporter's textfile collector. Every series exists from the start. [Operations](../operations.md#log-and-metrics)
shows which of them mean that somebody has to do something.

| metric | type | labels | meaning |
|---|---|---|---|
"""
_SHOWN = 16


def page() -> str:
    """The page."""
    families = sorted(Metrics("0").registry.collect(), key=lambda family: family.name)
    return _INTRODUCTION + "\n".join(_row(family) for family in families) + "\n"


def _row(family: Metric) -> str:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    labels: dict[str, dict[str, None]] = {}
    for sample in family.samples:
        for label, value in sample.labels.items():
            if label not in {"le", "version"}:
                labels.setdefault(label, {})[value] = None
    shown = "; ".join(f"`{label}`: {_values(list(values))}" for label, values in labels.items())
    return f"| `{name}` | {family.type} | {cell(shown)} | {cell(family.documentation)} |"


def _values(values: list[str]) -> str:
    """The values of a label; of a long list the first few and how many there are."""
    shown = ", ".join(f"`{value}`" for value in values[: _SHOWN if len(values) <= _SHOWN else 3])
    return shown if len(values) <= _SHOWN else f"{shown} ... ({len(values)} values)"
