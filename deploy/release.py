"""The checklist of a release: release.py [--all] [--list] walks through it and says of each step whether it is done.

`make release-check` runs it. Every step is a check or a command, so nothing depends on memory; the exit status is 1 as
long as one is open. --all adds the steps that take an hour or more.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SUITES = ("bookworm", "trixie")
# What lintian of one release of Debian asks otherwise than that of another: where units are, and init scripts.
_OF_ANOTHER_RELEASE = ("aliased-location", "package-supports-alternative-init-but-no-init.d-script")


@dataclass(frozen=True)
class Step:
    """`check` returns what is open, as one line with the remedy; empty if the step is done."""

    name: str
    check: Callable[[Path], str]
    slow: bool = False


def version_of(root: Path) -> str:
    """The version, from the one place that has it; empty if it is not there."""
    text = (root / "daemon/kickwatch/__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    return found[1] if found else ""


def check_version(root: Path) -> str:
    """The package, the wheel and the programs take theirs from one place."""
    if not re.fullmatch(r"\d+\.\d+\.\d+(rc\d+)?", version_of(root)):
        return 'daemon/kickwatch/__init__.py needs __version__ = "MAJOR.MINOR.PATCH"'
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return "pyproject.toml has a version of its own: make it dynamic" if "version" in project else ""


def check_changelog(root: Path) -> str:
    """The newest heading is this version's, with a date."""
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## \[([^\]]+)\](.*)\n((?:(?!## ).*\n)*)", text, re.MULTILINE)
    released = [(name, date, body) for name, date, body in sections if name != "Unreleased" or body.strip()]
    if not released or released[0][0] != version_of(root):
        newest = released[0][0] if released else "nothing"
        return f"CHANGELOG.md begins with [{newest}]: give its entries the heading ## [{version_of(root)}] - YYYY-MM-DD"
    return (
        "" if re.fullmatch(r" - \d{4}-\d\d-\d\d", released[0][1]) else "CHANGELOG.md: the heading lacks ` - YYYY-MM-DD`"
    )


def check_lock(root: Path) -> str:
    """Each dependency of the wheel is locked for the Debian packages."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["cri"]]
    locked = set(
        re.findall(r"^([a-z0-9-]+)==", (root / "deploy/debian/requirements.txt").read_text("utf-8"), re.MULTILINE)
    )
    missing = {re.split("[^A-Za-z0-9._-]", line)[0].lower() for line in wanted} - locked
    return f"deploy/debian/requirements.txt lacks {', '.join(sorted(missing))}: deploy/debian/lock" if missing else ""


def check_tree(root: Path) -> str:
    """What is built is what is committed."""
    return "commit or remove what `git status` lists" if output(root, "git", "status", "--porcelain") else ""


def check_tag(root: Path) -> str:
    """The tag of this version is this commit."""
    tag = f"v{version_of(root)}"
    tagged = output(root, "git", "tag", "--list", tag, "--format=%(objectname) %(*objectname)").split()
    if not tagged:
        return f"when all else is done: git tag --sign {tag} --message 'kickwatch {version_of(root)}'"
    return "" if output(root, "git", "rev-parse", "HEAD") in tagged else f"{tag} is another commit: take a new version"


def check_packages(root: Path) -> str:
    """Both packages, built twice: equal to the last byte, and lintian has no complaint."""
    with tempfile.TemporaryDirectory(prefix="kickwatch-release-") as scratch:
        for suite in SUITES:
            made = [_built(root, suite, Path(scratch) / f"{suite}-{turn}") for turn in ("first", "second")]
            if made[0].read_bytes() != made[1].read_bytes():
                return f"two builds for {suite} differ: compare them with diffoscope"
            if complaints := lintian(made[0]):
                return (
                    f"lintian: {complaints.splitlines()[0]}: correct it, or explain it in kickwatch.lintian-overrides"
                )
    return ""


def lintian(package: Path) -> str:
    """Its complaints about a package, down to informational tags."""
    command = ["lintian", "--profile=debian", "--allow-root", "--display-info", str(package)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and not done.stdout:
        return done.stderr
    release = re.search(r'^VERSION_ID="?(\d+)', Path("/etc/os-release").read_text(encoding="utf-8"), re.MULTILINE)
    foreign = not release or f"+deb{release[1]}_" not in package.name
    lines = done.stdout.splitlines()
    return "\n".join(line for line in lines if not (foreign and any(tag in line for tag in _OF_ANOTHER_RELEASE)))


def _built(root: Path, suite: str, into: Path) -> Path:
    output(root, "make", "--no-print-directory", "deb", f"SUITE={suite}", f"WHEEL_DIR={into}")
    (package,) = into.glob("*.deb")
    return package


def succeeds(*command: str) -> Callable[[Path], str]:
    """A check that this command succeeds."""

    def check(root: Path) -> str:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        last = (done.stdout + done.stderr).strip().rpartition("\n")[2]
        return f"`{' '.join(command)}` failed: {last}" if done.returncode else ""

    return check


def output(root: Path, *command: str) -> str:
    """What a command prints. Raises CalledProcessError if it fails."""
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


STEPS = (
    Step("the version is in one place", check_version),
    Step("CHANGELOG.md has this version", check_changelog),
    Step("dependencies of the packages are locked", check_lock),
    Step("nothing is uncommitted", check_tree),
    Step("lint and types", succeeds("make", "lint")),
    Step("documentation", succeeds("make", "docs")),
    Step("Debian packages: reproducible, lintian", check_packages),
    Step("all tests", succeeds("make", "test-all"), slow=True),
    Step("the kernels of the laboratory", succeeds("make", "kernels"), slow=True),
    Step("the tag", check_tag),
)


def walk(root: Path, steps: tuple[Step, ...]) -> Iterator[tuple[str, str]]:
    """Each step's name, and what is open. A check that breaks is open, too, and the walk goes on."""
    for step in steps:
        try:
            yield step.name, step.check(root)
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", None) or str(error)
            yield step.name, said.strip().rpartition("\n")[2]


def main(arguments: list[str], root: Path = ROOT, steps: tuple[Step, ...] = STEPS) -> int:
    """Walk through the checklist; the exit status is 1 if something is open."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--all", action="store_true", help="also the steps that take an hour or more")
    parser.add_argument("--list", action="store_true", help="only name the steps")
    given = parser.parse_args(arguments)
    if given.list:
        print(*(f"{step.name}{' (--all)' if step.slow else ''}" for step in steps), sep="\n")
        return 0
    still_open = 0
    for name, problem in walk(root, tuple(step for step in steps if given.all or not step.slow)):
        print(f"[{'open' if problem else ' ok '}] {name}{f': {problem}' if problem else ''}", flush=True)
        still_open += bool(problem)
    skipped = [step.name for step in steps if step.slow and not given.all]
    print(*(f"[left] {name}: --all, or the result of CI for this commit" for name in skipped), sep="\n")
    return 1 if still_open else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
