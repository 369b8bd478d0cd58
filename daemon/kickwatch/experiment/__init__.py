"""Experiments: the setup, the trial and its ports, runs of trials, passive mode, the 2017 test, the checks of `doctor`.

Imports `workload`, `observe`, `node`, `detect`, `journal`; never `service` or `outlets`.
"""
