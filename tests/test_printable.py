"""Text of others as it is shown: on a terminal, in the log, on stderr."""

from __future__ import annotations

import io
import json
import logging
import unicodedata
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from collector.doctor import render
from collector.model import Answer
from collector.parity import report
from collector.parity.verification import Refusal
from collector.printable import LogFormatter, as_html, paragraph, printable
from collector.sources.http import refusal_reason
from collector.table import Usage, align, notes
from collector.top import View
from collector.withheld import Finding
from tests.helpers import podtally, served_in_thread

TITLE = "\x1b]0;all is well\x07"
CLIPBOARD = "\x1b]52;c;cHduZWQ=\x07"
BACKWARDS = "\u202egnp.exe"
ROW = "web\nfake   9m   9Mi"
HOSTILE = f"{TITLE}{CLIPBOARD}{BACKWARDS}{ROW}\r\x9b2J\ud800"
"""What a terminal obeys: by ESC, by C1 controls, by carriage return and newline; and a letter that no encoding has."""

OBEYED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories of Unicode: controls, format characters, surrogates, separators of lines and paragraphs."""


def obeyed(text: str) -> set[str]:
    """What a terminal or a reader of lines obeys in a text, newlines left aside."""
    return {one for one in text if unicodedata.category(one) in OBEYED} - {"\n"}


@given(st.text(st.characters()))
def test_nothing_that_is_obeyed_is_left(text: str) -> None:
    """Whatever the text: no control, no format character, no surrogate, no second line."""
    shown = printable(text)

    assert obeyed(shown) == set()
    assert len(shown.splitlines()) <= 1
    assert shown.encode().decode() == shown


@given(st.text(st.characters(codec="utf-8")).filter(str.isprintable))
def test_what_is_printable_stays_as_it_is(text: str) -> None:
    """Letters of all scripts, wide ones and marks are not touched."""
    assert printable(text) == text


def test_controls_are_written_out_so_that_they_can_be_told_apart() -> None:
    """Each is written as Python writes it, in its place."""
    assert printable(HOSTILE) == (
        r"\x1b]0;all is well\x07\x1b]52;c;cHduZWQ=\x07\u202egnp.exeweb\nfake   9m   9Mi\r\x9b2J\ud800"
    )


@given(st.lists(st.text(st.characters()), min_size=1))
def test_no_line_after_the_first_begins_as_a_message_does(lines: list[str]) -> None:
    """A paragraph of others' words has its further lines set in, or empty."""
    _, *others = paragraph("\n".join(lines)).split("\n")

    assert [one for one in others if one and not one.startswith("  ")] == []


def test_html_has_neither_markup_nor_controls() -> None:
    """Both are written out."""
    assert as_html(f"<script>{TITLE}\"'&") == "&lt;script&gt;\\x1b]0;all is well\\x07&quot;&#x27;&amp;"


# --- where it is shown ------------------------------------------------------------------------------------------------


