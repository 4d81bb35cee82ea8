"""Reports: of a kept run on real data, of a made-up one that rises, and of folders in which something is missing."""

from __future__ import annotations

import json
import math
import re
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from collector.loadtest import html, markdown, report, telling
from collector.loadtest.folder import Folder
from collector.loadtest.model import Report
from collector.loadtest.report import make
from tests.helpers import podtally
from tests.loadtest.runs import CLIENT, STEADY, STORE, WEB, answer, counted, kept, made, shop, under

GOLDEN = ("report.md", "report.html", "report.json")


def states(found: Report) -> dict[str, str]:
    """What became of each criterion."""
    return {one.name: one.state for one in found.criteria}


@pytest.fixture(scope="module")
def steady() -> Report:
    """The report on the kept run."""
    return make(Folder(str(STEADY)).kept())


@pytest.mark.parametrize("name", GOLDEN)
def test_the_kept_run_has_its_reports(tmp_path: Path, name: str) -> None:
    """What is made of the kept files is what is kept beside them: byte for byte."""
    shutil.copytree(STEADY, tmp_path / "run")
    (tmp_path / "run" / name).unlink()

    Folder(str(tmp_path / "run")).report()

    assert (tmp_path / "run" / name).read_text() == (STEADY / name).read_text()


def test_the_command_prints_the_verdict(tmp_path: Path) -> None:
    """Report DIR says what was found, where the page is, and by 1 that it was no success."""
    shutil.copytree(STEADY, tmp_path / "run")

    done = podtally("loadtest", "report", tmp_path / "run")

    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("Load test load: failed\n")
    assert done.stdout.endswith(f"{tmp_path}/run/report.html\n")


def test_a_steady_load_does_not_pass_for_a_rise(steady: Report) -> None:
    """Real services under the same load before and during: CPU and memory do not rise, and the verdict says so."""
    assert steady.outcome == "failed"
    assert states(steady)["CPU rises"] == states(steady)["memory rises"] == "failed"


def test_real_data_agrees_with_kubectl_top(steady: Report) -> None:
    """Over the metrics API's own windows every service of the recording agrees within 10%."""
    assert states(steady)["agrees with kubectl top within 10%"] == "passed"
    assert {one.workload.name for one in steady.agreement.compared} == {one.workload.name for one in steady.services}


def test_what_was_throttled_before_is_not_named_as_the_loads_doing(steady: Report) -> None:
    """nginx-thrift was throttled all the time, so that no load saturated it."""
    nginx = next(one for one in steady.services if one.workload.name == "nginx-thrift")

    assert steady.saturated == ()
    assert nginx.already[0].name == "throttling"
    assert nginx.already[0].share > 0.9


def test_the_document_tells_each_criterion(steady: Report) -> None:
    """docs/loadtest.md says what each criterion is, by its name."""
    text = (Path(__file__).parents[2] / "docs" / "loadtest.md").read_text()

    assert [one.name for one in steady.criteria if f"| {one.name} |" not in text] == []


def test_a_rise_passes() -> None:
    """Synthetic: CPU and memory rise, k6 held its thresholds, so that all that is required is so."""
    found = make(kept())

    assert found.outcome == "passed"
    assert telling.EXIT[found.outcome] == 0
    by = {one.workload.name: one for one in found.services}
    assert by["web"].cpu_cores.mean_factor() == pytest.approx(24, rel=0.1)
    assert by["store"].memory_bytes.most_factor() == pytest.approx(2)
    assert by["web"].throttled_seconds == pytest.approx(48)
    assert by["web"].throttled_share == pytest.approx(0.8)
    assert by["store"].throttled_seconds is None


def test_the_service_that_saturated_first_is_named_with_its_sign() -> None:
    """Synthetic: web's container is throttled from the beginning of the load on, by its limit of 500m."""
    found = make(kept())

    assert [one.name for one in found.saturated] == ["web"]
    text = markdown.render(found)
    assert "web, 0:00 min after the load began: container web throttled in 80% of its periods by its CPU limit" in text


