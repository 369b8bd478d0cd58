"""Every trial record and the evidence after it: stored in SQLite, and read back for a replay.

Imports `detect` for the types it stores; never a room that runs or reports trials.
"""
