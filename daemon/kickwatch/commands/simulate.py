"""`kickwatch simulate`: the detectors' false-alarm rates and detection delays."""

from kickwatch.detect.simulate.command import simulate

__all__ = ["simulate"]
