"""How fast a log grows, told so that neither a burst nor a pause between two bursts is taken for all there is."""

from __future__ import annotations

import json

import pytest

from cdc.growth import ENOUGH_SECONDS, Growth
from transforms.position import LSN

NOW = 1_790_000_000.0


def watched(rates: list[float]) -> list[Growth]:
    """Looks once a second at a log that grows by so many bytes in each."""
    found, position = [Growth(NOW, LSN(1000))], 1000.0
    for second, rate in enumerate(rates, 1):
        position += rate
        found.append(found[-1].noted(NOW + second, LSN(int(position))))
    return found


def test_a_steady_writer_is_told_from_the_second_look_on() -> None:
    assert [growth.bytes_per_second for growth in watched([5000.0] * 3)[1:]] == pytest.approx([5000.0] * 3)


def test_a_writer_in_bursts_is_told_within_a_fifth_at_any_moment() -> None:
    told = [growth.bytes_per_second for growth in watched([10e6, *[0.0] * 9] * 60)[120:]]
    assert 0.8e6 < min(told) < max(told) < 1.2e6


def test_after_a_change_of_load_it_has_followed_by_nine_tenths_within_minutes() -> None:
    assert watched([0.0] * 300 + [1000.0] * 150)[-1].bytes_per_second > 900


def test_who_looks_again_after_hours_finds_the_mean_since_then() -> None:
    [*_, last] = watched([1000.0] * 60)
    again = last.noted(last.at + 7200, LSN(last.position + 7200 * 50))
    assert again.bytes_per_second == pytest.approx(50.0)


def test_a_moment_is_not_enough() -> None:
    known = [growth.is_known for growth in watched([1.0] * 20)]
    assert known.index(True) == ENOUGH_SECONDS


@pytest.mark.parametrize(("at", "position"), [(NOW + 100, 5), (NOW - 100, 10**6)])
def test_another_log_and_another_clock_begin_anew(at: float, position: int) -> None:
    [*_, last] = watched([1000.0] * 60)
    assert last.noted(at, LSN(position)) == Growth(at, LSN(position))


def test_the_same_moment_twice_tells_nothing() -> None:
    [*_, last] = watched([1000.0] * 60)
    assert last.noted(last.at, last.position) == last


def test_it_is_stored_and_read_again() -> None:
    [*_, last] = watched([1000.0] * 60)
    assert Growth.read(json.loads(json.dumps(last.to_dict()))) == last
    assert Growth.read(None) is None
