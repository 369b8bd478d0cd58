"""The configuration: its keys as types, how it is loaded, and the limits derived from it.

Imports `errors`; nothing that acts on the node.
"""
