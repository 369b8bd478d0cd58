"""Everything that shows what the daemon does: one Protocol, frozen events, and the outlets that take them.

Imports `attribution`, `detect`, `journal` and below; never `service` or `experiment`, which report to it.
"""
