"""Reads Prometheus' text format."""

from prometheus_client.parser import text_string_to_metric_families


def value(text: bytes, name: str, **labels: str) -> float:
    """The one sample of this name with exactly these labels."""
    families = text_string_to_metric_families(text.decode())
    (found,) = [
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    return found
