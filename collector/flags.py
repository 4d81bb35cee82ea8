"""Every flag of the command line, once: name, kind, default, help and the commands that take it.

The parser, the environment variables (``PODTALLY_<NAME>``), ``docs/cli.md`` and the check on manifests derive from
these rows. A flag beats the environment, the environment beats the default.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from collector import web
from collector.errors import UsageError
from collector.model import FILLERS, SOURCES, SourceName
from collector.printable import printable
from collector.server.app import parse_listen

Kind = Literal["text", "duration", "number", "count", "share", "switch", "words", "address"]

_LONGEST_SECONDS = 365 * 86400.0

_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration(text: str) -> float:
    """Seconds of ``1s``, ``500ms``, ``1m30s`` or a plain number. Raises ``ArgumentTypeError``.

    >>> duration("1m30s"), duration("500ms"), duration("15")
    (90.0, 0.5, 15.0)
    """
    written = f"{text}s" if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else text
    if not re.fullmatch(r"([0-9]+(\.[0-9]+)?(ms|s|m|h))+", written):
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: write 1s, 500ms or 1m30s")
    seconds = sum(
        float(number) * _UNITS[unit] for number, _, unit in re.findall(r"([0-9]+(\.[0-9]+)?)(ms|s|m|h)", written)
    )
    if seconds > _LONGEST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is longer than the {_LONGEST_SECONDS / 86400:.0f} days allowed")
    return seconds


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def _count(text: str) -> int:
    if not re.fullmatch(r"0*[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to 999999999")
    return int(text)


def share(text: str) -> float:
    """A share of 1, as ``10%`` or ``0.1``. Raises ``ArgumentTypeError``.

    >>> share("10%"), share("0.05")
    (0.1, 0.05)
    """
    number = text.removesuffix("%")
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", number):
        raise argparse.ArgumentTypeError(f"{text!r} is no share: write 10% or 0.1")
    value = float(number) / (100 if text.endswith("%") else 1)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0 and at most 100%")
    return value


def _switch(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off", ""):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _address(text: str) -> str:
    try:
        parse_listen(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


_PARSE: dict[Kind, Callable[[str], Any]] = {
    "text": str,
    "duration": duration,
    "number": _number,
    "count": _count,
    "share": share,
    "switch": _switch,
    "words": _words,
    "address": _address,
}


_OTHER_DESTINATIONS = {"recording": "source", "source": "reads"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One flag."""

    name: str
    kind: Kind
    commands: tuple[str, ...]
    help: str
    default: str | None = None
    """As it would be written on the command line."""
    defaults: Mapping[str, str] = field(default_factory=dict)
    """Where a command has another default."""
    helps: Mapping[str, str] = field(default_factory=dict)
    """Where it means something else to a command."""
    short: str | None = None
    also: str | None = None
    """A second name."""
    choices: tuple[str, ...] = ()
    metavar: str | None = None
    sources: tuple[SourceName, ...] = SOURCES
    """The values of ``--source`` that it is for, where a command has that flag."""

    @property
    def variable(self) -> str:
        """The environment variable."""
        return "PODTALLY_" + re.sub("[-.]", "_", self.name.upper())

    @property
    def destination(self) -> str:
        """The attribute of the arguments. ``recording`` is the positional of ``replay``, so the flag has another."""
        return _OTHER_DESTINATIONS.get(self.name) or re.sub("[-.]", "_", self.name)

    def default_of(self, command: str) -> str | None:
        """The default, as it would be written."""
        return self.defaults.get(command, self.default)

    def help_of(self, command: str) -> str:
        """The help, with the sources that the flag is for where the command has several."""
        text = self.helps.get(command, self.help)
        if self.sources == SOURCES or command not in _WITH_SOURCE:
            return text
        return f"{text}; with --source {' or '.join(self.sources)} only"


_NODE = ("serve", "record", "top", "verify", "doctor")
_WITH_SOURCE = ("serve", "replay", "doctor")
_CGROUP: tuple[SourceName, ...] = ("cgroup",)
_OF_A_NODE: tuple[SourceName, ...] = ("cgroup", "summary")
_UPSTREAM: tuple[SourceName, ...] = ("summary", "metrics-api")
_RUN = ("loadtest run",)
_ALL = ("serve", "replay", "record", "top", "verify", "doctor", "metrics", "loadtest run", "loadtest report")
_KUBELET_CA = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"