def test_the_earlier_sign_is_named_first() -> None:
    """Synthetic: store waits for I/O a minute before web is throttled."""
    answers = shop()
    late = {**WEB, "container": "web"}
    answers["containers"] = answer(
        made("pod_container_cpu_periods_total", counted(10), **late),
        made("pod_container_cpu_throttled_periods_total", lambda at: 9 * max(0.0, min(at, 180) - 120), **late),
    )
    told = json.loads(answers["pods"])
    waits = made("pod_cgroup_io_pressure_seconds_total", counted(0.9), **STORE, stalled="some")
    told["data"]["result"] += json.loads(answer(waits))["data"]["result"]
    answers["pods"] = json.dumps(told).encode()

    found = make(kept(answers=answers))

    assert [one.name for one in found.saturated] == ["store", "web"]
    assert {one.workload.name: one.signals[0].since_seconds for one in found.services} == {"store": 0.0, "web": 60.0}


def test_crossed_thresholds_fail_and_are_named() -> None:
    """All posts fail, a tenth of the requests: the whole stays near 10%, and the endpoint's threshold tells."""
    found = make(kept("load-compose-fails.log", exit_code=99, ending="Error"))

    errors = next(one for one in found.criteria if one.name == "errors under 10%")
    assert (found.outcome, telling.EXIT[found.outcome]) == ("failed", 1)
    assert errors.state == "failed"
    assert "http_req_failed{endpoint:compose} rate<0.10" in errors.text


def test_a_crossed_threshold_that_no_summary_names_still_fails() -> None:
    """k6 ended with 99, and the summary says that all held: one of the two is wrong, which is no success."""
    found = make(kept("load-held.log", exit_code=99, ending="Error"))

    assert found.outcome == "failed"
    assert states(found)["other thresholds"] == "failed"


def test_dropped_iterations_are_told() -> None:
    """An open profile that could not keep its rate asked less than was meant."""
    found = make(kept("latency-stalls.log", exit_code=99, ending="Error"))

    assert any("21 iterations were not begun" in note for note in found.notes)


@pytest.mark.parametrize(("code", "ending"), [(107, "Error"), (105, "Error"), (None, "DeadlineExceeded")])
def test_a_broken_run_is_no_verdict(code: int | None, ending: str) -> None:
    """Neither success nor failure: it could not be run."""
    found = make(kept("load-nothing-answers.log", exit_code=code, ending=ending))

    assert (found.outcome, telling.EXIT[found.outcome]) == ("broken", 2)
    assert found.summary is None


def test_a_starved_client_is_told() -> None:
    """Synthetic: k6 uses nine tenths of its node, so that latencies are its own; the verdict does not hang on it."""
    answers = {**shop(), "client": answer(made("pod_cpu_usage_cores", under(3.6, 0), **CLIENT))}

    found = make(kept(answers=answers))

    assert found.client.starved is True
    assert states(found)["k6 had CPU to spare"] == "failed"
    assert found.outcome == "passed"
    assert "These latencies are k6's own as well" in html.render(found).replace("&#x27;", "'")


def test_a_limit_below_the_node_is_the_clients_capacity() -> None:
    """Synthetic: 1 core used of a limit of 1.1 starves, of a node of 4 it does not."""
    assert make(kept()).client.starved is False
    limited = make(kept(client_limit_cores=1.1)).client
    assert (limited.capacity_is, limited.starved) == ("limit", True)


def test_a_client_that_waits_for_cpu_is_starved() -> None:
    """Synthetic: k6 uses little, as others on its node leave it little."""
    waits = {**CLIENT, "stalled": "some"}
    answers = {
        **shop(),
        "client": answer(
            made("pod_cpu_usage_cores", under(0.5, 0), **CLIENT),
            made("pod_cgroup_cpu_pressure_seconds_total", counted(0.6), **waits),
        ),
    }

    assert make(kept(answers=answers)).client.starved is True


