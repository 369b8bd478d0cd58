"""The values of labels: closed sets, and `other` for everything else.

So no name from a kernel, an engine or a configuration makes a new series, and no label can hold a container, a trial or
a stack. The one exception is the kernel release in `kickwatch_kernel_info`, which has one value at a time.
"""

from collections.abc import Collection
from enum import StrEnum

from kickwatch.attribution.container_paths import ENGINES as CONTAINER_ENGINES
from kickwatch.attribution.reasons import REASONS
from kickwatch.detect.streams import StreamName
from kickwatch.detect.verdict import VerdictReason
from kickwatch.model import Condition, Disturbance, Verdict, WindowKind
from kickwatch.node.pressure import Cause
from kickwatch.observe.interrupts import IpiKind
from kickwatch.outlets.events import Off

OTHER = "other"


class Observer(StrEnum):
    """What observes the kernel: the two probes, and the counters of /proc/interrupts."""

    REQUESTS = "csd"
    CONTENTION = "contention"
    INTERRUPTS = "interrupts"


class ContainerOutcome(StrEnum):
    """How the life of a container of ours ended."""

    CREATED = "created"
    FAILED = "failed"


class CpuClass(StrEnum):
    """The CPUs of a node in two classes: those that are isolated, and all others."""

    ISOLATED = "isolated"
    OTHER = "other"


class PairOutcome(StrEnum):
    """Whether the containers of a pair ended within their half."""

    IN_TIME = "in_time"
    OUTLASTED = "outlasted"


class FailingPart(StrEnum):
    """What can fail for a while and is tried again: the engine, and writing files."""

    ENGINE = "engine"
    HISTORY = "history"
    BUDGET = "budget"
    TEXTFILE = "textfile"


CONDITIONS = tuple(condition.value for condition in Condition)
STREAMS = tuple(name.value for name in StreamName)
VOID = "void"
VERDICTS = (*(verdict.value for verdict in Verdict), VOID)
CONVICTIONS = frozenset({VerdictReason.CREATION_PATH, VerdictReason.CANARY, VerdictReason.CANARY_INTERRUPTS})
UNKNOWN_REASONS = (*(reason.value for reason in VerdictReason if reason not in CONVICTIONS), OTHER)
TROUBLES = tuple(trouble.value for trouble in FailingPart)
KINDS = tuple(kind.value for kind in IpiKind)
CONTAINERS = "containers"  # the observer that only passive mode has
OBSERVERS = tuple(observer.value for observer in Observer)
PROBES = (Observer.REQUESTS.value, Observer.CONTENTION.value)
CPU_CLASSES = tuple(cpus.value for cpus in CpuClass)
WINDOWS = (WindowKind.CHURN.value, WindowKind.QUIET.value)
PAIR_OUTCOMES = tuple(outcome.value for outcome in PairOutcome)
OUTCOMES = tuple(outcome.value for outcome in ContainerOutcome)
OFF = tuple(off.value for off in Off)
STEPS = ("create", "start", "wait", "remove")
SANDBOX = "sandbox"  # the step before them, of engines with pods
ENGINES = tuple(dict.fromkeys((*CONTAINER_ENGINES, OTHER)))
REQUEST_REASONS = (*(reason.name for reason in REASONS), OTHER)
PAUSE_REASONS = (*(cause.value for cause in Cause), OTHER)
VOID_REASONS = (*(disturbance.value for disturbance in Disturbance), VerdictReason.KMEM_ACCOUNTING_OFF.value)


def known(word: str, words: Collection[str]) -> str:
    """`word` if it is in `words`, else `other`."""
    return word if word in words else OTHER
