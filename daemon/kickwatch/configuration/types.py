"""The configuration: every key with its type, range and default. `loading` builds one from a file and overrides.

People see each key as `section.key`; deploy/kickwatch.toml explains them.
"""

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta


class EngineKind(StrEnum):
    """The container engines that kickwatch can drive. `auto`: Docker if it answers, else a CRI, else runc or crun.

    `cri`: containerd or CRI-O, through the Container Runtime Interface.
    """

    AUTO = "auto"
    DOCKER = "docker"
    CRI = "cri"
    OCI = "oci"


class Network(StrEnum):
    """The network of the containers. Evidence is kept separately for each, since a bridge costs IPIs.

    `bridge` is Docker's, `cni` is a CRI's: what its plugins are configured for.
    """

    NONE = "none"
    BRIDGE = "bridge"
    HOST = "host"
    CNI = "cni"


class LogFormat(StrEnum):
    """`auto`: `console` on a terminal, the journal's native protocol under systemd, `json` elsewhere."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


class Preset(StrEnum):
    """How much of a node kickwatch may use: `sentinel` runs beside other work, `stress` has the machine to itself."""

    SENTINEL = "sentinel"
    STRESS = "stress"


class Design(StrEnum):
    """What trials compare: `paired` halves with and without a container, `whole` windows, or both in turn (`mixed`)."""

    MIXED = "mixed"
    PAIRED = "paired"
    WHOLE = "whole"


class LogLevel(StrEnum):
    """The lowest severity that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


AbsolutePath = Annotated[str, Meta(pattern="^/", description="an absolute path")]
SocketPath = Annotated[str, Meta(pattern="^(unix://)?/", description="an absolute path, with or without unix://")]
OptionalPath = Annotated[str, Meta(pattern="^(?![^/])", description="an absolute path, or an empty string")]
Address = Annotated[
    str,
    Meta(
        pattern=r"\A(([0-9.]+|\[[0-9a-fA-F:]+(%[^][%/\s]{1,15})?\]):[0-9]{1,5})?\Z",
        description="an address and a port, 127.0.0.1:9893, or an empty string",
    ),
]
CpuList = Annotated[
    str,
    Meta(
        pattern=r"\A([0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*)?\Z",
        description="a list of CPUs (2,4-7), or an empty string",
    ),
]
LimitBytes = Annotated[int, Meta(ge=0, le=2**50)]
Share = Annotated[float, Meta(ge=0, le=1)]
Percent = Annotated[float, Meta(ge=0, le=100)]


class EngineConfig(msgspec.Struct, frozen=True):
    """The container engine, its socket, and the time limit of one call.

    `runtime`: the program that `oci` drives, also where `auto` does; for `docker` and `cri` the name of one of theirs.
    The default socket is Docker's; `cri` then looks where containerd and CRI-O usually listen.
    """

    kind: EngineKind = EngineKind.AUTO
    socket: SocketPath = "/var/run/docker.sock"
    runtime: str = ""
    timeout_s: Annotated[float, Meta(ge=0.1, le=600)] = 30.0


class NodeConfig(msgspec.Struct, frozen=True):
    """What the node does not tell. `isolated_cpus` are added to those that the kernel shows as isolated."""

    isolated_cpus: CpuList = ""


class WorkloadConfig(msgspec.Struct, frozen=True):
    """The containers of a churn window. An empty `image` is kickwatch's own; `rate_hz` 0 is as fast as the engine.

    If not `enabled`, kickwatch is passive: it starts nothing, and reports the cost of the containers that others start.
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
    """One experiment. `seed` 0 draws a new seed for each; `canary_memcgs` 0: no canary.

    `interval_s` is the pause between two trials. Chance adds up to `jitter` of it, so the nodes of a fleet drift apart.
    """

    window_s: Annotated[float, Meta(ge=0.1, le=3600)] = 5.0
    settle_s: Annotated[float, Meta(ge=0, le=600)] = 40.0
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    interval_s: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    jitter: Share = 0.2
    canary_memcgs: Annotated[int, Meta(ge=0, le=10_000)] = 100
    control_period_s: Annotated[float, Meta(ge=1, le=604_800)] = 3600.0
    design: Design = Design.MIXED


class ControlConfig(msgspec.Struct, frozen=True):
    """The positive control. Empty `cpus`: those that are not isolated; the first of a list sends to the others."""

    cpus: CpuList = ""


class BudgetConfig(msgspec.Struct, frozen=True):
    """What the daemon may cost. A key that is 0 takes the preset's value; `limits.py` has the presets.

    `cpu_share` is of one CPU, for the daemon alone; what containers cost the engine follows from their number.
    """

    preset: Preset = Preset.SENTINEL
    containers_per_hour: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    containers_per_day: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    cpu_share: Share = 0.0


class GuardConfig(msgspec.Struct, frozen=True):
    """The pressure above which no trial starts. A threshold of 0 is not checked. PSI: avg10 of the `some` line.

    A pause ends once every figure has been better than its threshold, by `resume_share`, for `resume_after_s`.
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
    """The daemon as a service. While `drain_file` exists, it starts no containers; the observers keep running.

    A verdict that no trial confirms for `verdict_max_age_s` becomes `unknown` (stale).
    """

    drain_file: OptionalPath = "/run/kickwatch/drain"
    summary_period_s: Annotated[float, Meta(ge=1, le=604_800)] = 3600.0
    verdict_max_age_s: Annotated[float, Meta(ge=1, le=604_800)] = 86_400.0


class MetricsConfig(msgspec.Struct, frozen=True):
    """Prometheus metrics: over HTTP at `listen`, and into `textfile` for node_exporter, each unless it is empty."""

    enabled: bool = True
    listen: Address = "127.0.0.1:9893"
    textfile: OptionalPath = ""


class StateConfig(msgspec.Struct, frozen=True):
    """Where history, evidence and spent budget are stored across restarts."""

    directory: AbsolutePath = "/var/lib/kickwatch"


class LogConfig(msgspec.Struct, frozen=True):
    """How log records are written to standard error."""

    format: LogFormat = LogFormat.AUTO
    level: LogLevel = LogLevel.INFO


class Config(msgspec.Struct, frozen=True):
    """The whole configuration."""

    engine: EngineConfig = msgspec.field(default_factory=EngineConfig)
    node: NodeConfig = msgspec.field(default_factory=NodeConfig)
    workload: WorkloadConfig = msgspec.field(default_factory=WorkloadConfig)
    trial: TrialConfig = msgspec.field(default_factory=TrialConfig)
    control: ControlConfig = msgspec.field(default_factory=ControlConfig)
    budget: BudgetConfig = msgspec.field(default_factory=BudgetConfig)
    guard: GuardConfig = msgspec.field(default_factory=GuardConfig)
    service: ServiceConfig = msgspec.field(default_factory=ServiceConfig)
    metrics: MetricsConfig = msgspec.field(default_factory=MetricsConfig)
    state: StateConfig = msgspec.field(default_factory=StateConfig)
    log: LogConfig = msgspec.field(default_factory=LogConfig)