def test_missing_is_never_nothing() -> None:
    """Without Prometheus' answers there is no CPU, not 0, and the verdict is that it is not known."""
    found = make(kept(answers={}, missing={"prometheus/pods.json": "it does not answer"}))

    assert found.outcome == "incomplete"
    assert states(found)["CPU rises"] == states(found)["memory rises"] == "missing"
    assert found.total_cpu.during.mean is None
    assert "prometheus/pods.json is missing: it does not answer." in found.notes
    assert json.loads(report.to_json(found))["total_cpu"]["during"]["mean"] is None


def test_no_series_are_no_services() -> None:
    """Prometheus answers and knows no pod: the report says so and is made all the same."""
    found = make(kept(answers={name: answer() for name in shop()}))

    assert found.services == ()
    assert [one.share for one in found.coverage] == [0.0, 0.0, 0.0]
    assert "There are no samples from before the load." in found.notes
    assert "Prometheus has no series of the application" in markdown.render(found)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "is no JSON"),
        (b'{"status": "error", "error": "query timed out"}', "Prometheus refuses: query timed out"),
        (b'{"status": "success", "data": {"result": [{"metric": {}}]}}', "series without their samples"),
        (b"[]", "is no object"),
    ],
)
def test_a_broken_answer_is_told(body: bytes, said: str) -> None:
    """The answer is named, the rest is used."""
    found = make(kept(answers={**shop(), "containers": body}))

    assert any("prometheus/containers.json cannot be used" in note and said in note for note in found.notes)
    assert found.total_cpu.during.mean is not None


def test_a_value_that_is_no_number_is_no_sample() -> None:
    """Synthetic: a percentile of no requests is NaN in Prometheus, and is not drawn or written as a number."""
    nothing = made("k6_http_req_duration_p95", lambda at: math.nan if at < 60 else 0.2, endpoint="compose")
    found = make(kept(answers={**shop(), "k6": answer(nothing)}))

    ((_, latency),) = found.load["latency"]
    assert {one for one in latency.values if one is not None} == {0.2}
    assert "NaN" not in report.to_json(found)


def test_a_partial_span_is_said_to_be_partial() -> None:
    """Synthetic: Prometheus has the last quarter of a minute before the load."""
    answers = shop()
    cut = json.loads(answers["pods"])
    for one in cut["data"]["result"]:
        one["values"] = one["values"][9:]
    answers = {"pods": json.dumps(cut).encode()}

    notes = make(kept(answers=answers)).notes

    assert any(re.match(r"The span before the load is partial: samples of 1\d of 60 s\.", note) for note in notes), (
        notes
    )


def test_a_gap_under_load_is_told() -> None:
    """Synthetic: of a pod's CPU half a minute is missing; its mean is of the rest, and the line is broken."""
    answers = shop()
    gap = made("pod_cpu_usage_cores", lambda at: None if 90 < at < 125 else 0.4, **WEB)
    info = made("pod_info", lambda _: 1, **WEB, workload_kind="Deployment", workload_name="web")
    answers["pods"] = answer(gap, info)

    found = make(kept(answers=answers))

    assert any("has gaps for web" in note for note in found.notes)
    assert found.services[0].cpu_cores.during.mean == pytest.approx(0.4)
    assert None in found.services[0].cpu.values


def test_pods_without_a_workload_are_services_of_their_own() -> None:
    """Synthetic: a pod that pod_info does not tell of is not left out."""
    found = make(kept(answers={"pods": answer(made("pod_cpu_usage_cores", under(1, 0.1), **WEB))}))

    assert [(one.workload.kind, one.workload.name) for one in found.services] == [("Pod", "web-5d9-x")]


