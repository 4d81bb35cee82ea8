"""The program ``podtally``: wiring only, and the one place where sources are chosen.

Exit 0: fine; 1: it found something; 2: bad usage, configuration or input. stdout is data, stderr is logs.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from collector import __version__, flags, logs, table
from collector.cgroup import paths
from collector.cgroup.carry import Carry
from collector.cgroup.files import EVERYTHING, Needs
from collector.cgroup.find import find_kubepods
from collector.cgroup.walk import Walker
from collector.demand import Demand
from collector.errors import PodtallyError, SourceError, UnsupportedNode, UsageError, why_not_written
from collector.flags import build_parser, help_width, resolve
from collector.garbage import spare_collections
from collector.history import LINGER_NS, History
from collector.loop import Collector, LivePace, Loop, Pace, ReplayPace, Ticking
from collector.metrics.account import Account
from collector.metrics.catalogue import groups_of
from collector.metrics.native import NativeExposition, Selection, needs
from collector.model import METRICS_API, RESOURCE_PAGE, STATS_SUMMARY, Answer, Tally
from collector.pods.naming import APISERVER, KUBELET
from collector.printable import paragraph, printable
from collector.seams import AnswerSource, Tree
from collector.server.app import Background, Server, is_loopback, serve
from collector.sources import descriptors, http
from collector.sources.live import LiveTree
from collector.table import Usage
from collector.terminal import progress

# What serve does not need is imported where it is used: recordings and their archives, the doctor, the table's sources,
# other sources than cgroups, and what guards access.
# Memory of a DaemonSet is paid for on every node.
if TYPE_CHECKING:
    from collector import top, verify
    from collector.loadtest.model import Report
    from collector.parity.verification import Verification
    from collector.server.access import Access
    from collector.server.reviews import Reviews
    from collector.server.watch import WatchedConfig
    from collector.server.webconfig import WebConfig
    from collector.sources.recording import RecordedTree, Recording
    from collector.sources.tee import RecordingWriter
    from collector.sources.upstream import LiveUpstream, OnDemand
    from collector.upstream.collect import Kind, UpstreamCollector

log = logging.getLogger("collector")

_ANSWER_WAIT_SECONDS = 12.0
"""How long a command that prints once waits for names: a little longer than one question may take."""


def main(argv: list[str] | None = None) -> int:
    """Run the program; its exit status."""
    parser = build_parser(__version__, help_width())
    arguments = parser.parse_args(argv)
    try:
        resolve(arguments, os.environ)
        logs.to_stderr(arguments.log_level)
        status: int = _COMMANDS[arguments.command](arguments)
        sys.stdout.flush()
        return status
    except PodtallyError as error:
        # What it says may be a kubelet's, a recording's or a server's words.
        sys.stderr.write(f"{paragraph(f'podtally {arguments.command}: {error}')}\n")
        return 2 if isinstance(error, UsageError) else 1
    except BrokenPipeError:
        # The reader of a pipe has had enough, as head has. A recording or a backfill is lost by that, a table is not.
        _silence_stdout()
        if arguments.command == "record" or getattr(arguments, "openmetrics", None):
            sys.stderr.write(f"podtally {arguments.command}: the reader of stdout has gone: what it has is not whole\n")
            return 1
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        sys.stderr.write(
            f"podtally {arguments.command}: cannot write: {error.strerror}; free some, or write elsewhere\n"
        )
        _silence_stdout()
        return 2
    except KeyboardInterrupt:
        return 130


def _silence_stdout() -> None:
    """Keep Python from complaining at exit of what it cannot write."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# --- sources --------------------------------------------------------------------------------------------------------


def _node_name(arguments: argparse.Namespace) -> str:
    return arguments.node_name or socket.gethostname()


def _live_tree(arguments: argparse.Namespace) -> LiveTree:
    return LiveTree(arguments.cgroup_root, arguments.proc_root)


def _if_there(path: str) -> str | None:
    return path if os.path.exists(path) else None


def _token_file(arguments: argparse.Namespace) -> str | None:
    return arguments.token_file or _if_there(f"{http.SERVICE_ACCOUNT}/token")


def _service_ca() -> str | None:
    return _if_there(f"{http.SERVICE_ACCOUNT}/ca.crt")


def _apiserver(arguments: argparse.Namespace) -> http.Endpoint | None:
    given = arguments.apiserver_url or http.in_cluster_url()
    if not given:
        return None
    url = http.base_url("--apiserver-url", given)
    return http.Endpoint(
        name="the API server",
        url=url,
        token_file=_token_file(arguments),
        # A CA of the kubelets' own says nothing of the API server, whose CA the service account brings.
        tls=http.client_tls(url, _service_ca() or arguments.kubelet_ca_file, insecure=False),
    )


_METRICS_API_PATH = "/apis/metrics.k8s.io/v1beta1/pods"
_PEER_PAGES = {
    RESOURCE_PAGE: "/metrics/resource",
    STATS_SUMMARY: "/stats/summary",
    "kubelet/metrics_cadvisor.txt": "/metrics/cadvisor",
}
"""What of the kubelet's is recorded to compare with, by the name of the answer."""


