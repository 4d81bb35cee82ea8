"""A run's folder whose files are damaged, or somebody else's: a sentence or a note, and never anything else."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from collector.errors import UsageError
from collector.loadtest import html, markdown, telling
from collector.loadtest.model import Kept, Report
from collector.loadtest.report import make, run_of_json, to_json
from collector.loadtest.summary import BEGIN, END
from tests.loadtest.runs import LOGS, STEADY, shop

SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

RUN = json.loads((STEADY / "run.json").read_bytes())
LOG = (STEADY / "k6.log").read_text(encoding="utf-8")
SUMMARY = json.loads(LOG.rpartition(BEGIN)[2].partition(END)[0])
PEER = (STEADY / "metrics-api.jsonl").read_bytes()
ANSWERS = {path.stem: path.read_bytes() for path in (STEADY / "prometheus").glob("*.json")}

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&</title></svg>\x1b[31m\u202e\n# [x](y) | `z`"

Path = tuple[str | int, ...]


def paths(value: Any, at: Path = ()) -> list[Path]:
    """Of every value in a document, objects and lists too."""
    inner: list[Path] = []
    if isinstance(value, dict):
        inner = [path for key, one in value.items() for path in paths(one, (*at, key))]
    elif isinstance(value, list):
        inner = [path for key, one in enumerate(value[:3]) for path in paths(one, (*at, key))]
    return [at, *inner] if at else inner


def changed(document: Any, path: Path, change: Callable[[Any, Any], None]) -> Any:
    """A copy, changed at a path by a function of what holds the value and of its key."""
    made = copy.deepcopy(document)
    holder = made
    for key in path[:-1]:
        holder = holder[key]
    change(holder, path[-1])
    return made


def nested(depth: int) -> Any:
    """Lists in lists."""
    found: Any = []
    for _ in range(depth):
        found = [found]
    return found


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(10**30), 2**63, 1e308, -1e308, 5e-324, float("nan"), float("inf"), -0.0, 1e-300]),
    st.floats(),
    st.text(st.characters(), max_size=20),
    st.sampled_from([HOSTILE, "\ud800", "", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "1e400", "NaN"]),
    st.sampled_from([[], {}, [[]], {"": {}}, [None], nested(300)]),
)


def held(made: Report) -> None:
    """Both documents and the text are written, the JSON is JSON, and no text of others is markup in any of them."""
    page, text = html.render(made), markdown.render(made)
    json.loads(to_json(made), parse_constant=pytest.fail)
    telling.brief(made)
    page.encode()
    text.encode()
    for one in (page, text):
        assert not re.search(r"<script|<img|\x1b|\u202e", one)


def make_or_refuse(kept: Kept) -> None:
    """A report, or the tool's own error, which is one sentence with the file's name."""
    try:
        made = make(kept)
    except UsageError as error:
        said = str(error)
    else:
        held(made)
        return
    assert said.startswith("run.json is ")


def folder(run: bytes | None = None, log: bytes | None = None, **answers: bytes) -> Kept:
    """The real run, with some files changed."""
    return Kept(
        run=json.dumps(RUN).encode() if run is None else run,
        log=LOG.encode() if log is None else log,
        answers={**ANSWERS, **answers},
        peer=PEER,
    )


@st.composite
def damaged(draw: st.DrawFn, document: Any) -> Any:
    """A document with up to three values that are odd, gone, or under another name."""
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(paths(document)))
        value = draw(ODD)
        kind = draw(st.sampled_from(("odd", "gone", "more")))

        def change(holder: Any, key: Any, kind: str = kind, value: Any = value) -> None:
            if kind == "gone":
                del holder[key]
            elif kind == "more" and isinstance(holder, dict):
                holder[str(value)] = holder[key]
            else:
                holder[key] = value

        document = changed(document, path, change)
        if not paths(document):
            break
    return document


@SETTINGS
@given(damaged(RUN))
def test_a_damaged_run_json_is_a_sentence_or_a_report(document: Any) -> None:
    """Whatever is odd in it, wherever."""
    make_or_refuse(folder(json.dumps(document).encode()))


@SETTINGS
@given(damaged(SUMMARY))
def test_a_damaged_summary_is_a_note_or_taken(document: Any) -> None:
    """The report is made all the same."""
    held(make(folder(log=f"{BEGIN}\n{json.dumps(document)}\n{END}\n".encode())))


@SETTINGS
@given(st.sampled_from(sorted(shop())), st.data())
def test_a_damaged_answer_of_prometheus_is_a_note_or_taken(name: str, data: st.DataObject) -> None:
    """The report is made all the same, of a shop whose load rises and of the damaged answer."""
    document = data.draw(damaged(json.loads(shop()[name])))
    log = (LOGS / "load-held.log").read_bytes()
    run = {**RUN, "namespaces": ["shop"], "spans": SHOP_SPANS}
    answers = {**shop(), name: json.dumps(document).encode()}

    held(make(Kept(run=json.dumps(run).encode(), log=log, answers=answers, peer=PEER)))


SHOP_SPANS = {
    "before": {"begin": "2027-01-15T08:00:00Z", "end": "2027-01-15T08:01:00Z"},
    "during": {"begin": "2027-01-15T08:01:00Z", "end": "2027-01-15T08:03:00Z"},
    "after": {"begin": "2027-01-15T08:03:15Z", "end": "2027-01-15T08:04:15Z"},
}
"""Those of the shop's series."""


