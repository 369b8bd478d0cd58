"""`kickwatch simulate`: operating characteristics of the detectors."""

from kickwatch.detect.simulate.command import simulate

__all__ = ["simulate"]
