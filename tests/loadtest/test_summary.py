"""The summary in k6's log, its exit codes and its progress."""

from __future__ import annotations

import pytest

from collector.errors import AnswerError
from collector.loadtest.summary import BEGIN, END, exit_meaning, from_log, last_words, progress_of, ran
from tests.loadtest.runs import LOGS


def log(name: str) -> str:
    """A log of the scripts'."""
    return (LOGS / name).read_text()


def test_all_endpoints_are_read() -> None:
    """Requests, shares and latencies of each endpoint and of all, times in seconds."""
    found = from_log(log("load-held.log"))

    assert [one.endpoint for one in found.endpoints] == ["home_timeline", "user_timeline", "compose"]
    assert found.total.number == 2194
    assert sum(one.number or 0 for one in found.endpoints) in range(2190, 2195)
    assert found.total.failed_share == 0
    assert found.endpoints[2].p95_seconds == pytest.approx(0.08874408)
    assert found.ended is not None
    assert found.started is not None
    assert 80 < found.ended - found.started < 90


def test_crossed_thresholds_are_told_from_held_ones() -> None:
    """Where all posts fail, the posts' thresholds are crossed and the reads' held."""
    found = from_log(log("load-compose-fails.log"))

    crossed = {one.metric for one in found.thresholds if not one.held}
    assert {"http_req_failed{endpoint:compose}", "checks{endpoint:compose}"} <= crossed
    assert "http_req_failed{endpoint:home_timeline}" not in crossed
    assert found.endpoints[2].failed_share == 1


def test_dropped_iterations_are_counted() -> None:
    """Those that an open profile could not begin."""
    assert from_log(log("latency-stalls.log")).dropped_iterations == 21


def test_no_request_has_no_latency() -> None:
    """k6 gives 0 ms for a trend without samples; no answer is not a fast one."""
    text = (
        f'{BEGIN}\n{{"version":1,"metrics":{{"http_reqs":{{"values":{{"count":0,"rate":0}}}},'
        f'"http_req_duration":{{"values":{{"p(95)":0,"med":0}}}},"http_req_failed":{{"values":{{"rate":0}}}}}}}}\n{END}'
    )

    found = from_log(text).total
    assert (found.number, found.p95_seconds, found.failed_share) == (0, None, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "k6's log holds no summary"),
        (f"{BEGIN}\n{{}}", "has no end"),
        (f'{BEGIN}\n{{"metrics": {{"a\n{END}', "is no whole JSON"),
        (f"{BEGIN}\n[]\n{END}", "has no metrics"),
        (f'{BEGIN}\n{{"metrics": {{}}, "version": 2}}\n{END}', "is of version 2, and 1 is known"),
        (
            f'{BEGIN}\n{{"version": 1, "metrics": {{"checks": {{"thresholds": {{"rate>0.9": {{}}}}}}}}}}\n{END}',
            "does not say whether checks rate>0.9 held",
        ),
    ],
)
def test_a_broken_summary_is_told(text: str, said: str) -> None:
    """No summary, half of one and another's are told apart."""
    with pytest.raises(AnswerError) as caught:
        from_log(text)

    assert said in str(caught.value)


def test_a_log_cut_anywhere_gives_no_numbers() -> None:
    """Whatever is lost of the end, the summary is whole or refused."""
    whole = log("load-held.log")
    for cut in range(whole.index(BEGIN), len(whole) - len(END) - 2, 97):
        with pytest.raises(AnswerError):
            from_log(whole[:cut])


@pytest.mark.parametrize(
    ("code", "ending", "did", "said"),
    [
        (0, "Completed", True, "all thresholds held"),
        (99, "Error", True, "at least one threshold was crossed"),
        (105, "Error", False, "stopped from outside"),
        (107, "Error", False, "the script failed before the load began"),
        (137, "OOMKilled", False, "memory limit was too small"),
        (42, "Error", False, "a code that k6 has no meaning for"),
        (None, "DeadlineExceeded", False, "the Job's deadline passed"),
        (None, "Evicted", False, "how k6 ended is not known: Evicted"),
    ],
)
def test_exit_codes_are_read(code: int | None, ending: str, did: bool, said: str) -> None:
    """0 and 99 are runs that were made; all others are broken, each for its reason."""
    assert ran(code, ending) is did
    assert said in exit_meaning(code, ending)


def test_the_last_words_are_the_complaint() -> None:
    """Of a run that began with nobody to answer, what k6 says about that."""
    assert "nothing answers at http://nginx-thrift" in last_words(log("load-nothing-answers.log"))[-1]


def test_a_log_without_progress_has_none() -> None:
    """With --quiet there is nothing to show."""
    assert progress_of(log("load-held.log")) is None
