"""`deploy/release.py`: each step says what is open, with its remedy, and a check that breaks does not end the walk."""

import subprocess
from pathlib import Path

import pytest

import module_file

release = module_file.load(Path(__file__).parents[2] / "deploy/release.py")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree that is ready for its release, up to the tag."""
    for name, text in (
        ("daemon/kickwatch/__init__.py", '__version__ = "0.2.0"\n'),
        (
            "pyproject.toml",
            '[project]\ndynamic = ["version"]\ndependencies = ["click>=8"]\noptional-dependencies = {cri = ["h2"]}\n',
        ),
        ("CHANGELOG.md", "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2026-01-01\n\n- One.\n"),
        ("deploy/debian/requirements.txt", "click==8.1 \\\n    --hash=sha256:00\nh2==4.0 \\\n    --hash=sha256:00\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message=all")
    return tmp_path


def git(tree: Path, *arguments: str) -> None:
    someone = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
    subprocess.run(["git", *someone, "-C", str(tree), *arguments], check=True, capture_output=True)


def test_a_tree_that_is_ready_needs_the_tag_and_then_nothing(tree: Path) -> None:
    checks = (release.check_version, release.check_changelog, release.check_lock, release.check_tree)
    assert [check(tree) for check in checks] == [""] * 4
    assert release.check_tag(tree) == "when all else is done: git tag --sign v0.2.0 --message 'kickwatch 0.2.0'"
    git(tree, "tag", "--annotate", "v0.2.0", "--message=kickwatch")
    assert release.check_tag(tree) == ""
    git(tree, "commit", "--quiet", "--allow-empty", "--message=more")
    assert release.check_tag(tree) == "v0.2.0 is another commit: take a new version"


@pytest.mark.parametrize(
    ("name", "text", "check", "problem"),
    [
        ("daemon/kickwatch/__init__.py", "", "check_version", 'needs __version__ = "MAJOR.MINOR.PATCH"'),
        ("pyproject.toml", '[project]\nversion = "1"\n', "check_version", "a version of its own"),
        ("CHANGELOG.md", "## [Unreleased]\n\n- One.\n", "check_changelog", "give its entries the heading ## [0.2.0] -"),
        ("CHANGELOG.md", "## [0.2.0]\n\n- One.\n", "check_changelog", "the heading lacks"),
        ("CHANGELOG.md", "## [0.1.0] - 2025-01-01\n", "check_changelog", "begins with [0.1.0]"),
        ("deploy/debian/requirements.txt", "h2==4.0 \\\n", "check_lock", "lacks click: deploy/debian/lock"),
        ("new", "", "check_tree", "commit or remove"),
    ],
)
def test_what_is_open_is_named(tree: Path, name: str, text: str, check: str, problem: str) -> None:
    (tree / name).write_text(text)
    assert problem in getattr(release, check)(tree)


def test_the_walk_goes_on_after_a_check_that_breaks(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def breaks(root: Path) -> str:
        return str(release.output(root, "sh", "-c", "echo broken >&2; exit 1"))

    steps = (
        release.Step("one", breaks),
        release.Step("two", release.succeeds("sh", "-c", "echo no; exit 1")),
        release.Step("three", release.succeeds("true")),
        release.Step("four", release.succeeds("false"), slow=True),
    )
    assert release.main([], tree, steps) == 1
    assert capsys.readouterr().out.splitlines() == [
        "[open] one: broken",
        "[open] two: `sh -c echo no; exit 1` failed: no",
        "[ ok ] three",
        "[left] four: --all, or the result of CI for this commit",
    ]
    assert release.main([], tree, steps[2:]) == 0
    assert release.main(["--all"], tree, steps[2:]) == 1
