"""Makes reference pages and man pages from the code, so that they cannot say anything else than the program does.

`generate.py pages` writes Markdown for Sphinx, `generate.py man` writes roff. Both read what the program reads: click's
commands, the types of the configuration and its example, the table of reasons, the schema of events, the metrics.
May import everything in kickwatch, and no Sphinx: man pages are built where only the package is installed.
"""
