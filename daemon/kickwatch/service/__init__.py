"""The daemon: its state machine, schedule, guard, budget, back-off, evidence, status.

The top room: only `commands` imports it.
"""