def test_the_pods_of_a_workload_are_one_service() -> None:
    """Synthetic: an autoscaled service is the sum of its pods, of which the second comes under load."""
    second = {"namespace": "shop", "pod": "web-5d9-y"}
    owner = {"workload_kind": "Deployment", "workload_name": "web"}
    found = make(
        kept(
            answers={
                "pods": answer(
                    made("pod_info", lambda _: 1, **WEB, **owner),
                    made("pod_info", lambda _: 1, **second, **owner),
                    made("pod_cpu_usage_cores", under(0.5, 0.1), **WEB),
                    made("pod_cpu_usage_cores", lambda at: 0.3 if at > 120 else None, **second),
                )
            }
        )
    )

    assert [(one.workload.name, one.pods_most) for one in found.services] == [("web", 2)]
    assert found.services[0].cpu_cores.during.most == pytest.approx(0.8)


def test_where_the_metrics_api_was_not_had_the_kubelets_comparison_counts() -> None:
    """Synthetic: serve --verify-interval compared ten containers, and one of a hundred lay outside."""
    compared = made("podtally_kubelet_compared_containers", lambda _: 10, quantity="cpu")
    outside = made("podtally_kubelet_outside_containers", lambda at: float(at % 50 == 0), quantity="cpu")
    found = make(kept(answers={**shop(), "kubelet": answer(compared, outside)}))

    assert found.agreement.source == "kubelet"
    assert states(found)["agrees with kubectl top within 10%"] == "passed"


def test_what_could_not_be_compared_is_no_failure() -> None:
    """The metrics API refused: the criterion is not known, and success does not hang on it."""
    line = json.dumps({"error": "Error from server (NotFound): the server could not find the requested resource"})

    found = make(replace(kept(), peer=line.encode()))

    assert (found.outcome, states(found)["agrees with kubectl top within 10%"]) == ("passed", "missing")
    assert "NotFound" in (found.agreement.why_not or "")


def test_the_page_stands_by_itself(steady: Report) -> None:
    """No script, nothing that is fetched, and plots that are well-formed."""
    for page in (html.render(steady), html.render(make(kept()))):
        assert not re.search(r"<script|<link|src=|href=|url\(|@import", page)
        plots = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
        assert len(plots) > 4
        for one in plots:
            ET.fromstring(re.sub(r"=([\w-]+)(?=[ >/])", r'="\1"', one))


def test_load_over_time_is_drawn() -> None:
    """Synthetic: k6's own series give virtual users, requests a second over all of their statuses, and latency."""
    found = make(kept())

    ((_, rates),) = found.load["requests"]
    assert max(one for one in rates.values if one is not None) == pytest.approx(40)
    page = html.render(found)
    for title in ("Virtual users", "Requests a second by endpoint", "Latency by endpoint"):
        assert title in page


def test_names_cannot_break_out_of_the_page() -> None:
    """Synthetic: what comes from the cluster is text, in HTML and in Markdown."""
    bad = {"namespace": "shop", "pod": "<script>x|y"}
    found = make(kept(answers={"pods": answer(made("pod_cpu_usage_cores", under(1, 0.1), **bad))}))

    assert "<script>" not in html.render(found)
    assert "&lt;script>x\\|y" in markdown.render(found)


@pytest.mark.parametrize("name", ["pods", "containers", "kubelet", "k6", "client"])
def test_a_kept_answer_that_is_gone_is_named(tmp_path: Path, name: str) -> None:
    """Of a folder that was copied in part, the file is blamed, and not Prometheus or podtally."""
    shutil.copytree(STEADY, tmp_path / "run")
    (tmp_path / "run" / "prometheus" / f"{name}.json").unlink()

    found = Folder(str(tmp_path / "run")).report()

    text = markdown.render(found)
    assert f"prometheus/{name}.json is missing: copy it again from where the run was made." in found.notes
    assert "Prometheus has no series" not in text
    assert ("k6's own series are not in Prometheus" in text) is (name != "k6"), "which are none in the kept run"
    assert "is podtally on its node?" not in text


