"""Rates of the kubelet's samples. Synthetic, for the spans and lives that no recording has."""

from __future__ import annotations

from collector.model import Reading
from collector.upstream.rates import Rates
from collector.upstream.samples import Measured, PodSample, Snapshot

SECOND_NS = 1_000_000_000
MS = 1000
"""Microseconds of CPU."""


def settled(rates: Rates, second: int, usage_usec: int | None, told: float | None, started: int = 0) -> Measured:
    """The container, after an answer with one pod of one container."""
    one = Measured(second * SECOND_NS, Reading(0, usage_usec), told, None, started * SECOND_NS)
    snapshot = rates.settle(Snapshot((PodSample("a", "p", "u", one, {"c": one}),), None, 0))
    (pod,) = snapshot.pods
    assert pod.whole is not None
    assert pod.whole[2:] == pod.containers["c"][2:], "pod and container are rated alike"
    return pod.containers["c"]


def rate(measured: Measured) -> tuple[float | None, float | None]:
    """Cores and seconds."""
    return measured.cpu_cores, None if measured.window_ns is None else measured.window_ns / SECOND_NS


def test_one_sample_has_no_rate() -> None:
    """The kubelet's own rate of the first sample seen is of a span that nobody knows."""
    assert rate(settled(Rates(), 100, 5000 * MS, 0.1)) == (None, None)


def test_the_kubelets_rate_is_taken_where_it_can_be_of_the_span() -> None:
    """1.5 s of CPU in 14 to 16 s are 93 to 107m: 0.0987 is the kubelet's of unrounded times."""
    rates = Rates()
    settled(rates, 100, 5000 * MS, 0.3)

    assert rate(settled(rates, 115, 6500 * MS, 0.0987)) == (0.0987, 15)


def test_the_kubelets_rate_of_another_span_is_not() -> None:
    """A sample in between that was not seen makes the kubelet's rate one of a second or two: it is not taken."""
    for told in (0.0, 0.0937, 0.108, 2.0, None):
        rates = Rates()
        settled(rates, 100, 5000 * MS, 0.3)
        assert rate(settled(rates, 115, 6500 * MS, told)) == (0.1, 15)


def test_an_idle_container_is_rated_0() -> None:
    """No CPU between two samples is 0, which the kubelet says as well."""
    rates = Rates()
    settled(rates, 100, 5000 * MS, 0.0)

    assert rate(settled(rates, 125, 5000 * MS, 0.0)) == (0.0, 25)


def test_the_same_sample_again_keeps_its_rate() -> None:
    """The kubelet is asked more often than it samples."""
    rates = Rates()
    settled(rates, 100, 5000 * MS, 0.3)
    first = rate(settled(rates, 115, 6500 * MS, 0.0987))

    assert [rate(settled(rates, 115, 6500 * MS, 0.0987)) for _ in range(3)] == [first] * 3


def test_the_span_is_at_least_ten_seconds_where_it_can_be() -> None:
    """Of samples 4 s apart the newest that is 10 s older is the one to start from."""
    rates = Rates()
    for second in (100, 104, 108, 112):
        settled(rates, second, second * 100 * MS, None)

    assert rate(settled(rates, 116, 11_600 * MS, None)) == (0.1, 12)


def test_a_short_span_has_a_rate_once_it_is_five_seconds_long() -> None:
    """Where a second is a quarter of the span there is no rate yet."""
    rates = Rates()
    settled(rates, 100, 5000 * MS, None)

    assert rate(settled(rates, 104, 5400 * MS, None)) == (None, None)
    assert rate(settled(rates, 105, 5500 * MS, None)) == (0.1, 5)


def test_a_container_that_begins_anew_has_no_history() -> None:
    """Another start is another container, though uid and name are the same."""
    rates = Rates()
    settled(rates, 100, 5000 * MS, 0.1, started=1)

    assert rate(settled(rates, 115, 6500 * MS, 0.1, started=90)) == (None, None)


def test_a_counter_that_falls_or_a_clock_that_goes_back_is_no_history() -> None:
    """There is no rate until two samples agree again."""
    rates = Rates()
    settled(rates, 100, 5000 * MS, 0.1)

    assert rate(settled(rates, 115, 400 * MS, 0.1)) == (None, None)
    assert rate(settled(rates, 110, 900 * MS, 0.1)) == (None, None)
    assert rate(settled(rates, 125, 2400 * MS, 0.1)) == (0.1, 15)


def test_what_was_not_in_an_answer_has_no_history() -> None:
    """A pod that is missing from one answer starts anew, as in metrics-server."""
    rates = Rates()
    settled(rates, 100, 5000 * MS, 0.1)
    rates.settle(Snapshot((), None, 0))

    assert rate(settled(rates, 115, 6500 * MS, 0.1)) == (None, None)


def test_without_a_counter_there_is_no_rate() -> None:
    """The kubelet's own rate beside no counter, as it has 0 for what it does not know, is not taken."""
    rates = Rates()
    settled(rates, 100, 5000 * MS, 0.1)

    assert rate(settled(rates, 115, None, 0.0)) == (None, None)


def counted(rates: Rates, second: int, usage_usec: int) -> tuple[int | None, int]:
    """What is told of the counter, and how many values were refused, of a container without a pod's own."""
    one = Measured(second * SECOND_NS, Reading(0, usage_usec), None)
    snapshot = rates.settle(Snapshot((PodSample("a", "p", "u", None, {"c": one}),), None, 0))
    return snapshot.pods[0].containers["c"].reading.cpu_usage_usec, snapshot.refused_values


def test_a_counter_that_falls_is_held_until_it_is_passed() -> None:
    """Each sample that is lower is counted once, however often it is shown."""
    rates = Rates()
    said = [counted(rates, *one) for one in ((100, 5000), (110, 4990), (110, 4990), (120, 4999), (130, 5001))]

    assert said == [(5000, 0), (5000, 1), (5000, 0), (5000, 1), (5001, 0)]


def test_a_counter_that_is_held_gives_no_peak() -> None:
    """Its rate is of what it was held at, 0, and then of what it has grown by since."""
    rates = Rates()
    settled(rates, 100, 5000 * MS, None)
    held = settled(rates, 110, 4990 * MS, None)

    assert rate(held) == (0.0, 10)
    assert rate(settled(rates, 120, 6000 * MS, None)) == (0.1, 10)


def test_a_counter_that_begins_anew_is_let_fall() -> None:
    """A pod whose node was booted has its old start and a counter near 0."""
    rates = Rates()
    said = [counted(rates, *one) for one in ((100, 5000), (110, 100), (120, 200))]

    assert said == [(5000, 0), (100, 0), (200, 0)]


def test_a_counter_that_grows_faster_than_any_node_is_absent() -> None:
    """More than 8192 CPUs could use; what comes after it goes on from what was before."""
    rates = Rates()
    said = [counted(rates, *one) for one in ((100, 5000 * MS), (110, 10**12), (120, 7000 * MS))]

    assert said == [(5000 * MS, 0), (None, 1), (7000 * MS, 0)]