def logged(message: str, *arguments: object, error: BaseException | None = None) -> str:
    """A record as the program's log has it."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(LogFormatter("%(levelname)s %(name)s: %(message)s"))
    handler.handle(logging.LogRecord("x", logging.WARNING, __file__, 1, message, arguments, _info(error)))
    return out.getvalue()


def _info(error: BaseException | None) -> tuple[type[BaseException], BaseException, None] | None:
    return None if error is None else (type(error), error, None)


def test_a_log_record_is_one_line() -> None:
    """A name with a newline and escapes forges no second record."""
    assert logged("%s is left out", "a\nERROR x: b\x1b[2J") == "WARNING x: a\\nERROR x: b\\x1b[2J is left out\n"


def test_a_traceback_is_set_in_below_its_record() -> None:
    """What an error says, on however many lines, begins none as a record does."""
    first, *others = logged("it failed", error=ValueError(f"a\nERROR x: {TITLE}")).splitlines()

    assert first == "WARNING x: it failed"
    assert others == ["  ValueError: a", r"  ERROR x: \x1b]0;all is well\x07"]


def test_a_cell_makes_no_row_and_columns_stay_in_line() -> None:
    """A table has as many lines as rows, and each column begins where its head does."""
    head, hostile, plain = align([["NAME", "CPU"], [ROW, "1m"], ["a", "2m"]]).splitlines()

    assert hostile.startswith(r"web\nfake   9m   9Mi")
    assert {head.index("CPU"), hostile.index("1m"), plain.index("2m")} == {len(printable(ROW)) + 3}


def test_names_in_a_table_and_its_notes_are_written_out() -> None:
    """Of pods, namespaces and containers."""
    rows = [Usage(HOSTILE, HOSTILE, HOSTILE, 1.0, 1, "unnamed_container")]
    text = View(containers=True, sort="name", namespace=None, headers=True).text(rows)

    assert obeyed(text + "".join(notes(rows))) == set()
    assert len(text.splitlines()) == 2


def test_the_doctors_findings_are_written_out() -> None:
    """What a kubelet says is one line of what the doctor says, and so is the next step."""
    text, _ = render([Finding("fault", HOSTILE, HOSTILE)])

    assert obeyed(text) == set()
    assert len(text.splitlines()) == 2


def test_a_refusal_that_verify_tells_is_written_out() -> None:
    """The peer's words stand in one line, the next step below it."""
    text = report.refusal_text(Refusal("summary", 500, HOSTILE), report.STEPS)

    assert obeyed(text) == set()
    assert len(text.splitlines()) == 2


def test_a_message_of_the_kubelets_reaches_log_and_findings_written_out() -> None:
    """A Status object may say what it wants: it is kept as it is, and written out where it is shown."""
    body = json.dumps({"message": TITLE}).encode()
    answer = Answer("kubelet/pods.json", 0, 403, refusal_reason("Forbidden", body), None)

    assert answer.error == TITLE
    assert obeyed(logged("%s", answer.error)) == set()


def test_top_shows_a_hostile_document_as_text() -> None:
    """Whoever answers at --url: names are written out, one row a pod."""

    async def answer(_: web.Request) -> web.Response:
        pod = {"phase": "Running", "namespace": HOSTILE, "name": HOSTILE, "containers": [1]}
        return web.json_response({"pods": [{**pod, "cpu_cores": 1, "memory_bytes": 1 << 20}]})

    with served_in_thread(answer) as url:
        done = podtally("top", "--once", "-A", "--url", url)

    assert (done.returncode, obeyed(done.stdout)) == (0, set())
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e400", "-1", '"1"', "[]", "1" * 400])
def test_top_takes_no_document_whose_numbers_are_none(value: str) -> None:
    """A number that no pod can use is a sentence, exit 2."""
    text = (
        '{"pods": [{"phase": "Running", "namespace": "a", "name": "b", "containers": [1], "memory_bytes": 1,'
        f' "cpu_cores": {value}}}]}}'
    )

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=text, content_type="application/json")

    with served_in_thread(answer) as url:
        done = podtally("top", "--once", "-A", "--url", url)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"podtally top: {url}/api/v1/pods does not answer as podtally does\n"


def test_an_error_on_stderr_is_written_out(tmp_path: Path) -> None:
    """What a recording says of itself is one line of an error, with nothing that a terminal obeys."""
    folder = tmp_path / f"node{TITLE}"
    folder.mkdir()
    done = podtally("top", "--once", "--recording", folder)

    assert done.returncode == 2
    assert obeyed(done.stderr) == set()
    assert r"node\x1b]0;all is well\x07" in done.stderr


def test_a_flag_that_is_not_known_is_written_out() -> None:
    """The parser's sentence has the argument in it."""
    done = podtally("top", f"--{TITLE}")

    assert (done.returncode, obeyed(done.stderr)) == (2, set())
