"""``/metrics/resource`` has the kubelet's form; its numbers are held against the kubelet's in tests/parity."""

from __future__ import annotations

import re

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from collector.metrics import resource
from tests.replays import last_tally
from tests.support import CAPTURED, recording

HEAD = re.compile(r"# (HELP|TYPE) (\S+) (.*)")


def kubelets_page(name: str) -> str:
    """The page that the kubelet gave in the last frame."""
    answers = recording(name).frames[-1].answers
    (body,) = [one.body for one in answers if one.name == "kubelet/metrics_resource.txt" and one.body]
    return body.decode()


def our_page(name: str) -> str:
    """Ours after the last frame."""
    return resource.render(last_tally(name), openmetrics=False)


@pytest.mark.parametrize("name", CAPTURED)
def test_families_help_types_and_order_are_the_kubelets(name: str) -> None:
    """The heads are the same lines in the same order, but for scrape_error, which a released kubelet hides."""
    theirs = [line for line in kubelets_page(name).splitlines() if HEAD.match(line) and " scrape_error " not in line]
    ours = [line for line in our_page(name).splitlines() if HEAD.match(line)]

    assert ours == theirs


@pytest.mark.parametrize("name", CAPTURED)
def test_labels_and_timestamps_are_where_the_kubelet_has_them(name: str) -> None:
    """Each family has the kubelet's label names in its order, and a timestamp exactly where it has one."""
    form = re.compile(r"(\w+)(?:\{(.*)\})? \S+( \d{13})?$")

    def forms(page: str) -> set[tuple[str, tuple[str, ...], bool]]:
        found = set()
        for line in page.splitlines():
            if not line.startswith(("#", "scrape_error")):
                match = form.match(line)
                assert match, line
                found.add((match[1], tuple(re.findall(r"(\w+)=", match[2] or "")), match[3] is not None))
        return found

    assert forms(our_page(name)) == forms(kubelets_page(name))


def test_without_a_tally_there_is_but_the_error() -> None:
    """As the kubelet's page when it has no statistics: HTTP 200 and the error alone."""
    assert resource.render(None, openmetrics=False) == (
        "# HELP resource_scrape_error [STABLE] 1 if there was an error while getting container metrics, 0 otherwise\n"
        "# TYPE resource_scrape_error gauge\n"
        "resource_scrape_error 1.0\n"
    )


def test_a_pod_without_a_running_container_has_no_row() -> None:
    """A crash-looping pod between two crashes is in the tally and not on the page."""
    tally = last_tally("systemd-containerd.tar.zst")

    assert "crasher" in {pod.pod.name for pod in tally.pods}
    assert "crasher" not in our_page("systemd-containerd.tar.zst")


def test_times_are_shifted_for_a_served_replay() -> None:
    """Timestamps and start times move each by their own shift."""
    tally = last_tally("restart")
    page = resource.render(tally, openmetrics=False, shift_ns=5_000_000_000, start_shift_ns=7_000_000_000)
    before = resource.render(tally, openmetrics=False)

    def numbers(text: str, name: str) -> list[list[float]]:
        lines = [line for line in text.splitlines() if line.startswith(name)]
        return [[float(word) for word in line.split()[1:]] for line in lines]

    cpu, start = "container_cpu_usage_seconds_total{", "container_start_time_seconds{"
    assert numbers(page, cpu) == [[value, at + 5000] for value, at in numbers(before, cpu)]
    assert numbers(page, start) == [[pytest.approx(value + 7)] for (value,) in numbers(before, start)]


def test_openmetrics_has_seconds_and_an_end() -> None:
    """Asked for OpenMetrics, timestamps are seconds, counters lose _total in the head, and it ends with EOF."""
    tally = last_tally("restart")
    page = resource.render(tally, openmetrics=True)
    families = {family.name: family for family in parse_openmetrics(page)}

    assert "container_cpu_usage_seconds" in families
    stamp = families["pod_memory_working_set_bytes"].samples[0].timestamp
    assert abs(float(stamp) - tally.instant.time_ns / 1e9) < 1
