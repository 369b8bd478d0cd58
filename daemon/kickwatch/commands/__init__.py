"""The commands of the command line, one file each.

May import every room; nothing but `cli` imports it.
"""
