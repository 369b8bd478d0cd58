"""The conditions under which trials may be compared: when one of them changes, the evidence starts again."""

import msgspec

from kickwatch.model import Trial


class Stratum(msgspec.Struct, frozen=True):
    """Everything that a trial's figures depend on, apart from the fault it looks for."""

    kernel: str
    arch: str
    cpus_online: int
    engine: str
    runtime: str
    cgroup: str
    network: str
    rcu_expedited: bool
    concurrency: int

    @property
    def yardstick(self) -> tuple[object, ...]:
        """The fields that must be equal in two comparable records.

        On a healthy kernel the number of IPIs depends on the network, the CPU count and the concurrency: a rise that
        comes with a change of these is no regression of the kernel or the engine.
        """
        return (self.arch, self.cpus_online, self.network, self.concurrency)

    def changes_since(self, before: "Stratum") -> str:
        """What differs from `before`, in words: `kernel 6.12.1 (before: 6.1.0)`."""
        pairs = ((name, getattr(self, name), getattr(before, name)) for name in self.__struct_fields__)
        return ", ".join(f"{name} {now} (before: {then})" for name, now, then in pairs if now != then)


def stratum_of(trial: Trial) -> Stratum:
    """The stratum of a trial."""
    node = trial.node
    return Stratum(
        kernel=node.kernel,
        arch=node.arch,
        cpus_online=node.cpus_online,
        engine=node.engine,
        runtime=node.runtime,
        cgroup=node.cgroup,
        network=node.network,
        rcu_expedited=node.rcu_expedited,
        concurrency=trial.concurrency,
    )
