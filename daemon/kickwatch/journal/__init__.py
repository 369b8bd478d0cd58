"""Log records: every event with its MESSAGE_ID, how a record is rendered, and the sinks it goes to.

Imports nothing of kickwatch but itself: every room above it logs.
"""