@SETTINGS
@given(damaged(json.loads(PEER.splitlines()[0])))
def test_a_damaged_line_of_the_metrics_api_is_a_note_or_taken(document: Any) -> None:
    """The other lines are used."""
    line = json.dumps(document).encode()
    kept = folder()
    held(make(Kept(run=kept.run, log=kept.log, answers=kept.answers, peer=line + b"\n" + PEER)))


@SETTINGS
@given(st.binary(max_size=60), st.sampled_from(("run", "log", "answer", "peer")), st.data())
@example(b"[" * 100_000, "run", None)
@example(b"[" * 100_000, "log", None)
@example(b"[" * 100_000, "answer", None)
@example(b"[" * 100_000, "peer", None)
@example(b"9" * 5000, "run", None)
@example(b"9" * 5000, "answer", None)
def test_files_of_other_bytes_are_told(noise: bytes, where: str, data: st.DataObject | None) -> None:
    """Bytes of anything, in the place of a part of a file or of all of it."""
    kept = folder()
    of = {"run": kept.run, "log": kept.log or b"", "answer": kept.answers["pods"], "peer": PEER}[where]
    at = 0 if data is None else data.draw(st.integers(0, len(of)))
    cut = len(of) if data is None else data.draw(st.sampled_from((0, 1, 30, len(of))))
    body = of[:at] + noise + of[at + cut :]
    if data is None and where == "log":
        body = f"{BEGIN}\n".encode() + noise + f"\n{END}\n".encode()
    make_or_refuse(
        Kept(
            run=body if where == "run" else kept.run,
            log=body if where == "log" else kept.log,
            answers={**kept.answers, "pods": body} if where == "answer" else kept.answers,
            peer=body if where == "peer" else PEER,
        )
    )


LEAVES = [path for path in paths(RUN) if not isinstance(path[-1], int)]


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: ".".join(map(str, path)))
@pytest.mark.parametrize("odd", [["a"], {"a": 1}, True, float("nan")], ids=["list", "object", "true", "NaN"])
def test_a_wrong_type_names_file_and_key(path: Path, odd: Any) -> None:
    """The sentence has the file's path and the key's, and what to do."""

    def change(holder: Any, key: Any) -> None:
        holder[key] = odd

    document = changed(RUN, path, change)
    if path == ("namespaces",) and odd == ["a"]:
        assert run_of_json(json.dumps(document).encode()).namespaces == ("a",)
        return
    with pytest.raises(UsageError) as caught:
        run_of_json(json.dumps(document).encode(), "/kept/run.json")

    said = str(caught.value)
    assert said.startswith("/kept/run.json is not ")
    assert said.endswith("copy it again from where the run was made")
    # Of an object that is none, its first key may be what is missed.
    assert any(f"'{'.'.join(map(str, path[: length + 1]))}" in said for length in range(len(path)))


