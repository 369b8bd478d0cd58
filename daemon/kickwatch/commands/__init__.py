"""The commands of the command line, one file each.

May import every room; only `cli` imports it.
"""

from kickwatch.process import without_openssl

without_openssl.load_asyncio()
without_openssl.load_hashlib()
