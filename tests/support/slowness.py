"""How much slower than the machines these tests were written on: KICKWATCH_TEST_SLOWNESS, 1 unless told.

What a test waits for is multiplied by it, and so are pytest's own timeouts: a guest without KVM takes some ten times
as long. What kickwatch itself promises in seconds stays as it is; so do the laboratory's own times, a guest's anyway.
"""

import os

SLOWNESS = float(os.environ.get("KICKWATCH_TEST_SLOWNESS", "1"))
