"""What tests of Kubernetes manifests share: objects as kubectl builds them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

Manifest = dict[str, Any]  # a Kubernetes object as YAML has it

needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not installed, and it is what builds these manifests."
)


def kustomize(directory: Path) -> list[Manifest]:
    """All objects that `kubectl kustomize` makes of a directory."""
    done = subprocess.run(
        ["kubectl", "kustomize", str(directory)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, f"kubectl warns: {done.stderr}"
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def only(kind: str, objects: Iterable[Manifest]) -> Manifest:
    """The one object of a kind."""
    found = [thing for thing in objects if thing["kind"] == kind]
    assert len(found) == 1, f"{len(found)} objects of kind {kind}"
    return found[0]