FLAGS: tuple[Flag, ...] = (
    Flag(
        name="source",
        kind="text",
        commands=_WITH_SOURCE,
        default="cgroup",
        choices=SOURCES,
        help="where the numbers come from: the node's cgroups; where hostPath is not allowed, the kubelet's"
        " /stats/summary, or the metrics API for the pods of a namespace",
    ),
    Flag(
        name="upstream-interval",
        kind="duration",
        commands=("serve",),
        default="10s",
        metavar="TIME",
        sources=_UPSTREAM,
        help="how often the source is asked; its samples are 10 to 20 s apart",
    ),
    Flag(
        name="stale-after",
        kind="duration",
        commands=("serve", "replay"),
        default="2m",
        metavar="TIME",
        sources=_UPSTREAM,
        help="how long what the source said last is served while it does not answer, and how old a sample may be",
    ),
    Flag(
        name="fill-from",
        kind="text",
        commands=("serve", "replay", "top", "verify", "doctor"),
        choices=FILLERS,
        metavar="SOURCE",
        sources=_CGROUP,
        help="where pods take their numbers from that cgroups tell nothing of (gVisor, Kata): summary, the kubelet's"
        " /stats/summary, asked only while there is such a pod; they stay without if not given",
    ),
    Flag(
        name="cgroup-root",
        kind="text",
        commands=_NODE,
        default="/sys/fs/cgroup",
        metavar="DIR",
        sources=_CGROUP,
        help="where the node's cgroup v2 file system is mounted",
    ),
    Flag(
        name="proc-root",
        kind="text",
        commands=_NODE,
        default="/proc",
        metavar="DIR",
        sources=_CGROUP,
        help="where /proc is mounted; read for the node's swap",
    ),
    Flag(
        name="kubepods",
        kind="text",
        commands=(*_NODE, "replay"),
        metavar="PATH",
        sources=_CGROUP,
        help="the cgroup that holds all pods, relative to the root; found by looking if not given",
    ),
    Flag(
        name="node-name",
        kind="text",
        commands=_NODE,
        metavar="NAME",
        sources=_OF_A_NODE,
        help="the node's name in Kubernetes; the host's name if not given",
    ),
    Flag(
        name="kubelet-url",
        kind="text",
        commands=_NODE,
        default="https://127.0.0.1:10250",
        metavar="URL",
        sources=_OF_A_NODE,
        help="the kubelet of this node",
    ),
    Flag(
        name="kubelet-ca-file",
        kind="text",
        commands=_NODE,
        metavar="FILE",
        help=f"CA certificates that the kubelet's and the API server's are verified by;"
        f" {_KUBELET_CA} where it is there, else the system's",
    ),
    Flag(
        name="kubelet-insecure-tls",
        kind="switch",
        commands=_NODE,
        default="false",
        sources=_OF_A_NODE,
        help="do not verify the kubelet's certificate: whoever answers at its address then gets the token",
    ),
    Flag(
        name="raw-answers",
        kind="switch",
        commands=("record",),
        default="false",
        help="record lists of pods as they come (16 MiB at the most): with environment, arguments and annotations",
    ),
    Flag(
        name="token-file",
        kind="text",
        commands=_NODE,
        metavar="FILE",
        help="bearer token for the kubelet and the API server, read anew for each question; the service account's"
        " where it is there, else none; top --url https://... sends it if the flag is given",
    ),
    Flag(
        name="apiserver-url",
        kind="text",
        commands=_NODE,
        metavar="URL",
        help="the API server, asked for the node's pods only while the kubelet does not answer, and for the metrics"
        " API; in a cluster it is known",
    ),
    Flag(
        name="pods-interval",
        kind="duration",
        commands=_NODE,
        default="30s",
        metavar="TIME",
        sources=_OF_A_NODE,
        help="how often the names are asked for, with --source summary at least as often as the source; a pod or"
        " container without a name is asked for at once",
    ),
    Flag(
        name="listen",
        kind="address",
        commands=("serve", "replay"),
        default=":9753",
        defaults={"replay": "127.0.0.1:9753"},
        metavar="[HOST]:PORT",
        help="where to serve HTTP",
    ),
    Flag(
        name="web.config.file",
        kind="text",
        commands=("serve", "replay"),
        metavar="FILE",
        help="TLS, passwords and headers of what is served, in the form of Prometheus' exporter-toolkit; read anew when"
        " it changes",
    ),
    Flag(
        name="authenticate",
        kind="switch",
        commands=("serve",),
        default="false",
        sources=_OF_A_NODE,
        help="let in, but for probes, only bearer tokens whose user may get nodes/metrics of this node, by TokenReview"
        " and SubjectAccessReview as the kubelet does",
    ),
    Flag(
        name="interval",
        kind="duration",
        commands=("serve", "record", "top", "verify"),
        default="1s",
        metavar="TIME",
        sources=_CGROUP,
        help="time from tick to tick",
    ),
    Flag(
        name="window",
        kind="duration",
        commands=("serve", "replay", "top"),
        default="15s",
        metavar="TIME",
        sources=_CGROUP,
        help="span that CPU rates are taken over; metrics-server's resolution is 15s",
    ),
    Flag(
        name="slow-every",
        kind="count",
        commands=("serve",),
        default="5",
        metavar="N",
        sources=_CGROUP,
        help="read the files that need not be read every tick every N ticks, and those that /metrics/cadvisor alone"
        " needs every third time, while somebody asks for it",
    ),
    Flag(
        name="verify-interval",
        kind="duration",
        commands=("serve",),
        sources=_CGROUP,
        metavar="TIME",
        help="compare with the kubelet's /metrics/resource so often, as 60s, and export how far the two are apart; not"
        " done if not given",
    ),
    Flag(
        name="linger",
        kind="duration",
        commands=("serve", "replay"),
        default="30s",
        metavar="TIME",
        sources=_CGROUP,
        help="how long OOM counters and the last readings of containers stay after what they are of has gone: longer"
        " than from scrape to scrape",
    ),
    Flag(
        name="collect",
        kind="words",
        commands=("serve", "replay"),
        default="default",
        metavar="GROUP,...",
        help="groups of metrics to export, as docs/metrics.md lists them; also default and all, and no-GROUP takes one"
        " away; files that no group needs are not read, or seldom while /metrics/cadvisor is asked for",
    ),
    Flag(
        name="no-containers",
        kind="switch",
        commands=("serve", "replay"),
        default="false",
        help="leave the pod_container_* families out",
    ),
    Flag(
        name="pod-labels",
        kind="words",
        commands=("serve", "replay"),
        default="",
        metavar="KEY,...",
        help="pod labels that pod_info carries as label_*",
    ),
    Flag(
        name="no-cadvisor",
        kind="switch",
        commands=("serve",),
        sources=_CGROUP,
        default="false",
        help="serve no /metrics/cadvisor, and never read the files that it alone needs",
    ),
    Flag(
        name="cadvisor-timestamps",
        kind="switch",
        commands=("serve", "replay"),
        sources=_CGROUP,
        default="false",
        help="give the samples of /metrics/cadvisor the times of their readings, as the kubelet does; without them"
        " Prometheus sees at the next scrape that a container has ended, with them after five minutes",
    ),
    Flag(
        name="speed",
        kind="number",
        commands=("replay",),
        default="1",
        metavar="N",
        help="serve the recording N times as fast as it was taken",
    ),
    Flag(
        name="loop",
        kind="switch",
        commands=("replay",),
        default="false",
        sources=_CGROUP,
        help="begin again after the last frame; counters go on over the seam",
    ),
    Flag(
        name="once",
        kind="switch",
        commands=("replay", "top"),
        default="false",
        help="print once and exit: for replay the exposition after the last frame, for top the table",
    ),
    Flag(
        name="path",
        kind="text",
        commands=("replay",),
        default="/metrics",
        choices=("/metrics", "/metrics/resource", "/metrics/cadvisor"),
        help="with --once: the exposition to print",
    ),
    Flag(
        name="openmetrics",
        kind="text",
        commands=("replay",),
        metavar="FILE",
        help="write every frame's samples with their times to FILE (- is stdout), for promtool tsdb"
        " create-blocks-from openmetrics",
    ),
    Flag(
        name="duration",
        kind="duration",
        commands=("record", "verify"),
        default="60s",
        defaults={"verify": "90s"},
        metavar="TIME",
        help="how long to record a node, or to compare at the most: verify ends when everything has been compared",
    ),
    Flag(
        name="recording",
        also="from",
        kind="text",
        commands=("record", "top", "verify", "doctor"),
        metavar="RECORDING",
        help="read this recording in place of the node",
    ),
    Flag(
        name="url",
        kind="text",
        commands=("top", "verify"),
        metavar="URL",
        help="read a running podtally, as http://127.0.0.1:9753, in place of the node; with"
        " https://USER:PASSWORD@HOST:PORT its certificate is verified by the system's CAs, or SSL_CERT_FILE's",
    ),
    Flag(
        name="kubeconfig",
        kind="text",
        commands=("verify", *_RUN),
        metavar="FILE",
        help="compare from elsewhere than the node: the API server of this kubeconfig leads to podtally's pods and to"
        " the kubelets; with --url to the latter alone",
        helps=dict.fromkeys(_RUN, "the kubeconfig that kubectl is to use; its own choice if not given"),
    ),
    Flag(
        name="context",
        kind="text",
        commands=("verify", *_RUN),
        metavar="NAME",
        help="context of --kubeconfig",
        helps=dict.fromkeys(_RUN, "the context that kubectl is to use"),
    ),
    Flag(
        name="jobs",
        kind="text",
        commands=_RUN,
        default="loadtest/jobs",
        metavar="DIR",
        help="the folder that has a kustomization for each profile",
    ),
    Flag(
        name="out",
        kind="text",
        commands=_RUN,
        metavar="DIR",
        help="where the report and all that it is made of go; loadtest-results/PROFILE-TIME if not given",
    ),
    Flag(
        name="target",
        kind="text",
        commands=_RUN,
        metavar="URL",
        help="the application, as a pod of the cluster reaches it; the Job's own if not given",
    ),
    Flag(
        name="scale",
        kind="number",
        commands=_RUN,
        metavar="N",
        help="times the profile's virtual users or rate, as 0.1 for a small cluster; the Job's own if not given",
    ),
    Flag(
        name="before",
        kind="duration",
        commands=_RUN,
        default="2m",
        metavar="TIME",
        help="how much of the time before the load is looked at; Prometheus has it already",
    ),
    Flag(
        name="after",
        kind="duration",
        commands=_RUN,
        default="2m",
        metavar="TIME",
        help="how much of the time after the load is waited for and looked at",
    ),
    Flag(
        name="start-timeout",
        kind="duration",
        commands=_RUN,
        default="5m",
        metavar="TIME",
        help="how long k6's pod may take to start",
    ),
    Flag(
        name="prometheus-service",
        kind="text",
        commands=_RUN,
        default="monitoring/prometheus:9090",
        metavar="NS/NAME:PORT",
        help="the Service of the Prometheus that scrapes podtally, asked through the API server's proxy",
    ),
    Flag(
        name="prometheus-url",
        kind="text",
        commands=_RUN,
        metavar="URL",
        help="ask Prometheus at this URL instead, as http://127.0.0.1:9090; https://USER:PASSWORD@HOST:PORT sends the"
        " password",
    ),
    Flag(
        name="tolerance",
        kind="share",
        commands=("verify",),
        default="10%",
        metavar="SHARE",
        help="values that differ by no more agree, and so do those within 1m or 1Mi",
    ),
    Flag(name="watch", kind="switch", commands=("verify",), default="false", help="go on, and show the table anew"),
    Flag(
        name="containers", kind="switch", commands=("top", "verify"), default="false", help="a line for each container"
    ),
    Flag(
        name="sort",
        kind="text",
        commands=("top",),
        default="name",
        choices=("name", "cpu", "memory"),
        help="order of the lines",
    ),
    Flag(
        name="namespace",
        short="n",
        kind="text",
        commands=("top", "verify", "serve", "doctor", *_RUN),
        metavar="NS",
        sources=("metrics-api",),
        defaults=dict.fromkeys(_RUN, "social-network"),
        help="pods of this namespace only",
        helps={
            **dict.fromkeys(
                ("serve", "doctor"),
                "pods of this namespace, or of several, separated by commas; podtally's own if not given",
            ),
            **dict.fromkeys(_RUN, "where the application is; several are separated by commas"),
        },
    ),
    Flag(
        name="all-namespaces",
        short="A",
        kind="switch",
        commands=("top", "verify", "serve", "doctor"),
        default="false",
        sources=("metrics-api",),
        help="pods of all namespaces, which is the default",
        helps=dict.fromkeys(
            ("serve", "doctor"), "pods of all namespaces, for which podtally's account needs a ClusterRole"
        ),
    ),
    Flag(name="no-headers", kind="switch", commands=("top",), default="false", help="leave the heads out"),
    Flag(
        name="json",
        kind="switch",
        commands=("verify", "metrics"),
        default="false",
        help="print JSON in place of text; verify an object a line",
    ),
    Flag(
        name="log-level",
        kind="text",
        commands=_ALL,
        default="info",
        # Commands that a person waits for say what they found on stdout; what doctor and verify would log stands in it.
        defaults={
            "record": "warning",
            "top": "warning",
            "verify": "error",
            "doctor": "error",
            "metrics": "warning",
            "loadtest report": "warning",
        },
        choices=("debug", "info", "warning", "error"),
        help="the least that is logged to stderr",
    ),
)

