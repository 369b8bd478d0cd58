"""What the config.json of a bundle allows a container to do."""

from typing import Any

import msgspec
import pytest

from kickwatch.workload.engine import ContainerSpec
from kickwatch.workload.oci_bundle import BundleHost, bundle_config, mounts, seccomp

SPEC = ContainerSpec(
    name="kickwatch-12345678-0", instance="abc", trial="12345678", image="i:1", command=("--deadline-ms", "5"),
    network="none", cgroup_parent="/kickwatch", pids_limit=64,
)  # fmt: skip
HOST = BundleHost(rootfs="/r", program="/p", cgroup_namespace=True, seccomp=True)


def config_of(spec: ContainerSpec = SPEC, host: BundleHost = HOST) -> Any:
    """The configuration as the runtime reads it."""
    return msgspec.json.decode(msgspec.json.encode(bundle_config(spec, host)))


def test_the_configuration_follows_the_spec() -> None:
    config = config_of()
    assert config["annotations"] == SPEC.labels()
    assert config["process"]["args"] == ["/workload", "--deadline-ms", "5"]
    assert config["linux"]["cgroupsPath"] == "/kickwatch/kickwatch-12345678-0"
    assert config["linux"]["resources"]["pids"] == {"limit": 64}
    assert "pids" not in config_of(msgspec.structs.replace(SPEC, pids_limit=0))["linux"]["resources"]


def test_the_container_shares_no_namespace_and_has_no_privileges() -> None:
    config = config_of()
    kinds = [namespace["type"] for namespace in config["linux"]["namespaces"]]
    assert kinds == ["pid", "network", "ipc", "uts", "mount", "cgroup"]
    assert all(set(namespace) == {"type"} for namespace in config["linux"]["namespaces"])  # none is joined
    assert config["process"]["noNewPrivileges"] is True
    assert not any(config["process"]["capabilities"].values())
    assert config["root"] == {"path": "/r", "readonly": True}
    assert config["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    assert {"/proc/kcore", "/proc/keys", "/sys/firmware"} <= set(config["linux"]["maskedPaths"])
    assert "/proc/sys" in config["linux"]["readonlyPaths"]


def test_unsupported_features_are_left_out() -> None:
    linux = config_of(host=msgspec.structs.replace(HOST, cgroup_namespace=False, seccomp=False))["linux"]
    assert "cgroup" not in [namespace["type"] for namespace in linux["namespaces"]]
    assert "seccomp" not in linux


def test_only_the_program_is_executable() -> None:
    by_destination = {mount.destination: mount for mount in mounts("/p")}
    executable = [destination for destination, mount in by_destination.items() if "exec" in mount.options]
    assert executable == ["/workload"]
    assert by_destination["/workload"].source == "/p"
    assert {"bind", "ro", "nosuid", "nodev"} <= set(by_destination["/workload"].options)
    assert "ro" in by_destination["/sys"].options


@pytest.mark.parametrize(
    "call",
    ["mount", "umount2", "pivot_root", "unshare", "setns", "bpf", "perf_event_open", "ptrace", "init_module",
     "finit_module", "delete_module", "kexec_load", "reboot", "swapon", "add_key", "keyctl", "clone3", "io_uring_setup",
     "userfaultfd", "settimeofday", "clock_settime", "open_by_handle_at", "process_vm_writev", "sethostname"],
)  # fmt: skip
def test_the_filter_refuses_privileged_calls(call: str) -> None:
    assert call not in allowed()


def test_the_filter_allows_what_programs_use() -> None:
    used = {"execve", "mmap", "brk", "fork", "wait4", "rt_sigtimedwait", "signalfd4", "inotify_add_watch", "socketpair",
            "timer_create", "timerfd_create", "eventfd2", "epoll_ctl", "mkdirat", "unlinkat", "prctl"}  # fmt: skip
    assert used <= allowed()


def test_the_filter_allows_no_new_namespace() -> None:
    filters: Any = seccomp()
    assert filters["defaultAction"] == "SCMP_ACT_ERRNO"
    (clone,) = (rule for rule in filters["syscalls"] if "clone" in rule["names"])
    (mask,) = clone["args"]
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert mask["value"] & flag
    assert mask["valueTwo"] == 0


def allowed() -> set[str]:
    """The system calls that are allowed with any arguments."""
    filters: Any = seccomp()
    rules = [rule for rule in filters["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule]
    names = [name for rule in rules for name in rule["names"]]
    assert len(names) == len(set(names))
    return set(names)