def _kubelet(arguments: argparse.Namespace) -> http.Endpoint:
    url = http.base_url("--kubelet-url", arguments.kubelet_url)
    return http.Endpoint(
        name="the kubelet",
        url=url,
        token_file=_token_file(arguments),
        tls=http.client_tls(url, arguments.kubelet_ca_file or _service_ca(), insecure=arguments.kubelet_insecure_tls),
    )


def _live_answers(
    arguments: argparse.Namespace,
    *,
    extras: Container[str] = (),
    extras_interval: float = 5.0,
    tell_refusals: bool = True,
    at_least_every: float | None = None,
    raw: bool = False,
) -> http.LiveAnswers:
    """``extras``: names of answers that are asked for besides the pods; ``raw``: lists of pods are not stripped."""
    kubelet = _kubelet(arguments)
    second = None
    apiserver = _apiserver(arguments)
    if apiserver is not None:
        second = http.Question(
            answer=APISERVER, endpoint=apiserver, path=http.node_pods_path(_node_name(arguments)), raw=raw
        )
    asked = [
        http.Question(answer=name, endpoint=kubelet, path=path) for name, path in _PEER_PAGES.items() if name in extras
    ]
    if apiserver is not None and METRICS_API in extras:
        asked.append(http.Question(answer=METRICS_API, endpoint=apiserver, path=_METRICS_API_PATH))
    return http.LiveAnswers(
        http.Question(answer=KUBELET, endpoint=kubelet, path="/pods", raw=raw),
        second,
        interval=min(arguments.pods_interval, at_least_every or arguments.pods_interval),
        extras=tuple(asked),
        extras_interval=extras_interval,
        tell_refusals=tell_refusals,
    )


