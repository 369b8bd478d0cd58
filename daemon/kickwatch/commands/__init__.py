"""The commands of the command line, one file each.

May import every room; only `cli` imports it.
"""

from kickwatch.process import without_tls

without_tls.load_asyncio()
