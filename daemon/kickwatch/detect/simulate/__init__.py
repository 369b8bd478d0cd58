"""Operating characteristics of the detectors, measured with the detectors themselves.

Imports `detect`, `model` and `errors`. Only the command `simulate` imports it; the daemon never loads it.
"""

from kickwatch.detect.simulate.report import to_json
from kickwatch.detect.simulate.study import SimulationResult, run_simulation

__all__ = ["SimulationResult", "run_simulation", "to_json"]
