"""KICKWATCH_TEST_SLOWNESS: how much slower this machine is than those the tests were written on; default 1.

The timeouts of tests and of pytest are multiplied by it: a virtual machine without KVM takes about ten times as long.
Limits in seconds that kickwatch promises are not, nor are the laboratory's timeouts, which are meant for such machines.
"""

import os

SLOWNESS = float(os.environ.get("KICKWATCH_TEST_SLOWNESS", "1"))