SUMMARIES: dict[str, str] = {
    "serve": "read this node and serve its pods' CPU and memory: the DaemonSet's command",
    "replay": "serve, print or convert a recording through the same code",
    "record": "make a recording of a node, or of another recording",
    "top": "pods of the node as kubectl top pods prints them, live",
    "verify": "compare with kubectl top and the kubelet over the same windows, and tell where differences come from",
    "doctor": "tell what is readable and reachable, and what to do about what is not",
    "metrics": "print the catalogue of metrics",
    "loadtest run": "run a profile's Job in the cluster, wait for it, and report on the load and what bore it",
    "loadtest report": "make the report of a run again from what was kept of it",
}

GROUPS: dict[str, str] = {"loadtest": "load tests of the cluster, and reports that join load with CPU and memory"}
"""The first words of commands that have two."""

POSITIONALS: dict[str, tuple[str, str]] = {
    "replay": ("recording", "a directory, .tar, .tar.gz or .tar.zst"),
    "loadtest run": ("profile", "the name of a folder in --jobs: load, stress, spike, soak, autoscale, latency"),
    "loadtest report": ("folder", "the folder of a run, as podtally loadtest run has told it"),
    "record": ("out", "a new directory, a name ending in .tar, .tar.gz or .tar.zst, or - for .tar.zst on stdout"),
}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, and where to read on; argparse's own prints the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {printable(message)}; {self.prog} --help tells what there is\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse what is unknown where it is met, so that the sentence names the command."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unknown {' '.join(unknown)}")
        return known, unknown


