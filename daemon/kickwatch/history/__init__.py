"""Every trial record and the evidence after it, kept in a SQLite store, and read again for a replay.

Imports `detect` for the types it keeps; never whoever runs or reports trials.
"""
