"""The configuration: every key with its type, range and default. `configure` makes one of a file and overrides.

Keys are named `section.key` everywhere a person sees them; deploy/kickwatch.toml explains each.
"""

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta


class EngineKind(StrEnum):
    """The container engines that can be driven; `auto` is Docker where it answers, else runc or crun without one."""

    AUTO = "auto"
    DOCKER = "docker"
    OCI = "oci"


class Network(StrEnum):
    """The network of the containers; each is a stratum of its own, since bridges cost IPIs."""

    NONE = "none"
    BRIDGE = "bridge"


class LogFormat(StrEnum):
    """`auto` is `console` on a terminal, the native protocol where the journal reads, and `json` elsewhere."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


class Preset(StrEnum):
    """How much of a node kickwatch may take: `sentinel` lives beside other people's work, `stress` owns the machine."""

    SENTINEL = "sentinel"
    STRESS = "stress"


class LogLevel(StrEnum):
    """The least severe record that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


AbsolutePath = Annotated[str, Meta(pattern="^/", description="an absolute path")]
OptionalPath = Annotated[str, Meta(pattern="^(/.*)?$", description="an absolute path, or an empty string")]
Address = Annotated[
    str, Meta(pattern=r"^([0-9.]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}$", description="an address and a port, 127.0.0.1:9893")
]
LimitBytes = Annotated[int, Meta(ge=0, le=2**50)]
Share = Annotated[float, Meta(ge=0, le=1)]
Percent = Annotated[float, Meta(ge=0, le=100)]


class EngineConfig(msgspec.Struct, frozen=True):
    """Which container engine, where it is, and how long one call to it may take. `runtime` is for `oci` alone."""

    kind: EngineKind = EngineKind.AUTO
    socket: AbsolutePath = "/var/run/docker.sock"
    runtime: str = ""
    timeout_s: Annotated[float, Meta(ge=0.1, le=600)] = 30.0


class WorkloadConfig(msgspec.Struct, frozen=True):
    """The containers of a churn window. `image` empty is kickwatch's own; `rate_hz` 0 is as fast as the engine.

    Not `enabled`, kickwatch is passive: it starts nothing, and bills the containers that others start.
    """

    enabled: bool = True
    image: str = ""
    command: tuple[str, ...] = ()
    containers_per_trial: Annotated[int, Meta(ge=1, le=10_000)] = 23
    concurrency: Annotated[int, Meta(ge=1, le=64)] = 1
    rate_hz: Annotated[float, Meta(ge=0, le=100)] = 0.0
    network: Network = Network.NONE
    hold_s: Annotated[float, Meta(ge=0, le=3600)] = 0.0
    kmem_limit_bytes: LimitBytes = 0
    kmem_tcp_limit_bytes: LimitBytes = 0


class TrialConfig(msgspec.Struct, frozen=True):
    """One experiment. `seed` 0 is drawn anew for each; 0 memcgs: no canary.

    `interval_s` is the pause between two, `jitter` the share of it that chance adds, so that no fleet moves in step.
    """

    window_s: Annotated[float, Meta(ge=0.1, le=3600)] = 5.0
    settle_s: Annotated[float, Meta(ge=0, le=600)] = 40.0
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    interval_s: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    jitter: Share = 0.2
    canary_memcgs: Annotated[int, Meta(ge=0, le=10_000)] = 100
    control_period_s: Annotated[float, Meta(ge=1, le=604_800)] = 3600.0


class BudgetConfig(msgspec.Struct, frozen=True):
    """What the daemon may cost. A key that is 0 takes the preset's value; `daemon/kickwatch/budget.py` has the presets.

    `cpu_share` is of one CPU, for the daemon itself; what containers cost the engine follows from their number.
    """

    preset: Preset = Preset.SENTINEL
    containers_per_hour: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    containers_per_day: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    cpu_share: Share = 0.0


class GuardConfig(msgspec.Struct, frozen=True):
    """Above which pressure no trial begins. A threshold of 0 is not looked at. PSI: the `some` line's avg10.

    A pause ends once everything has been `resume_share` below (or above) its threshold for `resume_after_s`.
    """

    enabled: bool = True
    cpu_pressure_pct: Percent = 50.0
    memory_pressure_pct: Percent = 10.0
    io_pressure_pct: Percent = 50.0
    load_per_cpu: Annotated[float, Meta(ge=0, le=1000)] = 4.0
    available_memory_pct: Percent = 5.0
    engine_disk_free_pct: Percent = 5.0
    containers: Annotated[int, Meta(ge=0, le=1_000_000)] = 1000
    dying_memcgs: Annotated[int, Meta(ge=0, le=10_000_000)] = 20_000
    resume_share: Share = 0.2
    resume_after_s: Annotated[float, Meta(ge=0, le=3600)] = 30.0
    poll_s: Annotated[float, Meta(ge=0.1, le=600)] = 5.0


class ServiceConfig(msgspec.Struct, frozen=True):
    """The daemon as a service. While `drain_file` exists it makes no containers and watches on.

    A verdict that no trial has confirmed for `verdict_max_age_s` is `unknown` (stale).
    """

    drain_file: OptionalPath = "/run/kickwatch/drain"
    summary_period_s: Annotated[float, Meta(ge=1, le=604_800)] = 3600.0
    verdict_max_age_s: Annotated[float, Meta(ge=1, le=604_800)] = 86_400.0


class MetricsConfig(msgspec.Struct, frozen=True):
    """Prometheus metrics: over HTTP at `listen`, or into `textfile` for node_exporter's textfile collector, or both."""

    enabled: bool = True
    listen: Address = "127.0.0.1:9893"
    textfile: OptionalPath = ""


class StateConfig(msgspec.Struct, frozen=True):
    """Where history and evidence outlive a restart."""

    directory: AbsolutePath = "/var/lib/kickwatch"


class LogConfig(msgspec.Struct, frozen=True):
    """How records are written to standard error."""

    format: LogFormat = LogFormat.AUTO
    level: LogLevel = LogLevel.INFO


class Config(msgspec.Struct, frozen=True):
    """The whole configuration."""

    engine: EngineConfig = msgspec.field(default_factory=EngineConfig)
    workload: WorkloadConfig = msgspec.field(default_factory=WorkloadConfig)
    trial: TrialConfig = msgspec.field(default_factory=TrialConfig)
    budget: BudgetConfig = msgspec.field(default_factory=BudgetConfig)
    guard: GuardConfig = msgspec.field(default_factory=GuardConfig)
    service: ServiceConfig = msgspec.field(default_factory=ServiceConfig)
    metrics: MetricsConfig = msgspec.field(default_factory=MetricsConfig)
    state: StateConfig = msgspec.field(default_factory=StateConfig)
    log: LogConfig = msgspec.field(default_factory=LogConfig)
