"""What peers and people hand to podtally, under the fuzzer: answers, web configurations, what is kept of a load test."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Final, NamedTuple

from attack.corpus import seed
from attack.fuzz import Differ, Sample, Target
from attack.mutate import BLANKS, JUNK, NUMBERS, Document, changed
from collector.errors import AnswerError, PodtallyError, UsageError
from collector.loadtest import html, markdown, report
from collector.loadtest.model import Kept
from collector.parity import peers
from collector.pods.answer import parse_pods
from collector.server import webconfig
from collector.upstream import metrics_api, summary
from tests.support import FIXTURES

_MARKUP: Final = "<script>"
_WORDS: Final = (*NUMBERS, *BLANKS, *JUNK, b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u", b"\xff")


class Reader(NamedTuple):
    """Something that reads a text of others: what it is called, a text that it takes, and what it may raise."""

    of: str
    text: bytes
    read: Callable[[bytes], object]
    refusal: type[PodtallyError]


class ReaderTester:
    """Texts changed in their bytes, and, where they are JSON, in their values."""

    def __init__(self, readers: tuple[Reader, ...], words: tuple[bytes, ...] = _WORDS) -> None:
        self._readers = {reader.of: reader for reader in readers}
        self._texts = [(reader.of, _document(reader.text), reader.text) for reader in readers]
        self._words = words

    def make(self, random: Random) -> Sample:
        """A text for one of the readers."""
        of, document, text = self._texts[int(random.random() * len(self._texts))]
        if document is not None and random.random() < 0.7:
            return Sample(of, (document.changed(random),))
        return Sample(of, (changed(text, random, self._words),))

    def check(self, sample: Sample) -> bool:
        """Whether it is taken."""
        reader = self._readers[sample.of]
        try:
            reader.read(sample.data[0])
        except reader.refusal as error:
            str(error).encode()
            return False
        return True


def _document(text: bytes) -> Document | None:
    try:
        return Document(json.loads(text))
    except ValueError:
        return None


# --- answers --------------------------------------------------------------------------------------------------------


def _pods(body: bytes) -> None:
    """What the standard parser takes is taken, and what it refuses is not; each pod's names can be written out again."""
    try:
        standard = json.loads(body)
    except (ValueError, RecursionError):
        standard = None
    try:
        read = parse_pods(body, "the kubelet")
    except AnswerError:
        if isinstance(standard, dict) and isinstance(standard.get("items"), list):
            raise Differ("a list of pods is refused") from None
        raise
    if standard is None or parse_pods(json.dumps(standard).encode(), "the kubelet") != read:
        raise Differ("another list of pods is read than the standard parser reads")
    for uid, pod in read.pods.items():
        for text in (uid, pod.name, pod.namespace, *pod.containers, *pod.labels, *pod.labels.values()):
            text.encode()


def _long(body: bytes) -> bytes:
    """A list in whose second item some 64 KiB are reached, by which a reader may take it in parts."""
    document = json.loads(body)
    (item,) = document["items"]
    first = {**item, "metadata": {**item["metadata"], "annotations": {"note": "x" * ((64 << 10) - len(body) - 1000)}}}
    return json.dumps({**document, "items": [first, item]}).encode()


def answers() -> ReaderTester:
    """What the kubelet and the metrics API answer."""
    stats, usages = seed("kubelet/stats_summary.json"), seed("metrics-api/pods.json")
    return ReaderTester(
        (
            Reader("/pods", seed("kubelet/pods.json"), _pods, AnswerError),
            Reader("/pods of more than one chunk", _long(seed("kubelet/pods.json")), _pods, AnswerError),
            Reader("/stats/summary", stats, summary.parse, AnswerError),
            Reader("the metrics API's pods", usages, metrics_api.parse, AnswerError),
            Reader("/stats/summary to compare with", stats, peers.parse_summary, AnswerError),
            Reader("the metrics API's pods to compare with", usages, peers.parse_pod_metrics, AnswerError),
            Reader(
                "/metrics/resource",
                seed("kubelet/metrics_resource.txt"),
                lambda body: peers.parse_resource(body.decode(errors="replace")),
                AnswerError,
            ),
        )
    )


# --- configurations -------------------------------------------------------------------------------------------------

_YAML: Final = (
    *(
        b"&a ",
        b"*a",
        b"<<: *a\n",
        b"!!python/object/apply:os.system ['true']",
        b"!!binary ",
        b"? ",
        b"- ",
        b"| ",
        b"---\n",
    ),
    *(
        b"  ",
        b": ",
        b"{",
        b"}",
        b"[" * 50,
        b"\t",
        b"'",
        b'"',
        b"#",
        b"null",
        b"~",
        b"yes",
        b"%YAML 9.9\n",
        b"\xff",
        b"\0",
    ),
    *(b"tls_server_config:\n", b"cert_file: x\n", b"100ms", b"1e400s", b"\xef\xbb\xbf", b"$2y$99$", *NUMBERS[:8]),
)


def web_configurations() -> ReaderTester:
    """Files of ``--web.config.file``."""
    texts = (seed(f"web/{name}.yml") for name in ("all", "passwords"))
    return ReaderTester(
        tuple(
            Reader(f"web configuration {number}", text, lambda text: webconfig.parse(text, "web.yml"), UsageError)
            for number, text in enumerate(texts)
        ),
        _YAML,
    )


# --- what is kept of a load test ------------------------------------------------------------------------------------


def load_tests() -> ReaderTester:
    """``run.json`` and ``k6.log`` of a run's folder, to the pages that are made of them."""
    folder = FIXTURES.parent / "loadtest" / "steady"
    run, log = (folder / "run.json").read_bytes(), (folder / "k6.log").read_bytes()

    def pages(run: bytes, log: bytes | None) -> None:
        made = report.make(Kept(run=run, log=log, answers={}, peer=None))
        for page in (html.render(made), markdown.render(made), report.to_json(made)):
            page.encode()
            if _MARKUP in page.lower() and not page.startswith("{"):
                raise Differ("a page has another's markup in it")

    return ReaderTester(
        (
            Reader("run.json", run, lambda body: pages(body, None), UsageError),
            Reader("k6.log", log, lambda body: pages(run, body), UsageError),
        )
    )


ANSWERS: Final = Target(
    name="answers",
    what="`/pods`, `/stats/summary`, `/metrics/resource` and the metrics API's",
    inputs=120_000,
    block=2_000,
    tester=answers,
)
WEB_CONFIGURATIONS: Final = Target(
    name="web configurations",
    what="YAML of `--web.config.file`",
    inputs=8_000,
    block=200,
    tester=web_configurations,
)
LOAD_TESTS: Final = Target(
    name="load tests",
    what="`run.json` and `k6.log`, to the report's pages",
    inputs=6_000,
    block=500,
    tester=load_tests,
)
