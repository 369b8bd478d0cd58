"""What kickwatch sees: IPIs by reason and origin, slab_mutex waits, the positive control.

Imports `model`, `node`, `native`, `process`; never `workload`, whose doings it watches.
"""
