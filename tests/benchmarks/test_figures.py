"""Percentiles, histograms and timelines of a load: exact on values that can be counted by hand."""

from xml.etree import ElementTree as ET

import pytest

from benchmarks import picture
from benchmarks.bench import spread
from benchmarks.load import figures


def test_percentiles_are_nearest_rank() -> None:
    ordered = [float(value) for value in range(1, 101)]
    assert figures.percentile(ordered, 50) == 50
    assert figures.percentile(ordered, 99) == 99
    assert figures.percentile(ordered, 99.9) == 100
    assert figures.percentile([7.0], 50) == 7


def test_a_summary_is_in_milliseconds() -> None:
    assert figures.summary([0.003, 0.001, 0.002]) == {
        "p50_ms": 2.0,
        "p95_ms": 3.0,
        "p99_ms": 3.0,
        "p999_ms": 3.0,
        "max_ms": 3.0,
    }


def test_a_summary_of_nothing_has_no_figures() -> None:
    assert set(figures.summary([]).values()) == {None}


def test_every_latency_is_in_one_bucket_that_reaches_it() -> None:
    buckets = figures.histogram([0.001, 0.001, 0.0105, 2.0])
    assert sum(count for _, count in buckets) == 4
    assert buckets[0] == (1.0, 2)
    assert [upper for upper, _ in buckets] == sorted(upper for upper, _ in buckets)
    assert figures.within(buckets, 50) == 1.0
    assert 2_000 <= figures.within(buckets, 100) < 2_000 * 1.13
    assert 10.5 <= figures.within(buckets, 75) < 10.5 * 1.13


def test_a_timeline_counts_tenths_of_a_second() -> None:
    assert figures.timeline([0.01, 0.09, 0.11, 0.35]) == [2, 1, 0, 1]
    assert figures.timeline([]) == []


def test_rounds_are_percentiles_of_whole_rounds() -> None:
    row = spread("three", [6.0, 2.0, 4.0], payments=3)
    assert (row.p50_ms, row.p95_ms, row.rate) == (4.0, 6.0, 750.0)


@pytest.mark.parametrize("lines", [[], [("hot <pool>", [(1.0, 3), (10.0, 1)]), ("nothing", [])]])
def test_the_picture_is_xml_with_one_curve_a_line(lines: list[tuple[str, list[tuple[float, int]]]]) -> None:
    root = ET.fromstring(picture.draw(lines, "A & B"))  # noqa: S314 - our own
    curves = [node for node in root.iter() if node.tag.endswith("polyline")]
    assert len(curves) == sum(1 for _, buckets in lines if buckets)
    words = [node.text for node in root.iter() if node.tag.endswith("text")]
    assert "latency of one payment, ms (logarithmic)" in words
    for name, buckets in lines:
        assert (name in words) is bool(buckets)
