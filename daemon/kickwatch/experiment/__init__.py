"""One experiment: the rig set up for it, the trial, a run of trials, the test of 2017, what doctor asks.

Imports `workload`, `observe`, `node`, `detect`, `journal`; never `service` or `outlets`.
"""
