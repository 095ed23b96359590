"""Durations counted into buckets."""

from __future__ import annotations

import pytest

from transforms.histogram import Histogram


def test_a_bucket_holds_all_that_took_at_most_its_bound() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        histogram.observe(seconds)
    assert histogram.cumulative() == [2, 3, 4]
    assert histogram.sum_seconds == pytest.approx(7.65)


def test_two_clocks_that_differ_give_no_negative_duration() -> None:
    histogram = Histogram((0.1,))
    histogram.observe(-3.0)
    assert histogram.cumulative() == [1, 1]
    assert histogram.sum_seconds == 0.0