def flags_of(command: str) -> list[Flag]:
    """The flags that a command takes."""
    return [flag for flag in FLAGS if command in flag.commands]


def build_parser(version: str, width: int | None = None) -> argparse.ArgumentParser:
    """The parser. Defaults are left out of it: :func:`resolve` fills them in after the environment."""

    def formatter(prog: str) -> argparse.HelpFormatter:
        return argparse.HelpFormatter(prog, max_help_position=30, width=width)

    parser = _Parser(
        prog="podtally",
        description="Per-pod CPU and memory of a Kubernetes node, equal to kubectl top, from cgroup v2.",
        epilog="podtally COMMAND --help tells a command's flags. Each has an environment variable PODTALLY_<NAME>.",
        formatter_class=formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"podtally {version}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def added(to: Any, word: str, summary: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = to.add_parser(
            word,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            formatter_class=formatter,
            allow_abbrev=False,
        )
        return made

    groups: dict[str, Any] = {"": commands}
    for command, summary in SUMMARIES.items():
        group, _, word = command.rpartition(" ")
        if group not in groups:
            of_group = added(commands, group, GROUPS[group])
            groups[group] = of_group.add_subparsers(dest="command", metavar="COMMAND", required=True)
        sub = added(groups[group], word, summary)
        sub.set_defaults(command=command)
        if command in POSITIONALS:
            name, text = POSITIONALS[command]
            sub.add_argument(name, metavar=name.upper(), help=text)
        for flag in flags_of(command):
            _add(sub, flag, command)
    return parser


