"""What kickwatch does to the node: it creates and removes real containers and bare memory cgroups.

Imports `node`, `native`, `process`, `configuration`, `journal`; never `observe` or `detect`.
"""
