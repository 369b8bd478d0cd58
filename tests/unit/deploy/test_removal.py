"""What a removal leaves in /run and of the textfile: `deploy/install` and the package's postrm, in empty directories.

Stubs stand for systemctl and journalctl, as on a node that systemd did not boot.
"""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
EMPTIED = "/run /opt /etc /var/lib /usr/local /usr/share"
REMOVALS = ("install --remove", "install --remove --purge", "postrm remove", "postrm purge")
LOCK = "/run/kickwatch.lock"
IN_USE = "mkdir -p /run/kickwatch/oci/state; echo 4711 >/run/kickwatch.lock"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can hide this machine's directories")


def left_by(tmp_path: Path, removal: str, *, before: str, at: str) -> tuple[list[str], str]:
    """Run `before` and then the removal; returns what is left of the paths `at`, and the messages of the removal."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("systemctl", "journalctl"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    for script in ("deploy/install", "deploy/debian/package/postrm"):
        (programs / Path(script).name).write_bytes((ROOT / script).read_bytes())
        (programs / Path(script).name).chmod(0o755)
    empty = f"for directory in {EMPTIED}; do mount -t tmpfs tmpfs $directory; done"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", f"{empty}\n{before}\n{removal} </dev/null; find {at} 2>/dev/null | sort"],
        env={"PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.split(), done.stderr


@pytest.mark.parametrize("removal", REMOVALS)
def test_what_a_running_trial_needs_stays(tmp_path: Path, removal: str) -> None:
    """Without the state of its bundles it could not remove its containers."""
    left, said = left_by(tmp_path, f"flock {LOCK} {removal}", before=IN_USE, at="/run/kickwatch*")
    assert left == ["/run/kickwatch", "/run/kickwatch.lock", "/run/kickwatch/oci", "/run/kickwatch/oci/state"]
    assert "stays, since another kickwatch uses it (process 4711)" in said


@pytest.mark.parametrize("removal", REMOVALS)
def test_what_no_trial_needs_goes(tmp_path: Path, removal: str) -> None:
    left, said = left_by(tmp_path, removal, before=IN_USE, at="/run/kickwatch*")
    assert left == ([] if removal == "postrm purge" else [LOCK])
    assert "stays" not in said


@pytest.mark.parametrize("removal", REMOVALS)
def test_a_lock_that_is_missing_is_not_made(tmp_path: Path, removal: str) -> None:
    """`flock` would make it readable for all, and who can read it can hold it."""
    assert left_by(tmp_path, removal, before="mkdir /run/kickwatch", at="/run/kickwatch*")[0] == []


@pytest.mark.parametrize("removal", ["install --remove", "postrm remove"])
@pytest.mark.parametrize(
    ("configuration", "directory"),
    [
        ("", "/var/lib/kickwatch"),
        ("#[state]\n[guard]\ndirectory = '/var/lib/guard'\n[metrics]\n", "/var/lib/kickwatch"),
        ("[state]\n# where\ndirectory = '/srv/own'  # here\n[log]\n", "/srv/own"),
        ('state.directory = "/srv/own"\n[log]\n', "/srv/own"),
        ('[log]\n\n[ state ]\n  directory="/srv/own"\n', "/srv/own"),
    ],
)
def test_the_textfile_of_a_killed_daemon_is_found_by_the_configured_state_directory(
    tmp_path: Path, removal: str, configuration: str, directory: str
) -> None:
    (tmp_path / "kickwatch.toml").write_text(configuration)
    before = f"""
        mount -t tmpfs tmpfs /srv; mkdir -p /etc/kickwatch /var/lib/metrics {directory} /var/lib/guard
        cp {tmp_path}/kickwatch.toml /etc/kickwatch
        echo '# HELP kickwatch_up Up.' >/var/lib/metrics/kickwatch.prom
        printf /var/lib/metrics/kickwatch.prom >{directory}/textfile
    """
    left, _ = left_by(tmp_path, removal, before=before, at=f"/var/lib/metrics/* {directory}/textfile")
    assert left == []
