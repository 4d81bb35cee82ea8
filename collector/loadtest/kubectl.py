"""The cluster, by the user's own ``kubectl``: who applies load tests has it, and it knows kustomizations. I/O."""

from __future__ import annotations

import json
import logging
import re
import shlex
import shutil
import subprocess
import textwrap
from collections.abc import Sequence
from typing import Any, Final

from collector.errors import ClusterError

log = logging.getLogger("collector.loadtest")

_TIMEOUT_SECONDS: Final = 60.0
_LONG_SECONDS: Final = 180.0

_STEPS: Final = (
    ("(Forbidden)", "your account lacks this right: docs/loadtest.md lists those that a run needs"),
    ("(Unauthorized)", "log in to the cluster anew: kubectl auth whoami tells who you are to it"),
    ("You must be logged in", "log in to the cluster anew: kubectl auth whoami tells who you are to it"),
    ("was refused - did you specify", "no cluster answers: --kubeconfig FILE, --context NAME or KUBECONFIG names one"),
    ("Unable to connect to the server", "no cluster answers: is it up, and does --context name the right one?"),
    ("no such host", "no cluster answers: is it up, and does --context name the right one?"),
    ("does not exist", "kubectl config get-contexts lists the contexts that there are"),
)
"""What to do about what kubectl says."""

_KLOG: Final = re.compile(r"[IWEF]\d{4} ")
"""How a line of its library's log begins: each of its tries, before the one line that is meant for a person."""
_LONGEST_SAID: Final = 600


class Kubectl:
    """Runs kubectl. Each method raises :class:`ClusterError` where kubectl is missing, refused or without an answer."""

    def __init__(self, *, kubeconfig: str | None = None, context: str | None = None, program: str = "kubectl") -> None:
        found = shutil.which(program)
        if found is None:
            raise ClusterError(
                f"{program} is not in PATH, and it is what reaches the cluster: install it"
                " (https://kubernetes.io/docs/tasks/tools/); a report is made again without it:"
                " podtally loadtest report FOLDER"
            )
        where = (["--kubeconfig", kubeconfig] if kubeconfig else []) + (["--context", context] if context else [])
        self._program = [found, *where]
        self._where = where

    def _run(self, arguments: Sequence[str], *, given: str | None = None, seconds: float = _TIMEOUT_SECONDS) -> bytes:
        shown = self._shown(arguments)
        log.debug("%s", " ".join(arguments))
        try:
            done = subprocess.run(  # noqa: S603 - the user's own kubectl, without a shell
                [*self._program, *arguments],
                input=given.encode() if given is not None else b"",
                capture_output=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"{shown} has not ended within {seconds:.0f} s: does the cluster answer?") from error
        except OSError as error:
            raise ClusterError(f"{self._program[0]} cannot be run: {error.strerror}") from error
        if done.returncode != 0:
            stderr = done.stderr.decode(errors="replace")
            step = next((f"\n  -> {text}" for words, text in _STEPS if words in stderr), "")
            raise ClusterError(f"{shown}: {_said(stderr) or f'exit status {done.returncode}'}{step}")
        return done.stdout

    def _shown(self, arguments: Sequence[str]) -> str:
        """The command as a person may type it; what a path asks for is long, and left out."""
        return shlex.join(["kubectl", *(one.partition("?")[0] for one in arguments), *self._where])

    def _json(self, arguments: Sequence[str]) -> Any:
        return self._parsed(self._run([*arguments, "-o", "json"]), arguments)

    def _parsed(self, body: bytes, arguments: Sequence[str]) -> Any:
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ClusterError(f"{self._shown([*arguments, '-o', 'json'])} gives no JSON: {error}") from error

    def kustomize(self, folder: str) -> bytes:
        """The objects of a kustomization, as YAML."""
        return self._run(["kustomize", folder])

    def apply(self, objects: Sequence[Any]) -> None:
        """Apply objects."""
        self._run(["apply", "-f", "-"], given=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def job(self, namespace: str, name: str) -> Any | None:
        """A Job; ``None`` if there is none of the name."""
        body = self._run(["get", "job", name, "-n", namespace, "--ignore-not-found", "-o", "json"])
        return self._parsed(body, ["get", "job", name, "-n", namespace]) if body.strip() else None

    def pods_of(self, namespace: str, job: str) -> list[Any]:
        """The pods of a Job."""
        found: list[Any] = self._json(["get", "pods", "-n", namespace, "-l", f"job-name={job}"])["items"]
        return found

    def node(self, name: str) -> Any:
        """A node."""
        return self._json(["get", "node", name])

    def log(self, namespace: str, pod: str, container: str, *, tail: int | None = None) -> bytes:
        """A container's log, or its last lines."""
        last = [] if tail is None else [f"--tail={tail}"]
        return self._run(["logs", pod, "-n", namespace, "-c", container, *last], seconds=_LONG_SECONDS)

    def delete_job(self, namespace: str, name: str) -> None:
        """Delete a Job with its pods, and wait until they are gone."""
        self._run(
            ["delete", "job", name, "-n", namespace, "--ignore-not-found", "--cascade=foreground", "--wait=true"],
            seconds=_LONG_SECONDS,
        )

    def raw(self, path: str) -> bytes:
        """What the API server answers at a path."""
        return self._run(["get", "--raw", path])


def _said(stderr: str) -> str:
    """What kubectl says to a person, in one line, whole words of it; its log only if there is nothing else."""
    lines = stderr.splitlines()
    said = " ".join([one for one in lines if not _KLOG.match(one)] or lines[-1:])
    return textwrap.shorten(said, _LONGEST_SAID, placeholder=" ...")
