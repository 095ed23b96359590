"""Distances in bytes of log, told in seconds."""

from __future__ import annotations

from cdc.trail import MOST_SAMPLES, Trail
from transforms.position import LSN


def trail(*samples: tuple[float, int]) -> Trail:
    made = Trail()
    for at, position in samples:
        made.note(at, LSN(position))
    return made


def test_who_has_reached_the_end_is_not_behind() -> None:
    assert trail((1.0, 100), (2.0, 200)).behind_seconds(LSN(200), now=60.0) == 0.0
    assert Trail().behind_seconds(LSN(0), now=60.0) == 0.0


def test_the_lag_is_the_age_of_the_oldest_sample_that_is_not_reached() -> None:
    found = trail((1.0, 100), (2.0, 200), (3.0, 300))
    assert found.behind_seconds(LSN(100), now=10.0) == 8.0
    assert found.behind_seconds(LSN(150), now=10.0) == 8.0
    assert found.behind_seconds(LSN(299), now=10.0) == 7.0


def test_an_end_that_stays_keeps_the_time_at_which_it_was_seen_first() -> None:
    found = trail((1.0, 100), (2.0, 100), (9.0, 100))
    assert found.behind_seconds(LSN(50), now=10.0) == 9.0


def test_a_backlog_from_before_the_first_sample_is_known_to_be_a_lower_bound() -> None:
    found = trail((1.0, 100), (2.0, 200))
    assert found.is_older_than_all(LSN(99))
    assert not found.is_older_than_all(LSN(100))
    assert not Trail().is_older_than_all(LSN(0))


def test_of_such_a_backlog_the_age_of_what_was_delivered_last_tells_more() -> None:
    found = trail((1.0, 100), (2.0, 200))
    assert found.lag_seconds(LSN(99), now=10.0, newest_age=3600.0) == 3600.0
    assert found.lag_seconds(LSN(99), now=10.0, newest_age=None) == 9.0
    assert found.lag_seconds(LSN(100), now=10.0, newest_age=3600.0) == 8.0
    assert found.lag_seconds(LSN(200), now=10.0, newest_age=3600.0) == 0.0


def test_a_log_that_went_back_begins_a_new_trail() -> None:
    found = trail((1.0, 1000), (2.0, 50))
    assert found.latest == LSN(50)
    assert found.behind_seconds(LSN(50), now=9.0) == 0.0


def test_a_long_trail_stays_small_and_keeps_its_ends() -> None:
    found = Trail()
    for second in range(10 * MOST_SAMPLES):
        found.note(float(second), LSN(second + 1))
    now = 10.0 * MOST_SAMPLES
    assert found.behind_seconds(LSN(0), now) == now
    assert found.behind_seconds(LSN(int(now) - 1), now) == 1.0
    assert len(found._samples) <= MOST_SAMPLES


def test_growth_is_taken_over_the_window_or_since_the_first_sample() -> None:
    found = trail((0.0, 1000), (10.0, 2000), (20.0, 2500))
    assert found.growth(20.0, window_seconds=300) == 75.0
    assert found.growth(20.0, window_seconds=10) == 50.0
    assert found.growth(40.0, window_seconds=25) == 500 / 30  # it has stood still for a while
    assert found.growth(1000.0, window_seconds=10) == 0.0
    assert trail((5.0, 100)).growth(5.0, window_seconds=10) is None
    assert Trail().growth(5.0, window_seconds=10) is None
