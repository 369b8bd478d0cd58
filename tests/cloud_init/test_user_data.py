"""The snippet for cloud-init: valid by the schema of the real one, and it installs only what the digest names."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cached_root import cached_root
from kickwatch.configuration.loading import load
from slowness import SLOWNESS

USER_DATA = Path(__file__).parents[2] / "deploy/cloud-init/kickwatch.yaml"
SUITE, PACKAGES = "trixie", "base-files,cloud-init,python3"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# What the script calls, each of which notes its arguments.
STUB = '#!/bin/sh\necho "${0##*/} $*" >>"$CALLS"\n'


def user_data() -> dict[str, Any]:
    """The snippet, parsed."""
    found: dict[str, Any] = yaml.safe_load(USER_DATA.read_text())
    return found


def _unpack(target: Path) -> None:
    """cloud-init with its dependencies, unpacked and not installed: its services are not for this machine."""
    command = [
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=extract",
        f"--include={PACKAGES}",
        SUITE,
        target,
    ]
    source = f"deb [signed-by={KEYRING}] http://deb.debian.org/debian {SUITE} main"
    subprocess.run([*command, source], check=True, capture_output=True, timeout=300 * SLOWNESS)
    bundle = target / "etc/ssl/certs/ca-certificates.crt"  # which a maintainer's script would have made; not used here
    bundle.parent.mkdir(parents=True, exist_ok=True)
    bundle.write_text("".join(each.read_text() for each in (target / "usr/share/ca-certificates").rglob("*.crt")))


@pytest.fixture
def cloud_init() -> Path:
    """A directory to chroot to."""
    return cached_root("cloud-init", f"{SUITE} {PACKAGES} bundle {os.uname().machine}", _unpack)


def checked(root: Path, text: str) -> "subprocess.CompletedProcess[str]":
    """What `cloud-init schema` says about user data."""
    (root / "tmp/user-data").write_text(text)
    command = ["chroot", root, "/usr/bin/python3", "/usr/bin/cloud-init", "schema", "--config-file", "/tmp/user-data"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.long
@pytest.mark.userland
@pytest.mark.timeout(400)
def test_cloud_init_finds_the_snippet_valid(cloud_init: Path) -> None:
    found = checked(cloud_init, USER_DATA.read_text())
    assert found.returncode == 0, found.stdout + found.stderr
    assert "Valid" in found.stdout + found.stderr
    wrong = checked(cloud_init, USER_DATA.read_text().replace("\nwrite_files:\n  #", "\nwrite_files:\n  - 1\n  #"))
    assert wrong.returncode != 0  # otherwise it would find anything valid


def test_its_configuration_is_one_that_kickwatch_takes(tmp_path: Path) -> None:
    (file,) = user_data()["write_files"]
    assert file["path"] == "/etc/kickwatch/kickwatch.toml"
    (tmp_path / "kickwatch.toml").write_text(file["content"])
    assert load(tmp_path / "kickwatch.toml").warnings == ()


@pytest.mark.parametrize("genuine", [True, False])
def test_only_the_package_that_the_digest_names_is_installed(tmp_path: Path, genuine: bool) -> None:
    """The script with programs in the place of curl, apt-get, systemctl and kickwatch; sha256sum is the real one."""
    programs, calls = tmp_path / "bin", tmp_path / "calls"
    programs.mkdir()
    for name in ("curl", "apt-get", "systemctl", "kickwatch"):
        (programs / name).write_text(STUB)
        (programs / name).chmod(0o755)
    (programs / "curl").write_text(STUB + 'while [ "$1" != --output ]; do shift; done\nprintf package >"$2"\n')
    ((shell, option, script),) = user_data()["runcmd"]
    digest = hashlib.sha256(b"package" if genuine else b"another").hexdigest()
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "CALLS": str(calls), "TMPDIR": str(tmp_path)}
    command = [shutil.which(shell) or shell, option, script.replace("0" * 64, digest)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    called = [line.split()[0] for line in calls.read_text().splitlines()]
    assert called == (["curl", "apt-get", "systemctl", "kickwatch"] if genuine else ["curl"])
    assert (done.returncode == 0) is genuine, done.stderr
