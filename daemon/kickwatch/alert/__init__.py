"""Who is told, and when: conditions, log records."""
