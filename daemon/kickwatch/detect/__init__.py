"""From trial records to evidence to a verdict, and the figures of a record: pure, no clock, no I/O, no Config.

Imports `model` and `errors`. The daemon never imports `detect.simulate`.
"""
