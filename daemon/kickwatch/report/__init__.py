"""What people read: the tables, the sentence and the JSON of a run.

Imports `detect`, `observe.reasons`, `outlets`; never what runs trials.
"""