def _own_namespace() -> str:
    try:
        with open(f"{http.SERVICE_ACCOUNT}/namespace", encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        raise UsageError(
            "--source metrics-api asks for the pods of a namespace, and there is no service account to tell podtally's"
            " own: give --namespace NS, or --all-namespaces"
        ) from None


def _namespaces(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The namespaces whose pods the metrics API is asked for; none for all, and for other sources."""
    if arguments.reads != "metrics-api" or arguments.all_namespaces:
        return ()
    return flags.namespaces(arguments) or (_own_namespace(),)


def _live_upstream(
    arguments: argparse.Namespace, kind: Kind, namespaces: tuple[str, ...], interval: float
) -> LiveUpstream:
    """Who asks for what ``kind`` is of."""
    from collector.sources import upstream as live
    from collector.upstream import collect

    if kind is collect.SUMMARY:
        question = http.Question(answer=kind.answer, endpoint=_kubelet(arguments), path=live.summary_path())
        names = _live_answers(arguments, at_least_every=interval)
        return live.LiveUpstream((question,), interval=interval, names=names)
    apiserver = _apiserver(arguments)
    if apiserver is None:
        raise UsageError("--source metrics-api asks the API server, and none is known: give --apiserver-url")

    def questions(namespace: str | None) -> Iterator[http.Question]:
        apart = namespace if len(namespaces) > 1 else None
        for name, path in ((APISERVER, live.pods_path(namespace)), (kind.answer, live.metrics_path(namespace))):
            yield http.Question(answer=collect.answer_name(name, apart), endpoint=apiserver, path=path)

    asked = tuple(question for namespace in namespaces or (None,) for question in questions(namespace))
    return live.LiveUpstream(asked, interval=interval)


_FILL_EVERY_SECONDS = 10.0
"""The kubelet samples a cgroup every 10 to 20 s: asked more often, it says the same."""


def _on_demand(arguments: argparse.Namespace, names: http.LiveAnswers) -> OnDemand | None:
    """Who asks besides for what pods are filled from; ``None`` without ``--fill-from``."""
    if arguments.fill_from is None:
        return None
    from collector.sources.upstream import OnDemand, summary_path

    question = http.Question(answer=STATS_SUMMARY, endpoint=_kubelet(arguments), path=summary_path())
    return OnDemand(names, question, interval=_FILL_EVERY_SECONDS)


def _filling(account: Account, want: Callable[[], None] = lambda: None) -> Callable[[Tally, Iterable[Answer]], Tally]:
    """What fills pods that cgroups tell nothing of."""
    from collector.upstream.fill import Filling

    return Filling(account, want).fill


def _load(path: str) -> Recording:
    from collector.sources.recording import load

    with progress("reading the recording") as bar:
        recording = load(path, bar)
    if recording.cut:
        log.warning("%s", recording.cut)
    return recording


def _collector(
    tree: Tree,
    answers: AnswerSource,
    *,
    node_name: str,
    window: float,
    interval_ns: int,
    linger_ns: int = LINGER_NS,
    slow_every: int = 1,
    needs: Needs = EVERYTHING,
    seldom_wanted: Callable[[int], bool] | None = None,
    kubepods: str | None = None,
    passes: Callable[[], int] | None = None,
) -> Collector:
    """``passes``: how often a recording that is looped has begun anew."""
    return Collector(
        walker=Walker(
            tree,
            slow_every=slow_every,
            kubepods=kubepods,
            needs=needs,
            seldom_wanted=seldom_wanted,
            passes=passes or (lambda: 0),
        ),
        answers=answers,
        history=History(window_ns=round(window * 1e9), interval_ns=interval_ns, linger_ns=linger_ns),
        node_name=node_name,
        adjust=Carry(passes).adjust if passes is not None else None,
    )


def _recorded(
    recording: Recording,
    *,
    window: float,
    linger_ns: int = LINGER_NS,
    loop: bool = False,
    kubepods: str | None = None,
    fill_from: str | None = None,
) -> tuple[RecordedTree, Collector]:
    from collector.sources.recording import RecordedAnswers, RecordedTree

    if fill_from is not None:
        _require_answer(recording, STATS_SUMMARY, f"--fill-from {fill_from}")
    tree = RecordedTree(recording, loop=loop)
    collector = _collector(
        tree,
        RecordedAnswers(tree),
        node_name=recording.meta.node,
        window=window,
        interval_ns=recording.interval_ns,
        linger_ns=linger_ns,
        kubepods=kubepods,
        passes=(lambda: tree.passes) if loop else None,
    )
    if fill_from is not None:
        collector.fill = _filling(collector.account)
    return tree, collector


def _require_answer(recording: Recording, name: str, flag: str) -> None:
    """Raises :class:`UsageError` if no frame has an answer of that name, which ``flag`` is about."""
    if not any(one.name == name for frame in recording.frames for one in frame.answers):
        raise UsageError(
            f"{recording.path} has no {name}, which {flag} is made of: record it with an account that may read it, as"
            " the overlay verify gives it"
        )


class _Waited(Protocol):
    def wait(self, timeout: float) -> bool:
        """True once it has happened."""


class _Asks(Protocol):
    """Who asks peers."""

    @property
    def first_round(self) -> _Waited:
        """Over once all have been asked."""

    async def run(self) -> None:
        """Ask for ever."""


Asker = TypeVar("Asker", bound=_Asks)


class _Asking(Generic[Asker]):
    """Runs one who asks in a thread of its own while a command that serves nothing is at work."""

    def __init__(self, answers: Asker) -> None:
        self._answers: Asker = answers
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)

    def _run(self) -> None:
        self._task = self._loop.create_task(self._answers.run())
        try:
            with suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._task)
        finally:
            self._loop.close()

    def __enter__(self) -> Asker:
        self._thread.start()
        self._answers.first_round.wait(_ANSWER_WAIT_SECONDS)
        return self._answers

    def __exit__(self, *exc: object) -> None:
        with suppress(RuntimeError):  # it has ended by itself and closed its event loop
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(1.0)


# --- who is let in ---------------------------------------------------------------------------------------------------


def _web_config(arguments: argparse.Namespace, *, authenticate: bool = False) -> WatchedConfig | None:
    """The file of ``--web.config.file``, if there is one; it may not ask for passwords beside tokens."""
    path = arguments.web_config_file
    if not path:
        return None
    from collector.server.watch import WatchedConfig

    def check(config: WebConfig) -> None:
        if authenticate and config.users:
            raise UsageError(
                f"{path}: basic_auth_users and --authenticate contradict each other, as a request has but one"
                " Authorization header: take one out"
            )

    config = WatchedConfig(path, check)
    if config.now().config.users and config.now().context is None and not is_loopback(arguments.listen):
        log.warning("passwords come in over plain HTTP, for all on the way to read: add tls_server_config to %s", path)
    return config


def _reviews(arguments: argparse.Namespace, config: WatchedConfig | None) -> Reviews | None:
    """What ``--authenticate`` asks for. Raises :class:`UsageError` where it would make tokens known."""
    if not arguments.authenticate:
        return None
    from collector.server.reviews import Reviews

    if (config is None or config.now().context is None) and not is_loopback(arguments.listen):
        raise UsageError(
            "--authenticate over plain HTTP would have tokens sent in the clear: give --web.config.file with a"
            " tls_server_config, or --listen 127.0.0.1:PORT"
        )
    apiserver = _apiserver(arguments)
    if apiserver is None:
        raise UsageError(
            "--authenticate asks the API server who a token is of, and none is known: give --apiserver-url"
        )
    if not apiserver.url.startswith("https:") and not http.is_loopback_url(apiserver.url):
        raise UsageError(
            f"--authenticate would send callers' tokens to {apiserver.url} in the clear: give an https: URL"
        )
    return Reviews(http.LiveReviewer(apiserver), _node_name(arguments))


# --- commands -------------------------------------------------------------------------------------------------------


def _selection(arguments: argparse.Namespace) -> Selection:
    return Selection(
        containers=not arguments.no_containers, groups=groups_of(arguments.collect), pod_labels=arguments.pod_labels
    )


def _linger_ns(arguments: argparse.Namespace) -> int:
    linger_ns: int = round(arguments.linger * 1e9)
    return linger_ns


def _server(
    arguments: argparse.Namespace,
    selection: Selection,
    loop: Loop,
    access: Access | None = None,
    demand: Demand | None = None,
) -> Server:
    most = descriptors.shares(descriptors.raise_limit()).clients
    return Server(
        loop, selection, access, demand, cadvisor_timestamps=arguments.cadvisor_timestamps, most_connections=most
    )


def _run_server(
    arguments: argparse.Namespace,
    selection: Selection,
    collector: Ticking,
    pace: Pace,
    background: Background | None,
    what: str,
    config: WatchedConfig | None,
    reviews: Reviews | None = None,
    demand: Demand | None = None,
) -> int:
    loop = Loop(collector, pace)
    access = None
    if config is not None or reviews is not None:
        from collector.server.access import Access

        access = Access(config, reviews, collector.account)
    server = _server(arguments, selection, loop, access, demand)
    loop.first_tick()

    def ready(port: int) -> None:
        loop.start()
        host = arguments.listen.rpartition(":")[0]
        shown = "127.0.0.1" if host.strip("[0.:]") == "" else host
        log.info("%s: look at %s://%s:%d/", what, "http" if server.tls is None else "https", shown, port)

    try:
        asyncio.run(serve(server, arguments.listen, background, ready))
    finally:
        loop.stop()
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    selection = replace(_selection(arguments), cadvisor=not arguments.no_cadvisor)
    config = _web_config(arguments, authenticate=arguments.authenticate)
    reviews = _reviews(arguments, config)
    if arguments.reads != "cgroup":
        return _serve_upstream(arguments, selection, config, reviews)
    tree = _live_tree(arguments)
    compares = arguments.verify_interval is not None
    answers = _live_answers(
        arguments, extras=(RESOURCE_PAGE,) if compares else (), extras_interval=arguments.verify_interval or 0.0
    )
    on_demand = _on_demand(arguments, answers)
    demand = Demand()
    collector = _collector(
        tree,
        on_demand or answers,
        node_name=_node_name(arguments),
        window=arguments.window,
        interval_ns=round(arguments.interval * 1e9),
        linger_ns=_linger_ns(arguments),
        slow_every=arguments.slow_every,
        needs=needs(selection.groups, for_cadvisor=selection.cadvisor),
        seldom_wanted=demand.at,
        kubepods=arguments.kubepods,
    )
    if on_demand is not None:
        collector.fill = _filling(collector.account, on_demand.want)
    account = collector.account
    if compares:
        from collector.parity.agreement import Agreement

        agreement = Agreement(arguments.verify_interval)
        collector.observe = agreement.observe
        account.agreement = agreement.now
    spare_collections()
    account.descriptors_held = lambda: tree.held
    account.descriptors_limit = lambda: tree.descriptor_limit
    account.opened_reads = lambda: tree.opened_for_one_read
    what = f"reading {arguments.cgroup_root}"
    tree.follow()
    pace = LivePace(arguments.interval, tree.rest)
    background = (on_demand or answers).run
    return _run_server(arguments, selection, collector, pace, background, what, config, reviews, demand)


_UPSTREAM_TICK_SECONDS = 1.0
"""How soon an answer of an upstream is served, and how often ages are told anew."""


def _serve_upstream(
    arguments: argparse.Namespace, selection: Selection, config: WatchedConfig | None, reviews: Reviews | None
) -> int:
    from collector.sources.upstream import LiveClock
    from collector.upstream import collect

    kind, namespaces = collect.KINDS[arguments.reads], _namespaces(arguments)
    answers = _live_upstream(arguments, kind, namespaces, arguments.upstream_interval)
    collector = collect.UpstreamCollector(
        kind,
        clock=LiveClock(),
        answers=answers,
        stale_after_ns=round(arguments.stale_after * 1e9),
        node_name=_node_name(arguments) if kind is collect.SUMMARY else "",
        namespaces=namespaces,
    )
    spare_collections()
    what = f"asking {kind.peer} every {arguments.upstream_interval:g} s"
    if kind is collect.METRICS_API:
        what += f" for the pods of {', '.join(namespaces) or 'all namespaces'}"
    pace = LivePace(_UPSTREAM_TICK_SECONDS)
    return _run_server(arguments, selection, collector, pace, answers.run, what, config, reviews)


def _replayed_upstream(
    recording: Recording, source: str, *, stale_after: float
) -> tuple[RecordedTree, UpstreamCollector]:
    from collector.sources.recording import RecordedAnswers, RecordedTree
    from collector.upstream import collect

    kind = collect.KINDS[source]
    _require_answer(recording, kind.answer, f"--source {kind.source}")
    tree = RecordedTree(recording)
    collector = collect.UpstreamCollector(
        kind,
        clock=tree,
        answers=RecordedAnswers(tree),
        stale_after_ns=round(stale_after * 1e9),
        node_name=recording.meta.node if kind is collect.SUMMARY else "",
    )
    return tree, collector


def _replay(arguments: argparse.Namespace) -> int:
    selection = _selection(arguments)
    config = None if arguments.once or arguments.openmetrics else _web_config(arguments)
    recording = _load(arguments.recording)
    collector: Ticking
    if arguments.reads == "cgroup":
        tree, collector = _recorded(
            recording,
            window=arguments.window,
            linger_ns=_linger_ns(arguments),
            loop=arguments.loop,
            kubepods=arguments.kubepods,
            fill_from=arguments.fill_from,
        )
    else:
        tree, collector = _replayed_upstream(recording, arguments.reads, stale_after=arguments.stale_after)
    if arguments.openmetrics:
        return _backfill(arguments, selection, collector, len(recording.frames))
    pace = ReplayPace(tree.gap_ns, recording.interval_ns, arguments.speed)
    if arguments.once:
        loop = Loop(collector, pace)
        loop.run_through()
        server = _server(arguments, selection, loop)
        texts = {
            "/metrics": server.metrics_text,
            "/metrics/resource": server.resource_text,
            "/metrics/cadvisor": server.cadvisor_text,
        }
        sys.stdout.write(texts[arguments.path](openmetrics=False))
        return 0
    return _run_server(arguments, selection, collector, pace, None, f"replaying {arguments.recording}", config)


def _backfill(arguments: argparse.Namespace, selection: Selection, collector: Ticking, frames: int) -> int:
    from collector import backfill

    exposition = NativeExposition(selection)
    with progress("tallying frames") as bar:

        def told() -> Iterator[Tally]:
            for number, one in enumerate(collector.tallies(), 1):
                bar(number, frames)
                yield one

        if arguments.openmetrics == "-":
            count = backfill.write(told(), exposition, sys.stdout)
        else:
            try:
                with open(arguments.openmetrics, "w", encoding="utf-8") as out:
                    count = backfill.write(told(), exposition, out)
            except OSError as error:
                raise UsageError(f"cannot write {arguments.openmetrics}: {why_not_written(error)}") from error
    log.info("%d samples of %d frames", count, frames)
    return 0


def _record(arguments: argparse.Namespace) -> int:
    from collector.sources.recording import RecordedAnswers, RecordedTree
    from collector.sources.tee import RecordingWriter, TeeAnswers, TeeTree

    out = arguments.out
    if out == "-" and sys.stdout.isatty():
        raise UsageError("a recording on stdout is binary: redirect it to a file")
    if arguments.raw_answers:
        log.warning(
            "--raw-answers: the recording will hold the environment, arguments and annotations of every pod, and what"
            " passwords are in them: mind who gets it"
        )
    if arguments.source:
        recording = _load(arguments.source)
        inner = RecordedTree(recording)
        stop = _stop_on_signals(signal.SIGHUP)
        with RecordingWriter(out, recording.meta, sys.stdout.buffer) as writer:
            tee = TeeTree(inner, writer)
            collector = _collector(
                tee,
                TeeAnswers(RecordedAnswers(inner), tee, raw=arguments.raw_answers),
                node_name=recording.meta.node,
                window=15.0,
                interval_ns=recording.interval_ns,
                kubepods=arguments.kubepods,
            )
            with progress("recording") as bar:
                for number, _ in enumerate(collector.tallies(), 1):
                    bar(number, len(recording.frames))
                    if stop.is_set():
                        break
            tee.flush()
        return _recorded_so_far(writer, stop)
    return _record_live(arguments)


def _record_live(arguments: argparse.Namespace) -> int:
    from collector.sources.tee import RecordingWriter, TeeAnswers, TeeTree, live_meta

    tree = _live_tree(arguments)
    tops = [arguments.kubepods.strip("/")] if arguments.kubepods else find_kubepods(tree).tops
    driver = paths.driver(tops[0]) if tops else ""
    meta = live_meta(_node_name(arguments), driver, f"podtally record {arguments.duration:g}s")
    answers = _live_answers(
        arguments, extras=(*_PEER_PAGES, METRICS_API), tell_refusals=False, raw=arguments.raw_answers
    )
    stop = _stop_on_signals(signal.SIGHUP)
    with RecordingWriter(arguments.out, meta, sys.stdout.buffer) as writer, _Asking(answers):
        tee = TeeTree(tree, writer)
        collector = _collector(
            tee,
            TeeAnswers(answers, tee, raw=arguments.raw_answers),
            node_name=meta.node,
            window=15.0,
            interval_ns=round(arguments.interval * 1e9),
            kubepods=arguments.kubepods,
        )
        tree.follow()
        pace = LivePace(arguments.interval, tree.rest)
        end = time.monotonic() + arguments.duration
        with progress("recording") as bar:
            while not stop.is_set() and time.monotonic() < end:
                pace.next_tick(stop)
                if not stop.is_set():
                    collector.tick()
                    bar(arguments.duration - max(0.0, end - time.monotonic()), arguments.duration)
        tee.flush()
        collector.close()
    if answers.refused:
        log.warning("left out, as they were not answered: %s", ", ".join(answers.refused))
    return _recorded_so_far(writer, stop)


def _recorded_so_far(writer: RecordingWriter, stop: Stop) -> int:
    """Say what a recording holds that is ended. The exit status: ended by a signal it is as good as any."""
    if not writer.frames:
        log.warning("stopped%s before the first frame: nothing is recorded", stop.why)
        return 1
    log.log(logging.WARNING if stop.is_set() else logging.INFO, "stopped%s: %s", stop.why, writer.told())
    return 0


class Stop(threading.Event):
    """Set when the program is asked to end."""

    why = ""
    """By which signal."""

    def on(self, number: signal.Signals) -> None:
        """Be set by a signal."""
        signal.signal(number, self._asked)

    def _asked(self, number: int, _: object) -> None:
        self.why = f" by {signal.Signals(number).name}"
        self.set()


def _stop_on_signals(*more: signal.Signals) -> Stop:
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        stop.on(number)
    for number in more:
        # nohup, and who else starts what is to go on without it, has it ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            stop.on(number)
    return stop


def _top(arguments: argparse.Namespace) -> int:
    from collector import top

    view = top.View(
        containers=arguments.containers,
        sort=arguments.sort,
        namespace=arguments.namespace,
        headers=not arguments.no_headers,
    )
    if arguments.url:
        rows = top.from_url(arguments.url, containers=view.containers, token_file=arguments.token_file)
        if arguments.once:
            return top.show_once(view, rows() or [])
        return top.show_live(view, rows, _stop_on_signals(), arguments.interval)
    if arguments.source:
        recording = _load(arguments.source)
        tree, collector = _recorded(
            recording, window=arguments.window, kubepods=arguments.kubepods, fill_from=arguments.fill_from
        )
        if arguments.once:
            tallies = deque(collector.tallies(), maxlen=1)
            if not tallies:
                raise UsageError(f"{arguments.source} has no frame that can be tallied; podtally doctor tells more")
            last = tallies.pop()
            if not last.names.known:
                raise UsageError(
                    f"{arguments.source} names no pods: it has neither kubelet/pods.json nor apiserver/pods.json, "
                    "or they are refusals; podtally doctor tells more"
                )
            return top.show_once(view, table.usages(last, containers=view.containers))
        pace: Pace = ReplayPace(tree.gap_ns, recording.interval_ns, 1.0)
        return _top_live(arguments, view, Loop(collector, pace))
    answers = _live_answers(arguments)
    on_demand = _on_demand(arguments, answers)
    with _Asking(on_demand or answers):
        collector = _collector(
            _live_tree(arguments),
            on_demand or answers,
            node_name=_node_name(arguments),
            window=arguments.window,
            interval_ns=round(arguments.interval * 1e9),
            slow_every=1_000_000,
            needs=Needs(pods=frozenset(), containers=frozenset()),
            kubepods=arguments.kubepods,
        )
        if on_demand is not None:
            collector.fill = _filling(collector.account, on_demand.want)
        return _top_live(arguments, view, Loop(collector, LivePace(arguments.interval)))


_ONCE_WAIT_SECONDS = 6.0
"""``top --once`` on a node: a container older than the window has a rate after 5 s."""


def _top_live(arguments: argparse.Namespace, view: top.View, loop: Loop) -> int:
    from collector import top

    stop = _stop_on_signals()
    loop.first_tick()
    loop.start()

    def rows() -> list[Usage] | None:
        published = loop.published
        return table.usages(published.tally, containers=view.containers) if published is not None else None

    try:
        if not arguments.once:
            return top.show_live(view, rows, stop, arguments.interval)
        with progress("taking rates") as bar:
            begun = time.monotonic()
            wait = max(_ONCE_WAIT_SECONDS, arguments.interval + 1)
            while not stop.is_set() and (passed := time.monotonic() - begun) < wait:
                bar(passed, wait)
                stop.wait(0.2)
        if loop.published is not None and not loop.published.tally.names.known:
            names = loop.published.tally.names
            raise UsageError(f"the pods have no names: the kubelet: {names.kubelet}; podtally doctor tells more")
        return top.show_once(view, rows() or [])
    finally:
        loop.stop()


def _verify(arguments: argparse.Namespace) -> int:
    from collector import verify
    from collector.parity import report
    from collector.parity.verification import Verification

    verification = Verification(arguments.tolerance, verify.KEEP_SECONDS if arguments.watch else None)
    view = verify.View(
        namespace=arguments.namespace,
        containers=arguments.containers,
        json=arguments.json,
        steps=report.KUBECONFIG_STEPS if arguments.kubeconfig else report.STEPS,
    )
    if arguments.source:
        recording = _load(arguments.source)
        tree, collector = _recorded(recording, window=15.0, kubepods=arguments.kubepods, fill_from=arguments.fill_from)
        with progress("comparing") as bar:
            for number, tally in enumerate(collector.tallies(), 1):
                verification.add_tally(tally)
                for answer in tree.frame.answers:
                    verification.add_answer(answer)
                bar(number, len(recording.frames))
        if not verification.answered and not verification.refusals:
            raise UsageError(
                f"{arguments.source} holds no answer of the metrics API or the kubelet to compare with: record one with"
                " the rights that daemonset/overlays/verify gives"
            )
        return verify.show(verification, view)
    if arguments.kubeconfig:
        return _verify_by_kubeconfig(arguments, verification, view)
    return _verify_node(arguments, verification, view)


def _verify_live(arguments: argparse.Namespace, live: verify.Live, view: verify.View) -> int:
    from collector import verify

    if arguments.watch:
        return verify.watch(live, view, max(arguments.interval, _WATCH_SECONDS))
    return verify.run_for(live, view, arguments.duration)


_WATCH_SECONDS = 5.0


def _verify_node(arguments: argparse.Namespace, verification: Verification, view: verify.View) -> int:
    from collector import verify
    from collector.parity.readings import LEFT_FIELDS
    from collector.parity.verification import ANSWERS

    try:
        tree = _live_tree(arguments)
    except UnsupportedNode as error:
        raise UnsupportedNode(f"{error}; from elsewhere than the node: --kubeconfig FILE") from error
    answers = _live_answers(arguments, extras=ANSWERS)
    stop = _stop_on_signals()
    with _Asking(answers):
        tap = verify.Tap(answers)
        collector = _collector(
            tree,
            tap,
            node_name=_node_name(arguments),
            window=15.0,
            interval_ns=round(arguments.interval * 1e9),
            slow_every=5,
            needs=Needs(pods=frozenset(LEFT_FIELDS), containers=frozenset(LEFT_FIELDS)),
            kubepods=arguments.kubepods,
        )
        if arguments.fill_from is not None:
            # What pods are filled from is asked for in any case, to compare with.
            collector.fill = _filling(collector.account)
        pace = LivePace(arguments.interval)

        def advance() -> None:
            pace.next_tick(stop)
            if stop.is_set():
                return
            try:
                verification.add_tally(collector.tick())
            except SourceError as error:
                log.warning("a tick failed, the next may not: %s", error)
            for answer in tap.taken:
                verification.add_answer(answer)

        if _apiserver(arguments) is None:
            missing = "no API server is known: give --apiserver-url"
            verification.add_answer(Answer(METRICS_API, time.time_ns(), None, missing, None))
        try:
            return _verify_live(arguments, verify.Live(verification, advance, stop), view)
        finally:
            collector.close()


_OURS_EVERY_SECONDS = 1.0
_THEIRS_EVERY_SECONDS = 5.0
_MOST_NODES = 10
"""More are not asked once a second through the API server unless one is named."""


def _check_kubeconfig(path: str | None) -> None:
    """Refuse a name of nothing: kubectl and its client's library would go on without, and fail at something else."""
    names = [os.path.expanduser(one) for one in (path or "").split(os.pathsep)]
    if path and not any(os.path.exists(one) and not os.path.isdir(one) for one in names):
        raise UsageError(
            f"--kubeconfig {path}: there is no such file: give the one that kubectl reads, as ~/.kube/config"
        )


def _verify_by_kubeconfig(arguments: argparse.Namespace, verification: Verification, view: verify.View) -> int:
    from collector import top, verify
    from collector.sources import kubeconfig

    _check_kubeconfig(arguments.kubeconfig)
    cluster = kubeconfig.Cluster(arguments.kubeconfig, arguments.context)
    placed = [one for one in cluster.podtally() if arguments.node_name in (None, one.node)]
    if not placed:
        raise UsageError(f"podtally has no running pod on the node {arguments.node_name}")
    if (len(placed) > 1 and arguments.url) or len(placed) > _MOST_NODES:
        raise UsageError(f"podtally runs on {len(placed)} nodes: name one with --node-name, as {placed[0].node}")
    asked = [kubeconfig.Asked(answer=METRICS_API, path=_METRICS_API_PATH, every_seconds=_THEIRS_EVERY_SECONDS)]
    for one in placed:
        if not arguments.url:
            asked += [
                kubeconfig.Asked(answer=kubeconfig.OUR_PODS, path=one.pods_path, every_seconds=_THEIRS_EVERY_SECONDS),
                kubeconfig.Asked(answer=kubeconfig.OUR_PAGE, path=one.proxy_path, every_seconds=_OURS_EVERY_SECONDS),
            ]
        asked += [
            kubeconfig.Asked(
                answer=name,
                path=kubeconfig.node_path(one.node, _PEER_PAGES[name]),
                every_seconds=_THEIRS_EVERY_SECONDS,
            )
            for name in (RESOURCE_PAGE, STATS_SUMMARY)
        ]
    page = pods = None
    if arguments.url:
        page = top.page_of_url(arguments.url, "/metrics/resource", token_file=arguments.token_file)
        pods = top.page_of_url(arguments.url, "/api/v1/pods", token_file=arguments.token_file)
    stop = _stop_on_signals()
    with kubeconfig.Polling(cluster, asked).running() as polling:

        def advance() -> None:
            stop.wait(_OURS_EVERY_SECONDS)
            if page is not None and pods is not None and not stop.is_set():
                verification.add_our_pods(pods.get())
                verification.add_our_page(page.get())
            for answer in polling.take():
                if answer.name == kubeconfig.OUR_PODS:
                    verification.add_our_pods((answer.body or b"").decode(errors="replace"))
                elif answer.name != kubeconfig.OUR_PAGE:
                    verification.add_answer(answer)
                elif answer.body is not None:
                    verification.add_our_page(answer.body.decode(errors="replace"))
                elif answer.status in (401, 403):
                    raise UsageError(
                        f"podtally's page is refused: {answer.error}\n  -> get on pods/proxy, or: kubectl -n podtally"
                        " port-forward daemonset/podtally 9753 and --url http://127.0.0.1:9753"
                    )
                else:
                    status = f"HTTP {answer.status}: " if answer.status is not None else ""
                    verification.our_failure = f"{status}{answer.error}"

        return _verify_live(arguments, verify.Live(verification, advance, stop), view)


def _doctor(arguments: argparse.Namespace) -> int:
    from collector import doctor
    from collector.sources.recording import RecordedAnswers, RecordedTree

    if arguments.reads != "cgroup":
        text, faults = doctor.render(doctor.examine_upstream(*_upstream_once(arguments)))
        sys.stdout.write(text)
        return 1 if faults else 0
    answers: list[Answer] = []
    try:
        if arguments.source:
            recording = _load(arguments.source)
            answers, limit = recording.frames[0].answers, None
            tree = RecordedTree(recording)
            looks = doctor.Looks(tree, RecordedAnswers(tree), kubepods=arguments.kubepods)
            if arguments.fill_from is not None:
                _require_answer(recording, STATS_SUMMARY, f"--fill-from {arguments.fill_from}")
                looks.collector.fill = _filling(looks.collector.account)
            while looks.look():
                pass
        else:
            live = _live_answers(arguments)
            on_demand = _on_demand(arguments, live)
            source = on_demand or live
            with _Asking(source):
                try:
                    live_tree = _live_tree(arguments)
                except UnsupportedNode:
                    answers = live.take()
                    raise
                limit = live_tree.descriptor_limit
                looks = doctor.Looks(live_tree, source, kubepods=arguments.kubepods)
                if on_demand is not None:
                    looks.collector.fill = _filling(looks.collector.account, on_demand.want)
                looks.look()
                for seconds in () if looks.settled else _DOCTOR_LOOKS_AGAIN_SECONDS:
                    time.sleep(seconds)
                    if not looks.look() or looks.settled:
                        break
        findings = doctor.examine(looks, descriptor_limit=limit)
    except UnsupportedNode as error:
        findings = doctor.unsupported(error, answers)
    text, faults = doctor.render(findings)
    sys.stdout.write(text)
    return 1 if faults else 0


_DOCTOR_LOOKS_AGAIN_SECONDS = (1.5, 2.0, 3.0)
"""A container that starts has its name within some seconds; what is withheld then is."""
_DOCTOR_STALE_SECONDS = 120.0


def _upstream_once(arguments: argparse.Namespace) -> tuple[Tally, list[Answer]]:
    """What an upstream says now, or said last in a recording, and in which answers."""
    from collector import verify
    from collector.sources.upstream import LiveClock
    from collector.upstream import collect

    if arguments.source:
        recording = _load(arguments.source)
        _, recorded = _replayed_upstream(recording, arguments.reads, stale_after=_DOCTOR_STALE_SECONDS)
        answers = [answer for frame in recording.frames for answer in frame.answers]
        return deque(recorded.tallies(), maxlen=1).pop(), answers
    kind, namespaces = collect.KINDS[arguments.reads], _namespaces(arguments)
    with _Asking(_live_upstream(arguments, kind, namespaces, _DOCTOR_STALE_SECONDS)) as asked:
        tap = verify.Tap(asked)
        tally = collect.UpstreamCollector(
            kind,
            clock=LiveClock(),
            answers=tap,
            stale_after_ns=round(_DOCTOR_STALE_SECONDS * 1e9),
            node_name="",
            namespaces=namespaces,
        ).tick()
        return tally, tap.taken


def _metrics(arguments: argparse.Namespace) -> int:
    from collector.metrics import docs

    sys.stdout.write(docs.as_json() if arguments.json else docs.as_markdown())
    return 0


def _loadtest_run(arguments: argparse.Namespace) -> int:
    from datetime import datetime, timezone

    from collector.loadtest import job, run
    from collector.loadtest.kubectl import Kubectl
    from collector.loadtest.prometheus import OverHttp, Prometheus, ThroughKubectl

    profile = arguments.profile
    folder = os.path.join(arguments.jobs, profile)
    if not os.path.isfile(os.path.join(folder, "kustomization.yaml")):
        raise UsageError(_no_such_profile(arguments.jobs, profile))
    testid = job.testid(profile, datetime.now(timezone.utc).strftime("%Y%m%dt%H%M%Sz"))
    told = {"TARGET": arguments.target, "SCALE": None if arguments.scale is None else f"{arguments.scale:g}"}
    out = arguments.out or os.path.join("loadtest-results", testid)
    plan = run.Plan(
        profile=profile,
        folder=folder,
        out=out,
        testid=testid,
        namespaces=flags.namespaces(arguments),
        before_seconds=arguments.before,
        after_seconds=arguments.after,
        start_seconds=arguments.start_timeout,
        told={name: value for name, value in told.items() if value},
    )
    _check_kubeconfig(arguments.kubeconfig)
    kubectl = Kubectl(kubeconfig=arguments.kubeconfig, context=arguments.context)
    prometheus: Prometheus = (
        OverHttp(arguments.prometheus_url)
        if arguments.prometheus_url
        else ThroughKubectl(kubectl, arguments.prometheus_service)
    )
    # A pipeline that is cancelled leaves no load behind either.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return _tell_report(run.run(plan, kubectl, prometheus), out)


def _no_such_profile(jobs: str, profile: str) -> str:
    try:
        there = sorted(
            one.name
            for one in os.scandir(jobs)
            if one.name != "base" and os.path.isfile(os.path.join(one.path, "kustomization.yaml"))
        )
    except OSError:
        there = []
    if not there:
        return f"{jobs} has no profiles: run this in podtally's repository, or give --jobs DIR"
    return f"{jobs} has no profile {profile}: there are {', '.join(there)}"


def _loadtest_report(arguments: argparse.Namespace) -> int:
    from collector.loadtest.folder import Folder

    return _tell_report(Folder(arguments.folder).report(), arguments.folder)


def _tell_report(report: Report, folder: str) -> int:
    """Print the verdict, and where all of it is; the exit status."""
    from collector.loadtest import telling
    from collector.loadtest.folder import HTML

    told = (*telling.brief(report), "", f"  {os.path.join(folder, HTML)}")
    sys.stdout.writelines(f"{printable(line)}\n" for line in told)
    return telling.EXIT[report.outcome]


_COMMANDS = {
    "serve": _serve,
    "replay": _replay,
    "record": _record,
    "top": _top,
    "verify": _verify,
    "doctor": _doctor,
    "metrics": _metrics,
    "loadtest run": _loadtest_run,
    "loadtest report": _loadtest_report,
}
