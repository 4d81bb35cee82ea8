"""`make e2e` and the ways to work on the node: python -m tests.e2e COMMAND."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import traceback

from tests.e2e import build, cluster, pace
from tests.e2e.layout import ADMIN_KUBECONFIG, BIN, HERE, LOGS, REPO, RESULTS, RUN
from tests.e2e.processes import E2EError, inside, running
from tests.e2e.runtimes import RUNTIMES


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="all tests, on both drivers and two kernels; then down (make e2e)")
    run.add_argument("--keep", action="store_true", help="leave the last node up")
    extent = run.add_mutually_exclusive_group()
    extent.add_argument("--short", action="store_true", help="the short set alone, on the first driver")
    extent.add_argument("--apart", action="store_true", help="what stands beside the DaemonSet, likewise")
    extent.add_argument("--runtime", choices=RUNTIMES, help="the pods of manifests/runtimes, on a node of this runtime")
    one = commands.add_parser("up", help="bring the node up, with podtally and the workloads on it")
    one.add_argument("--driver", choices=("systemd", "cgroupfs"), default="systemd")
    one.add_argument("--kernel", choices=("older", "newer"), default="older")
    one.add_argument("--runtime", choices=RUNTIMES, help="with the pods of the runtimes' sets")
    commands.add_parser("push", help="build the image anew from the work tree and roll the DaemonSet")
    commands.add_parser("shell", help="a shell on the node")
    commands.add_parser("logs", help="put the node's logs beside the host's, and say where")
    commands.add_parser("down", help="end all that was started")
    commands.add_parser("kubectl", help="kubectl as the cluster's administrator, with kubectl's own arguments")
    commands.add_parser("test", help="pytest on the node that is up, with pytest's own arguments")
    return parser


def pytest(*arguments: str) -> int:
    """The end-to-end tests, run inside the cluster's network."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-o",
        "addopts=--import-mode=importlib -p no:cacheprovider",
        "-o",
        f"timeout={pace.current().seconds(1500):.0f}",
    ]
    names = [name for name in arguments if name.startswith("tests/")] or ["tests/e2e"]
    rest = [argument for argument in arguments if not argument.startswith("tests/")]
    command += ["-s", "-v", "-rs", "--durations=0", "--durations-min=5"]
    return subprocess.run(inside([*command, *rest, *names]), cwd=REPO, check=False).returncode


def bring_up(driver: str, kernel: str, runtime: str | None = None) -> None:
    """A node with podtally and the workloads; those of the runtimes' sets if a runtime is named."""
    if driver != "systemd" and runtime in ("gvisor", "crio"):
        raise E2EError(f"{runtime} is set up for the systemd driver alone: leave --driver out.")
    cluster.prepare()
    cluster.up(driver, kernel, runtime or "runc")
    if runtime is not None:
        with cluster.stage("workloads"):
            for pods in RUNTIMES[runtime].pods:
                cluster.kubectl("apply", "-k", str(HERE / "manifests" / "runtimes" / pods))
        with cluster.stage("the DaemonSet with the rights of verify"):
            cluster.deploy(HERE / "manifests" / "podtally-verify")
        return
    with cluster.stage("workloads"):
        cluster.put((HERE / "manifests/static-web.yaml").read_bytes(), "/etc/kubernetes/manifests/static-web.yaml")
        spared = ["-l", "spare!=true"] if pace.current().is_slow else []
        cluster.kubectl("apply", "-f", str(HERE / "manifests" / "workloads.yaml"), *spared)
    with cluster.stage("the DaemonSet as it is shipped"):
        cluster.deploy()


_SETS = {"long": "not apart and not runtime", "short": "short", "apart": "apart", "runtime": "runtime"}
"""The markers of each set of tests."""


def run(*, keep: bool, only: str | None, runtime: str | None = None) -> int:
    """The whole: the long set on the first node, the short one on the second driver and newer kernel; or one set."""
    shutil.rmtree(LOGS, ignore_errors=True)
    shutil.rmtree(RESULTS, ignore_errors=True)
    plan = [("systemd", "older", only or "long")]
    if not only:
        plan.append(("cgroupfs", "newer", "short"))
    status = 0
    for index, (driver, kernel, extent) in enumerate(plan):
        bring_up(driver, kernel, runtime)
        with cluster.stage(f"tests, the {extent} set"):
            found = pytest("-m", _SETS[extent])
        if found:
            status = 1
            cluster.gather_logs()
            kept = RUN / f"logs-{driver}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(LOGS, kept)
            print(f"tests failed on the node with the {driver} driver; all logs are in {kept}", flush=True)
        if not (keep and index == len(plan) - 1):
            with cluster.stage("down"):
                cluster.down()
    print(f"tables and recordings are in {RESULTS}")
    return status


def push() -> None:
    """The work tree's collector into the running node."""
    with cluster.stage("image"):
        archive = build.changed_image()
    with cluster.stage("image into containerd"):
        cluster.import_image(archive)
    with cluster.stage("roll-out"):
        cluster.kubectl("-n", "podtally", "delete", "pod", "--all", "--grace-period=1")
        cluster.rolled_out()


def main() -> int:
    """Run a command; what a person has to know is one sentence."""
    arguments, others = _parser().parse_known_args()
    if others and arguments.command not in ("kubectl", "test"):
        _parser().error(f"unrecognized arguments: {' '.join(others)}")
    try:
        if arguments.command not in ("run", "up") and not running("qemu") and arguments.command != "down":
            raise E2EError("no node is up: python -m tests.e2e up brings one up.")
        match arguments.command:
            case "run":
                chosen = {"short": arguments.short, "apart": arguments.apart, "runtime": arguments.runtime}
                only = next((name for name, asked in chosen.items() if asked), None)
                return run(keep=arguments.keep, only=only, runtime=arguments.runtime)
            case "up":
                bring_up(arguments.driver, arguments.kernel, arguments.runtime)
                print("up. A shell on it: python -m tests.e2e shell; kubectl: python -m tests.e2e kubectl get pods -A")
            case "push":
                push()
            case "shell":
                return subprocess.run(cluster.ssh_command(), check=False).returncode
            case "logs":
                cluster.gather_logs()
                print(LOGS)
            case "kubectl":
                command = [str(BIN / "kubectl"), f"--kubeconfig={ADMIN_KUBECONFIG}", *others]
                os.execvp("ip", inside(command))
            case "test":
                return pytest(*others)
            case "down":
                cluster.down()
    except E2EError as error:
        print(f"e2e: {error}", file=sys.stderr)
        if arguments.command == "run":
            _after_failure()
        return 1
    except BaseException:
        if arguments.command == "run":
            _after_failure()
        raise
    return 0


def _after_failure() -> None:
    """Keep the logs and end what was started, whatever went wrong."""
    try:
        if running("qemu"):
            cluster.gather_logs()
    except (E2EError, subprocess.SubprocessError):
        traceback.print_exc()
    cluster.down()
    print(f"e2e: the logs are in {LOGS}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
