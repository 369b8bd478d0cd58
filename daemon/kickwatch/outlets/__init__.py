"""What is told of a trial or a change: the fields of alerts, the hourly summary, the metrics.

Imports `attribution`, `detect` and `journal`; never `service` or `experiment`, which call it.
"""