def _add(parser: argparse.ArgumentParser, flag: Flag, command: str) -> None:
    names = [f"--{flag.name}"]
    if flag.also:
        names.append(f"--{flag.also}")
    if flag.short:
        names.insert(0, f"-{flag.short}")
    default = flag.default_of(command)
    # argparse takes % for its own.
    text = flag.help_of(command).replace("%", "%%")
    if default and flag.kind != "switch":
        text += f" (default {default.replace('%', '%%')})"
    dest = flag.destination
    if flag.kind == "switch":
        parser.add_argument(*names, dest=dest, action="store_true", default=None, help=text)
    else:
        parser.add_argument(
            *names, dest=dest, type=_PARSE[flag.kind], choices=flag.choices or None, metavar=flag.metavar, help=text
        )


def resolve(arguments: argparse.Namespace, environment: Mapping[str, str]) -> argparse.Namespace:
    """Fill in from the environment, then from the defaults. Raises :class:`UsageError` for a bad variable."""
    given = [flag for flag in flags_of(arguments.command) if getattr(arguments, flag.destination) is not None]
    for flag in flags_of(arguments.command):
        dest = flag.destination
        if getattr(arguments, dest) is not None:
            continue
        text, where = environment.get(flag.variable), f"the environment variable {flag.variable}"
        if text is None:
            text, where = flag.default_of(arguments.command), "the default"
        if text is None:
            continue
        try:
            value = _PARSE[flag.kind](text)
        except argparse.ArgumentTypeError as error:
            raise UsageError(f"{where}: {error}") from error
        if flag.choices and value not in flag.choices:
            raise UsageError(f"{where}: {text!r} is none of {', '.join(flag.choices)}")
        setattr(arguments, dest, value)
    _check_source(arguments, given)
    _check(arguments)
    if arguments.command == "replay" and not arguments.once and any(flag.name == "path" for flag in given):
        raise UsageError(f"--path {arguments.path} is of use with --once only: give --once, or leave it out")
    return arguments