def test_what_is_not_known_for_want_of_a_file_says_so(tmp_path: Path) -> None:
    """Without the pods' samples there is no rise and no agreement: each of them tells why."""
    shutil.copytree(STEADY, tmp_path / "run")
    (tmp_path / "run" / "prometheus" / "pods.json").unlink()
    (tmp_path / "run" / "prometheus" / "containers.json").unlink()

    found = Folder(str(tmp_path / "run")).report()

    said = {one.name: one.text for one in found.criteria}
    assert said["CPU rises"] == said["memory rises"] == "prometheus/pods.json is missing"
    assert found.agreement.why_not == "there are no samples of podtally's to compare with"


def test_the_metrics_apis_answers_that_are_gone_are_named(tmp_path: Path) -> None:
    """It is not said that nobody asked."""
    shutil.copytree(STEADY, tmp_path / "run")
    (tmp_path / "run" / "metrics-api.jsonl").unlink()

    found = Folder(str(tmp_path / "run")).report()

    assert "metrics-api.jsonl is missing: copy it again from where the run was made." in found.notes
    assert found.agreement.why_not == "metrics-api.jsonl is missing"


def test_an_unreadable_line_is_named_and_the_rest_is_used(tmp_path: Path) -> None:
    """Where a file was cut or edited, one can look."""
    shutil.copytree(STEADY, tmp_path / "run")
    kept_lines = (STEADY / "metrics-api.jsonl").read_bytes().splitlines()
    (tmp_path / "run" / "metrics-api.jsonl").write_bytes(b"\n".join([kept_lines[0], b"{", *kept_lines[2:-1], b"x"]))

    found = Folder(str(tmp_path / "run")).report()

    assert "metrics-api.jsonl, line 2 and 1 other: no answer of the metrics API; the rest is used." in found.notes
    assert found.agreement.source == "metrics-api"


def test_unreadable_lines_alone_are_no_comparison() -> None:
    """The criterion says which line."""
    found = make(replace(kept(), peer=b"{\n"))

    assert found.agreement.why_not == "metrics-api.jsonl, line 1: no answer of the metrics API"


def test_requests_of_no_endpoint_are_told(steady: Report) -> None:
    """The lines of the table do not add up to its last one: both forms say why, under it."""
    note = "All counts 1 request more than the endpoints: before the load begins, the script asks whether"

    assert re.search(rf"\| all \| 2 801 \|[^\n]*\n\n{note}", markdown.render(steady))
    assert re.search(rf"</table></div>\n<p>{note}", html.render(steady))


def test_requests_that_add_up_need_no_note(steady: Report) -> None:
    """Synthetic: an endpoint has all of them."""
    assert steady.summary is not None
    total = steady.summary.total
    found = replace(steady, summary=replace(steady.summary, endpoints=(total,)))

    assert "more than the endpoints" not in markdown.render(found)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{\n"version": 1', "is no JSON (line 2): copy it again from where the run was made"),
        (b"{\xff}", "is no text: copy it again"),
        (b"{}", "is not whole, it has no 'version': copy it again"),
        (b'{"version": 1, "profile": "load", "testid": "t", "spans": {}}', "has no 'spans.before': copy it again"),
        (b"[]", "is not as podtally loadtest run writes it: copy it again"),
        (b'{"version": 9}', "is of version 9, and 1 is known"),
    ],
)
def test_a_folder_with_another_run_json_is_refused(tmp_path: Path, body: bytes, said: str) -> None:
    """One sentence with its path and what to do, and no names of classes."""
    (tmp_path / "run.json").write_bytes(body)

    done = podtally("loadtest", "report", tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert f"{tmp_path}/run.json is " in done.stderr
    assert said in done.stderr
    assert "Error:" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["text.txt", "nowhere"])
def test_what_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    """A file, or nothing."""
    (tmp_path / "text.txt").write_text("")

    done = podtally("loadtest", "report", tmp_path / name)

    assert (done.returncode, done.stdout) == (2, "")
    assert f"{tmp_path}/{name} is no folder: name that of a run" in done.stderr


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    """The sentence says what to name."""
    done = podtally("loadtest", "report", tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert "has no run.json: name the folder of a run" in done.stderr
