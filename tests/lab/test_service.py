"""The installed service on a node without an engine, on Debian's kernels: with the drop-in it drives runc."""

import json

import pytest
from bench import Bench
from guest import CgroupVersion
from service import configuration, until_finished

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200)]

DROP_IN = "/etc/systemd/system/kickwatch.service.d"
SYSTEMDS = {"cpu", "io", "memory", "pids"}  # needed by the units of the node, including ours
# Without what other tests had enabled there, from the leaves up.
ONLY_SYSTEMDS = f"""find /sys/fs/cgroup -depth -name cgroup.subtree_control | while read file; do
    for one in $(cat $file); do
        case " {" ".join(sorted(SYSTEMDS))} " in *" $one "*) ;; *) echo -$one >$file ;; esac
    done
done"""
SHIPPED = "/opt/kickwatch/share/doc/kickwatch/oci.conf"


def test_the_service_drives_runc_in_its_sandbox(bench: Bench) -> None:
    """On cgroup v2 the rest of the tree stays as systemd set it, although runc would enable every controller."""
    bench.once("a sandbox is the same with more CPUs")
    bench.guest.write("/run/service.toml", configuration(3, "[engine]", 'runtime = "runc"').encode())
    subtree_control = "cat /sys/fs/cgroup/cgroup.subtree_control /sys/fs/cgroup/system.slice/cgroup.subtree_control"
    if bench.wanted is CgroupVersion.V2:
        bench.guest.shell(ONLY_SYSTEMDS)
        assert set(bench.guest.shell(subtree_control).output.split()) <= SYSTEMDS
    try:
        done = bench.guest.shell(
            f"""mount --bind /run/service.toml /etc/kickwatch/kickwatch.toml
            install -D -m 644 {SHIPPED} {DROP_IN}/oci.conf; systemctl daemon-reload; systemctl start kickwatch
            {until_finished(600, "break")}
            {subtree_control} >/run/subtree_control
            systemctl stop kickwatch; find /sys/fs/cgroup -type d -name 'kickwatch*'; ls /run/kickwatch/oci/bundles""",
            check=False,
            timeout_s=800,
        )
    finally:
        bench.guest.shell(f"rm -r {DROP_IN}; umount /etc/kickwatch/kickwatch.toml; systemctl daemon-reload")
    assert done.output, bench.guest.out("journalctl", "--unit=kickwatch", "--lines=20", "--output=cat")
    trial, *left = [line for line in done.output.splitlines() if line]
    assert left == []
    record = json.loads(trial)
    assert (record["KICKWATCH_CONTAINERS"], record["KICKWATCH_FAILURES"]) == ("3", "[]")
    assert set(bench.guest.out("cat", "/run/subtree_control").split()) <= SYSTEMDS
