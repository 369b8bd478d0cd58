"""The commands of the command line, one file each.

May import every room; only `cli` imports it.
"""
