"""The output of a run for people: its tables, its verdict in words, and its JSON.

Imports `detect`, `observe.reasons`, `outlets`; never a room that runs trials.
"""
