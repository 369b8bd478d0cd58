"""What this node is and lets us do: kernel, CPUs, cgroups, pressure, privileges, the lock.

Imports `errors` and `model`; never `observe` or `workload`, which stand on it.
"""
