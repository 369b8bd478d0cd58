"""The Prometheus series, and how they are served. Loaded only if metrics are on.

Imports `configuration`, `detect`, `observe`, `node`, `process`; never `service`.
"""
