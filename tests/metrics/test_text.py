"""Numbers, labels and heads are those of prometheus_client."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from collector.metrics import text


@settings(max_examples=500)
@given(st.one_of(st.floats(), st.integers(-(2**63), 2**64), st.integers(0, 10**7)))
def test_any_number_is_written_as_prometheus_client_does(value: float) -> None:
    """Floats and integers of any size, signs, infinities and NaN give the same text."""
    assert text.number(value) == floatToGoString(value)


@settings(max_examples=300)
@given(st.integers(0, 2**64))
def test_a_number_is_read_back_as_the_float_that_it_is(value: int) -> None:
    """No digit of a float is lost."""
    assert float(text.number(value)) == float(value)


def test_a_value_that_is_no_number_is_nan() -> None:
    """NaN is written as Go reads it."""
    assert text.number(math.nan) == "NaN"


class _One(Collector):
    def __init__(self, family: GaugeMetricFamily) -> None:
        self._family = family

    def collect(self) -> list[GaugeMetricFamily]:
        return [self._family]


@settings(max_examples=200)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_any_label_and_help_are_written_as_prometheus_client_does(value: str, help_text: str) -> None:
    """Backslashes, quotes and line ends of label values and help are escaped alike in both formats."""
    family = GaugeMetricFamily("some_bytes", help_text, labels=["namespace", "pod"], unit="bytes")
    family.add_metric(["a", value], 1)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_One(family))
    line = f"some_bytes{text.labels({'pod': value, 'namespace': 'a'})} 1.0"

    def head(openmetrics: bool) -> str:
        return text.head("some_bytes", "gauge", help_text, "bytes", openmetrics=openmetrics)

    assert f"{head(False)}\n{line}\n" == generate_latest(registry).decode()
    assert f"{head(True)}\n{line}\n# EOF\n" == generate_openmetrics(registry).decode()


def test_a_label_value_is_read_back_as_it_was() -> None:
    """What is escaped is unescaped by a parser of the format."""
    value = 'back\\slash "quoted"\nsecond line'
    page = f"# TYPE a gauge\na{text.labels({'pod': value})} 1\n"

    (family,) = text_string_to_metric_families(page)
    assert family.samples[0].labels == {"pod": value}


def test_timestamps_are_milliseconds_or_seconds() -> None:
    """The text format has whole milliseconds, OpenMetrics seconds: mixing them up moves samples by millennia."""
    assert text.timestamp(1_795_412_409_871_999_999, openmetrics=False) == "1795412409871"
    assert text.timestamp(1_795_412_409_071_999_999, openmetrics=True) == "1795412409.071"
