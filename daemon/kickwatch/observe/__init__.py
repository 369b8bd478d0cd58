"""What kickwatch observes in the kernel: IPIs by function and stack, waits for slab_mutex, the positive control.

Imports `attribution`, `errors`, `model`, `native`, `node`, `process`; never `workload`, which causes what is observed.
"""
