"""What kickwatch publishes about trials and changes: the fields of alerts, the hourly summary, the metrics.

Imports `detect` and `journal`; never `service` or `experiment`, which call it.
"""
