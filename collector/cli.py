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
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from collector import __version__, table
from collector.cgroup import paths
from collector.cgroup.carry import Carry
from collector.cgroup.files import EVERYTHING, Needs
from collector.cgroup.walk import Walker, find_kubepods
from collector.errors import PodtallyError, UnsupportedNode, UsageError
from collector.flags import build_parser, help_width, resolve
from collector.history import LINGER_NS, History
from collector.loop import Collector, LivePace, Loop, Pace, ReplayPace, spare_collections
from collector.metrics.catalogue import groups_of
from collector.metrics.native import NativeExposition, Selection, needs
from collector.model import Answer, Tally
from collector.pods.naming import APISERVER, KUBELET
from collector.seams import AnswerSource, Tree
from collector.server.app import Server, is_loopback, parse_listen, serve
from collector.sources import http
from collector.sources.live import LiveTree
from collector.table import Usage
from collector.terminal import progress

# What serve does not need is imported where it is used: recordings and their archives, the doctor, the table's sources,
# and what guards access.
# Memory of a DaemonSet is paid for on every node.
if TYPE_CHECKING:
    from collector import top
    from collector.server.reviews import Reviews
    from collector.server.watch import WatchedConfig
    from collector.server.webconfig import WebConfig
    from collector.sources.recording import RecordedTree, Recording

log = logging.getLogger("collector")

_ANSWER_WAIT_SECONDS = 12.0
"""How long a command that prints once waits for names: a little longer than one question may take."""


def main(argv: list[str] | None = None) -> int:
    """Run the program; its exit status."""
    parser = build_parser(__version__, help_width())
    arguments = parser.parse_args(argv)
    try:
        resolve(arguments, os.environ)
        logging.basicConfig(
            stream=sys.stderr,
            level=arguments.log_level.upper(),
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        )
        status: int = _COMMANDS[arguments.command](arguments)
        sys.stdout.flush()
        return status
    except UsageError as error:
        sys.stderr.write(f"podtally {arguments.command}: {error}\n")
        return 2
    except PodtallyError as error:
        sys.stderr.write(f"podtally {arguments.command}: {error}\n")
        return 1
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


def _live_answers(arguments: argparse.Namespace, *, with_extras: bool = False) -> http.LiveAnswers:
    kubelet_url = http.base_url("--kubelet-url", arguments.kubelet_url)
    kubelet = http.Endpoint(
        name="the kubelet",
        url=kubelet_url,
        token_file=_token_file(arguments),
        tls=http.client_tls(
            kubelet_url, arguments.kubelet_ca_file or _service_ca(), insecure=arguments.kubelet_insecure_tls
        ),
    )
    second = None
    if apiserver := _apiserver(arguments):
        second = http.Question(answer=APISERVER, endpoint=apiserver, path=http.node_pods_path(_node_name(arguments)))
    extras = (
        http.Question(answer="kubelet/metrics_resource.txt", endpoint=kubelet, path="/metrics/resource"),
        http.Question(answer="kubelet/stats_summary.json", endpoint=kubelet, path="/stats/summary"),
        http.Question(answer="kubelet/metrics_cadvisor.txt", endpoint=kubelet, path="/metrics/cadvisor"),
    )
    return http.LiveAnswers(
        http.Question(answer=KUBELET, endpoint=kubelet, path="/pods"),
        second,
        interval=arguments.pods_interval,
        extras=extras if with_extras else (),
    )


def _load(path: str) -> Recording:
    from collector.sources.recording import load

    with progress("reading the recording") as bar:
        return load(path, bar)


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
    kubepods: str | None = None,
    carry: Carry | None = None,
) -> Collector:
    return Collector(
        walker=Walker(tree, slow_every=slow_every, kubepods=kubepods, needs=needs),
        answers=answers,
        history=History(window_ns=round(window * 1e9), interval_ns=interval_ns, linger_ns=linger_ns),
        node_name=node_name,
        adjust=carry.adjust if carry is not None else None,
    )


