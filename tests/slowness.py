"""How much slower than the machines these tests were written on: KICKWATCH_TEST_SLOWNESS, 1 unless told.

Every time that a test waits for something is multiplied by it, pytest's own timeouts included: a guest without KVM
takes some ten times as long. What kickwatch itself promises in seconds stays as it is.
"""

import os

SLOWNESS = float(os.environ.get("KICKWATCH_TEST_SLOWNESS", "1"))
