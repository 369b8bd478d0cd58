"""The commands of the pages that are marked `sh run` do what the pages say, with Docker on this kernel."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from doc_blocks import PAGES, Block, blocks
from needs import FEATURE
from slowness import SLOWNESS

pytestmark = [pytest.mark.docker, pytest.mark.kernel, pytest.mark.long, pytest.mark.timeout(300)]

# A command that several pages have runs on the first of them; the tutorial's run in their order.
RUN = {block.text: block for page in reversed(PAGES) for block in blocks(page) if "run" in block.words}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.mark.parametrize(
    "block", sorted(RUN.values(), key=lambda one: (one.page, one.line)), ids=lambda block: block.where
)
def test_a_block_runs_and_exits_as_promised(block: Block, directory: Path) -> None:
    if "v1" in block.words and not Path("/sys/fs/cgroup/memory").is_dir():
        pytest.skip(f"{FEATURE} no cgroup v1 with the memory controller")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        cwd=directory,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=200 * SLOWNESS,
    )
    assert done.returncode == block.status, f"{done.stdout}\n{done.stderr}"
