"""A trace: from single events to one timeline that Perfetto and chrome://tracing open. Pure: no clock, no I/O.

Imports `attribution`, `errors`, `model`, `observe` (its events); never `experiment`, which records, nor `workload`.
"""
