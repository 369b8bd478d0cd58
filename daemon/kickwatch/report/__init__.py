"""The output of a run, and of a history, for people: tables, the verdict in words, JSON, an HTML page, a bug report.

Imports `attribution`, `detect`, `outlets`; never a room that runs trials, and the daemon never imports it. It reads no
file but its own templates: trials come in as records.
"""