@pytest.mark.parametrize("name", sorted({key for key in RUN if key != "version"}))
def test_a_key_that_is_not_there_is_named(name: str) -> None:
    """Of each key that a run has."""
    document = {key: value for key, value in RUN.items() if key != name}

    with pytest.raises(UsageError, match=rf"run\.json is not whole, it has no '{name}"):
        run_of_json(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("spans", "said"),
    [
        ({"begin": "2026-11-23T06:09:00Z", "end": "2026-11-23T06:08:00Z"}, "'spans.during' is not a span of time"),
        ({"begin": "2026-11-23T06:09:00Z", "end": "2026-11-24T06:08:00Z"}, "'spans' is not three spans in the order"),
        ({"begin": "1901-01-01T00:00:00Z", "end": "2026-11-23T06:09:59Z"}, "'spans.during' is not a span of time"),
    ],
)
def test_spans_that_are_none_are_refused(spans: dict[str, str], said: str) -> None:
    """An end before its beginning, a part beyond the whole, a time before there was any."""
    document = {**RUN, "spans": {**RUN["spans"], "during": spans}}

    with pytest.raises(UsageError, match=re.escape(said)):
        run_of_json(json.dumps(document).encode())


def test_a_run_of_years_is_refused() -> None:
    """It would be looked at in steps of 15 s."""
    begin = {"begin": "2020-01-01T00:00:00Z", "end": "2026-11-23T06:08:44.872Z"}

    with pytest.raises(UsageError, match="a run that is shorter than a month"):
        run_of_json(json.dumps({**RUN, "spans": {**RUN["spans"], "before": begin}}).encode())


def renamed(value: Any, old: str, new: str) -> Any:
    """A document with a string in the place of another, as a value or as a part of one."""
    if isinstance(value, dict):
        return {renamed(key, old, new): renamed(one, old, new) for key, one in value.items()}
    if isinstance(value, list):
        return [renamed(one, old, new) for one in value]
    return value.replace(old, new) if isinstance(value, str) else value


NAMES = ("social", "compose-post-service", "home-timeline-service", "multi", "node1", "Deployment", "load", "compose")
SAID = (*NAMES, "http://nginx-thrift", "home_timeline", "count>=65", "0.4.0", "127.0.0.1", "team-a", "Completed")


@pytest.mark.parametrize("name", SAID)
def test_no_name_breaks_out_of_a_report(name: str) -> None:
    """Each name of the cluster's, of k6's and of the run's, wherever it stands, is text in HTML and in Markdown."""
    new = name + HOSTILE

    def spoiled(body: bytes) -> bytes:
        return json.dumps(renamed(json.loads(body), name, new)).encode()

    made = make(
        Kept(
            run=json.dumps({**renamed(RUN, name, new), "spans": RUN["spans"]}).encode(),
            log=f"{BEGIN}\n{json.dumps(renamed(SUMMARY, name, new))}\n{END}\n".encode(),
            answers={one: spoiled(body) for one, body in ANSWERS.items()},
            peer=b"\n".join(spoiled(line) for line in PEER.splitlines()),
        )
    )
    held(made)


def test_a_hostile_name_is_in_the_reports_as_text() -> None:
    """The test above would hold of reports that leave names out: they do not."""
    spoiled = json.dumps(renamed(RUN, "load", f"load{HOSTILE}")).encode()
    made = make(folder(spoiled))

    assert "load&lt;script&gt;alert(1)" in html.render(made)
    assert "load&lt;script>alert(1)" in markdown.render(made)
    assert "\\# \\[x\\](y) \\| \\`z\\`" not in markdown.render(made).splitlines()


def test_markdown_shows_no_link_heading_or_cell_of_others() -> None:
    """Each line of a report is one of the report's own: names have neither links nor cells nor lines."""
    plain, spoiled = (make(folder(json.dumps({**RUN, "prometheus": text}).encode())) for text in ("x", HOSTILE))
    before, after = (markdown.render(one).splitlines() for one in (plain, spoiled))

    assert len(after) == len(before)
    assert [line for line in after if re.search(r"(?<!\\)\[|(?<!\\)`", line)] == []