_SHORTEST_UPSTREAM_INTERVAL = 1.0
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def namespaces(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The namespaces of ``--namespace``. Raises :class:`UsageError` if one is none: it becomes part of a URL."""
    names = _words(arguments.namespace or "")
    for name in names:
        if not _NAMESPACE.fullmatch(name):
            raise UsageError(f"--namespace {name!r} is no name of a namespace")
    return tuple(dict.fromkeys(names))


def _check_source(arguments: argparse.Namespace, given: list[Flag]) -> None:
    """What goes with a source and what does not.

    A flag that is given for nothing is refused. A variable is not: it may be there for other commands in the same pod.
    """
    source = getattr(arguments, "reads", None)
    if source is None:
        return
    if source == "metrics-api" and getattr(arguments, "authenticate", False):
        raise UsageError(
            "--authenticate asks who may get nodes/metrics of this node, and --source metrics-api is of no node: leave"
            " it out, and let in by passwords in --web.config.file"
        )
    for flag in given:
        if source not in flag.sources:
            raise UsageError(
                f"--{flag.name} is of no use with --source {source}: leave it out, or choose --source"
                f" {' or '.join(flag.sources)}"
            )
    if source == "metrics-api" and arguments.command != "replay":
        if arguments.namespace and arguments.all_namespaces:
            raise UsageError(f"--namespace {arguments.namespace} and --all-namespaces contradict each other")
        namespaces(arguments)
    if source == "cgroup":
        if arguments.command == "replay" and arguments.loop and arguments.fill_from:
            raise UsageError(
                f"--loop moves the frames' times over its seam, --fill-from {arguments.fill_from} has samples with"
                " times of their own: leave one of them out"
            )
        return
    every = getattr(arguments, "upstream_interval", _SHORTEST_UPSTREAM_INTERVAL)
    if every < _SHORTEST_UPSTREAM_INTERVAL:
        raise UsageError(f"--upstream-interval {every:g}s is shorter than {_SHORTEST_UPSTREAM_INTERVAL:g}s")
    if arguments.command != "doctor" and arguments.stale_after < 2 * every:
        raise UsageError(
            f"--stale-after {arguments.stale_after:g}s is shorter than two of --upstream-interval {every:g}s, so that"
            f" one lost answer would empty the page: give --stale-after {2 * every:g}s or more"
        )
    if arguments.command == "replay" and arguments.loop:
        raise UsageError(f"--loop carries the cgroups' counters over its seam, --source {source} has none of them")
    path = getattr(arguments, "path", None)
    if source == "metrics-api" and path == "/metrics/resource":
        raise UsageError("--path /metrics/resource has cumulative counters, and --source metrics-api tells but rates")
    if path == "/metrics/cadvisor":
        raise UsageError(f"--path /metrics/cadvisor is of cgroup files, and --source {source} reads none")


_SHORTEST_INTERVAL = 0.05
_SHORTEST_PODS_INTERVAL = 1.0
_SHORTEST_VERIFY_INTERVAL = 30.0


def _check(arguments: argparse.Namespace) -> None:
    """What no flag alone can tell."""
    interval, window = getattr(arguments, "interval", None), getattr(arguments, "window", None)
    if interval is not None and interval < _SHORTEST_INTERVAL:
        raise UsageError(f"--interval {interval:g}s is shorter than {_SHORTEST_INTERVAL:g}s, the least that is of use")
    if window is not None and window <= 0:
        raise UsageError("--window must be longer than 0")
    if interval is not None and window is not None and window < 2 * interval:
        raise UsageError(
            f"--window {window:g}s is shorter than two of --interval {interval:g}s, so that no rate fits in it:"
            f" give --window {2 * interval:g}s or more, or a shorter --interval"
        )
    pods_interval = getattr(arguments, "pods_interval", None)
    if pods_interval is not None and pods_interval < _SHORTEST_PODS_INTERVAL:
        raise UsageError(f"--pods-interval {pods_interval:g}s is shorter than {_SHORTEST_PODS_INTERVAL:g}s")
    verify_interval = getattr(arguments, "verify_interval", None)
    if verify_interval is not None and verify_interval < _SHORTEST_VERIFY_INTERVAL:
        raise UsageError(
            f"--verify-interval {verify_interval:g}s is shorter than {_SHORTEST_VERIFY_INTERVAL:g}s: the kubelet itself"
            " looks every 10 to 30 s"
        )
    if getattr(arguments, "duration", 1) <= 0:
        raise UsageError("--duration must be longer than 0")
    if getattr(arguments, "speed", None) is not None and not 0 < arguments.speed <= 1000:
        raise UsageError(f"--speed {arguments.speed:g} is not above 0 and at most 1000")
    if arguments.command in ("top", "verify"):
        if arguments.namespace and arguments.all_namespaces:
            raise UsageError(f"--namespace {arguments.namespace} and --all-namespaces contradict each other")
        if arguments.source and arguments.url:
            raise UsageError(f"--recording {arguments.source} and --url {arguments.url}: choose one")
    if arguments.command == "verify":
        _check_verify(arguments)
    if arguments.command == "loadtest run":
        _check_loadtest(arguments)
    if arguments.command == "replay":
        if arguments.once and arguments.openmetrics:
            raise UsageError("--once and --openmetrics both print and exit: choose one")
        if arguments.loop and (arguments.once or arguments.openmetrics):
            raise UsageError("--loop never ends, so there is no last frame for --once or --openmetrics")


def _check_verify(arguments: argparse.Namespace) -> None:
    for name in ("kubeconfig", "watch"):
        if arguments.source and getattr(arguments, name):
            raise UsageError(f"--recording {arguments.source} holds all that is compared: take --{name} out")
    if arguments.url and not arguments.kubeconfig:
        raise UsageError(
            f"--url {arguments.url} is where podtally answers: give --kubeconfig FILE too, for what it is compared with"
        )
    if arguments.context and not arguments.kubeconfig:
        raise UsageError(f"--context {arguments.context} is of --kubeconfig FILE, which is not given")


_SHORTEST_SPAN_SECONDS = 30.0


def _check_loadtest(arguments: argparse.Namespace) -> None:
    if not namespaces(arguments):
        raise UsageError("--namespace is empty: name where the application is")
    for name in ("before", "after"):
        seconds = getattr(arguments, name)
        if seconds < _SHORTEST_SPAN_SECONDS:
            raise UsageError(
                f"--{name} {seconds:g}s is shorter than {_SHORTEST_SPAN_SECONDS:g}s: CPU is a mean over 15 s, of which"
                " a few are needed"
            )
    if arguments.scale is not None and not 0 < arguments.scale <= 1000:
        raise UsageError(f"--scale {arguments.scale:g} is not above 0 and at most 1000")
    if arguments.start_timeout <= 0:
        raise UsageError("--start-timeout must be longer than 0")
    if arguments.target is not None:
        try:
            web.without_userinfo(arguments.target)
        except ValueError:
            raise UsageError(f"--target {arguments.target!r} is no URL: give http://HOST:PORT") from None


def help_width() -> int | None:
    """The width of generated help: fixed where the environment says so, else the terminal's."""
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdigit() else None
