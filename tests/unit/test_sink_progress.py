"""A sink that fills its replicas tells how far it is, every ten seconds and no longer than it does so."""

from __future__ import annotations

import pytest

from sinks.progress import FillingLog


def test_rows_and_rate_are_told_while_a_run_is_in_hand(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    progress = FillingLog()
    for second in range(26):
        progress.observe(["order.v1", "item.v1"], 500 + 2_000 * second, float(second))
    assert caplog.messages == [
        "filling replicas of order.v1, item.v1: 20,500 rows written, 2,000 rows/s",
        "filling replicas of order.v1, item.v1: 40,500 rows written, 2,000 rows/s",
    ]


def test_a_run_begun_later_is_not_measured_from_the_end_of_the_one_before(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    progress = FillingLog()
    progress.observe(["order.v1"], 0, 0.0)
    progress.observe([], 100, 5.0)
    progress.observe(["order.v1"], 100_000, 500.0)
    assert caplog.messages == []
    progress.observe(["order.v1"], 101_000, 510.0)
    assert caplog.messages == ["filling replicas of order.v1: 101,000 rows written, 100 rows/s"]
