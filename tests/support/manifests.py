"""What `kubectl apply -k` would send: the overlays of deploy/kubernetes, rendered by the real kustomize of kubectl."""

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

TREE = Path(__file__).parents[2] / "deploy/kubernetes"
KUBECTL = Path(sys.executable).with_name("kubectl")
Manifest = dict[str, Any]


@functools.cache
def _rendered(directory: Path) -> str:
    command = [KUBECTL, "kustomize", "--load-restrictor=LoadRestrictionsNone", directory]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def rendered(directory: Path) -> list[Manifest]:
    """All objects of a kustomization, in its order. Raises CalledProcessError."""
    return list(yaml.safe_load_all(_rendered(directory)))


def overlay(name: str) -> list[Manifest]:
    """An overlay's objects."""
    return rendered(TREE / "overlays" / name)


def one(objects: list[Manifest], kind: str, name: str) -> Manifest:
    """The only object of that kind and name."""
    (found,) = (each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def with_components(directory: Path, base: str, *components: str) -> list[Manifest]:
    """An overlay in `directory`, as an operator would write it: `base` with components of the tree."""
    target = directory / "overlay"
    target.mkdir(exist_ok=True)
    text = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": [_relative(TREE / "overlays" / base, target)],
        "components": [_relative(TREE / "components" / name, target) for name in components],
    }  # fmt: skip
    (target / "kustomization.yaml").write_text(yaml.safe_dump(text))
    return rendered(target)


def _relative(path: Path, start: Path) -> str:
    """kustomize takes no absolute path."""
    return "/".join((*[".."] * (len(start.resolve().parts) - 1), *path.resolve().parts[1:]))
