"""What kickwatch does to the node: real containers, bare memory cgroups, and their removal.

Imports `node`, `native`, `configuration`, `journal`; never `observe` or `detect`.
"""
