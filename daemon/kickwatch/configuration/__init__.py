"""The configuration: its keys as types, how it is loaded, and what follows from it alone (limits).

Imports `errors`; nothing that acts on the node.
"""
