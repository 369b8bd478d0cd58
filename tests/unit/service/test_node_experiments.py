"""This node's experiments: the probe of others' containers is followed in passive mode, and in trials it is not."""

from types import SimpleNamespace
from typing import Any

from builders import TLB, window
from fake_others import ObservedOthers
from kickwatch.configuration.types import Config
from kickwatch.process.signals import Shutdown
from kickwatch.service.node_experiments import NodeExperiments
from kickwatch.workload.names import OWN_CGROUPS


async def test_trials_end_the_count_of_others_containers() -> None:
    observed = ObservedOthers(window("passive", TLB))
    armed: Any = SimpleNamespace(observatory=observed, follow=lambda _: None)
    experiments = NodeExperiments(armed, lambda: None, Shutdown())
    await observed.arm_passive(OWN_CGROUPS)
    experiments.passive(Config(), lambda _: None)
    assert observed.probe.followed
    experiments.open_rig(Config(), None)
    assert not observed.probe.followed
