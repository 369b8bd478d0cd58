"""Log records: every event with its MESSAGE_ID, how a record is rendered, and where it is written.

Imports `process` alone: most other rooms log, so it stands below them.
"""

from kickwatch.journal import structlog_alone

structlog_alone.load()
