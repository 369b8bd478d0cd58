"""Prometheus metrics: the series, what feeds them, and how they are handed out. Loaded only where metrics are on."""
