"""The output of a run for people: its tables, its verdict in words, and its JSON.

Imports `attribution`, `detect`, `outlets`; never a room that runs trials.
"""