def _recorded(
    recording: Recording,
    *,
    window: float,
    linger_ns: int = LINGER_NS,
    loop: bool = False,
    kubepods: str | None = None,
) -> tuple[RecordedTree, Collector]:
    from collector.sources.recording import RecordedAnswers, RecordedTree

    tree = RecordedTree(recording, loop=loop)
    collector = _collector(
        tree,
        RecordedAnswers(tree),
        node_name=recording.meta.node,
        window=window,
        interval_ns=recording.interval_ns,
        linger_ns=linger_ns,
        kubepods=kubepods,
        carry=Carry(lambda: tree.passes) if loop else None,
    )
    return tree, collector


class _Asking:
    """Runs :class:`LiveAnswers` in a thread of its own while a command that serves nothing is at work."""

    def __init__(self, answers: http.LiveAnswers) -> None:
        self._answers = answers
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)

    def _run(self) -> None:
        self._task = self._loop.create_task(self._answers.run())
        try:
            with suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._task)
        finally:
            self._loop.close()

    def __enter__(self) -> http.LiveAnswers:
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


def _run_server(
    arguments: argparse.Namespace,
    selection: Selection,
    collector: Collector,
    pace: Pace,
    answers: http.LiveAnswers | None,
    what: str,
    config: WatchedConfig | None,
    reviews: Reviews | None = None,
) -> int:
    loop = Loop(collector, pace)
    access = None
    if config is not None or reviews is not None:
        from collector.server.access import Access

        access = Access(config, reviews, collector.account)
    server = Server(loop, selection, access)
    loop.first_tick()

    def ready(port: int) -> None:
        loop.start()
        host = arguments.listen.rpartition(":")[0]
        shown = "127.0.0.1" if host.strip("[0.:]") == "" else host
        log.info("%s: look at %s://%s:%d/", what, "http" if server.tls is None else "https", shown, port)

    try:
        asyncio.run(serve(server, arguments.listen, answers.run if answers is not None else None, ready))
    finally:
        loop.stop()
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    parse_listen(arguments.listen)  # a wrong address is told before anything is read
    selection = _selection(arguments)
    config = _web_config(arguments, authenticate=arguments.authenticate)
    reviews = _reviews(arguments, config)
    tree = _live_tree(arguments)
    answers = _live_answers(arguments)
    collector = _collector(
        tree,
        answers,
        node_name=_node_name(arguments),
        window=arguments.window,
        interval_ns=round(arguments.interval * 1e9),
        linger_ns=_linger_ns(arguments),
        slow_every=arguments.slow_every,
        needs=needs(selection.groups),
        kubepods=arguments.kubepods,
    )
    spare_collections()
    account = collector.account
    account.descriptors_held = lambda: tree.held
    account.descriptors_limit = lambda: tree.descriptor_limit
    account.opened_reads = lambda: tree.opened_for_one_read
    what = f"reading {arguments.cgroup_root}"
    tree.follow()
    pace = LivePace(arguments.interval, tree.rest)
    return _run_server(arguments, selection, collector, pace, answers, what, config, reviews)


def _replay(arguments: argparse.Namespace) -> int:
    parse_listen(arguments.listen)
    selection = _selection(arguments)
    config = None if arguments.once or arguments.openmetrics else _web_config(arguments)
    recording = _load(arguments.recording)
    tree, collector = _recorded(
        recording,
        window=arguments.window,
        linger_ns=_linger_ns(arguments),
        loop=arguments.loop,
        kubepods=arguments.kubepods,
    )
    if arguments.openmetrics:
        return _backfill(arguments, selection, collector, len(recording.frames))
    pace = ReplayPace(tree.gap_ns, recording.interval_ns, arguments.speed)
    if arguments.once:
        loop = Loop(collector, pace)
        loop.run_through()
        server = Server(loop, selection)
        text = server.metrics_text if arguments.path == "/metrics" else server.resource_text
        sys.stdout.write(text(openmetrics=False))
        return 0
    return _run_server(arguments, selection, collector, pace, None, f"replaying {arguments.recording}", config)


