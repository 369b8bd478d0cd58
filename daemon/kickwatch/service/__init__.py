"""The daemon: its state machine, sessions, schedule, guard, budget, back-off and evidence.

The top room: only `commands` imports it, and it imports neither `native` nor `report` nor `detect.simulate`.
"""
