from __future__ import annotations

import pytest

from qiyu.metrics import SAMPLE_SECONDS, Histogram, LatencySample, Metrics


def test_a_histogram_counts_what_is_at_a_bound_below_it() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 1.0, 7.0):
        histogram.observe(seconds)
    assert histogram.counts == [2, 2, 1]
    assert histogram.total == pytest.approx(8.65)
    assert repr(histogram) == "<Histogram of 5, 8.65 s in all>"


def test_one_message_at_a_time_is_timed() -> None:
    sample = LatencySample(Histogram((1.0, 5.0)))
    sample.accepted(1, 10.0)
    sample.accepted(2, 11.0)
    sample.delivered(2, 3)
    assert not sample.is_delivered
    sample.delivered(1, 3)
    assert sample.is_delivered
    sample.sent(13.0)
    assert (sample.histogram.counts, sample.histogram.total) == ([0, 1, 0], 3.0)
    sample.accepted(3, 20.0)
    sample.delivered(3, 1)
    sample.sent(20.5)
    assert sample.histogram.counts == [1, 1, 0]


def test_a_message_that_goes_to_nobody_gives_way_to_the_next() -> None:
    sample = LatencySample(Histogram((1.0,)))
    sample.accepted(1, 10.0)
    sample.delivered(1, 0)
    sample.accepted(2, 11.0)
    sample.delivered(2, 1)
    assert sample.is_delivered


def test_a_message_that_never_gets_there_gives_way_after_a_while() -> None:
    sample = LatencySample(Histogram((1.0,)))
    sample.accepted(1, 10.0)
    sample.accepted(2, 10.0 + SAMPLE_SECONDS)
    sample.delivered(2, 1)
    assert not sample.is_delivered
    sample.accepted(3, 10.1 + SAMPLE_SECONDS)
    sample.delivered(3, 1)
    sample.sent(10.6 + SAMPLE_SECONDS)
    assert sample.histogram.total == pytest.approx(0.5)


def test_two_servers_in_one_process_count_apart() -> None:
    one, two = Metrics(), Metrics()
    one.turn_seconds.observe(1.0)
    one.latency.histogram.observe(1.0)
    assert sum(two.turn_seconds.counts) == sum(two.delivery_seconds.counts) == 0
    assert sum(one.delivery_seconds.counts) == 1