def _backfill(arguments: argparse.Namespace, selection: Selection, collector: Collector, frames: int) -> int:
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
                raise UsageError(f"cannot write {arguments.openmetrics}: {error.strerror}") from error
    log.info("%d samples of %d frames", count, frames)
    return 0


def _record(arguments: argparse.Namespace) -> int:
    from collector.sources.recording import RecordedAnswers, RecordedTree
    from collector.sources.tee import RecordingWriter, TeeAnswers, TeeTree

    out = arguments.out
    if out == "-" and sys.stdout.isatty():
        raise UsageError("a recording on stdout is binary: redirect it to a file")
    if arguments.source:
        recording = _load(arguments.source)
        inner = RecordedTree(recording)
        with RecordingWriter(out, recording.meta, sys.stdout.buffer) as writer:
            tee = TeeTree(inner, writer)
            collector = _collector(
                tee,
                TeeAnswers(RecordedAnswers(inner), tee),
                node_name=recording.meta.node,
                window=15.0,
                interval_ns=recording.interval_ns,
                kubepods=arguments.kubepods,
            )
            with progress("recording") as bar:
                for number, _ in enumerate(collector.tallies(), 1):
                    bar(number, len(recording.frames))
            tee.flush()
        log.info("%d frames written to %s", writer.frames, out)
        return 0
    return _record_live(arguments)


def _record_live(arguments: argparse.Namespace) -> int:
    from collector.sources.tee import RecordingWriter, TeeAnswers, TeeTree, live_meta

    tree = _live_tree(arguments)
    tops = [arguments.kubepods.strip("/")] if arguments.kubepods else find_kubepods(tree)
    driver = paths.driver(tops[0]) if tops else ""
    meta = live_meta(_node_name(arguments), driver, f"podtally record {arguments.duration:g}s")
    answers = _live_answers(arguments, with_extras=True)
    stop = _stop_on_signals()
    with RecordingWriter(arguments.out, meta, sys.stdout.buffer) as writer, _Asking(answers):
        tee = TeeTree(tree, writer)
        collector = _collector(
            tee,
            TeeAnswers(answers, tee),
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
    log.info("%d frames written to %s", writer.frames, arguments.out)
    if answers.refused:
        log.warning("left out, as they were not answered: %s", ", ".join(answers.refused))
    if not writer.frames:
        log.warning("stopped before the first frame: nothing is recorded")
        return 1
    return 0


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
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
        tree, collector = _recorded(recording, window=arguments.window, kubepods=arguments.kubepods)
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
    with _Asking(answers):
        collector = _collector(
            _live_tree(arguments),
            answers,
            node_name=_node_name(arguments),
            window=arguments.window,
            interval_ns=round(arguments.interval * 1e9),
            slow_every=1_000_000,
            needs=Needs(pods=frozenset(), containers=frozenset()),
            kubepods=arguments.kubepods,
        )
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


def _doctor(arguments: argparse.Namespace) -> int:
    from collector import doctor
    from collector.sources.recording import RecordedTree

    answers: list[Answer] = []
    try:
        if arguments.source:
            recording = _load(arguments.source)
            tree: Tree = RecordedTree(recording)
            answers = recording.frames[0].answers
            limit = None
        else:
            live = _live_answers(arguments)
            with _Asking(live):
                answers = live.take()
            tree = live_tree = _live_tree(arguments)
            limit = live_tree.descriptor_limit
        findings = doctor.examine(tree, answers, kubepods=arguments.kubepods, descriptor_limit=limit)
    except UnsupportedNode as error:
        findings = doctor.unsupported(error, answers)
    text, faults = doctor.render(findings)
    sys.stdout.write(text)
    return 1 if faults else 0


def _metrics(arguments: argparse.Namespace) -> int:
    from collector.metrics import docs

    sys.stdout.write(docs.as_json() if arguments.json else docs.as_markdown())
    return 0


_COMMANDS = {
    "serve": _serve,
    "replay": _replay,
    "record": _record,
    "top": _top,
    "doctor": _doctor,
    "metrics": _metrics,
}
