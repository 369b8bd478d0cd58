"""Makes reference pages and man pages from the code, so that they cannot say anything else than the program does.

`pages` writes Markdown for Sphinx, `man` writes roff. Both read the same source as `kickwatch --help`: click's commands,
the configuration's types, the example configuration, the table of reasons, the schema of events, the metrics.
May import everything in kickwatch, and no Sphinx: man pages are built where only the package is installed.
"""
