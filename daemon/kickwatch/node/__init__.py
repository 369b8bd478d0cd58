"""The node and what it allows: kernel, CPUs, cgroups, pressure, privileges, the lock.

Imports `errors` and `model`; never `observe` or `workload`, which are built on it.
"""
