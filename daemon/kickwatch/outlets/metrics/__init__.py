"""Prometheus series, and how they are served; loaded only where metrics are on.

Imports `configuration`, `detect`, `observe`, `node`; never `service`.
"""
