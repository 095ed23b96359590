"""The confirm rule: the slot forgets nothing that Redis may still lose."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cdc.progress import Progress
from transforms.position import LSN

DELAY = 2.0


def test_what_is_stored_is_published_at_once_and_confirmed_after_the_delay() -> None:
    progress = Progress(LSN(100), DELAY)
    progress.stored(LSN(200), now=10.0)
    assert progress.published == 200
    assert progress.confirmable(now=11.99) == 100
    assert progress.confirmable(now=12.0) == 200


def test_without_a_delay_what_is_stored_is_confirmed_at_once() -> None:
    progress = Progress(LSN(100), 0.0)
    progress.stored(LSN(200), now=10.0)
    assert progress.confirmable(now=10.0) == 200


def test_each_position_waits_for_its_own_delay() -> None:
    progress = Progress(LSN(0), DELAY)
    for second in range(1, 4):
        progress.stored(LSN(second * 100), now=float(second))
    confirmed = [progress.confirmable(now=second + DELAY) for second in (0.5, 1.0, 2.9, 3.0)]
    assert confirmed == [0, 100, 200, 300]


def test_a_position_that_goes_back_is_ignored() -> None:
    progress = Progress(LSN(300), DELAY)
    progress.stored(LSN(200), now=1.0)
    assert (progress.published, progress.confirmable(now=100.0)) == (300, 300)
    assert progress.settled


def test_it_is_settled_when_all_that_is_published_is_confirmed() -> None:
    progress, settled = Progress(LSN(0), DELAY), []
    settled.append(progress.settled)
    progress.stored(LSN(1), now=0.0)
    settled.append(progress.settled)
    progress.confirmable(now=DELAY)
    settled.append(progress.settled)
    assert settled == [True, False, True]


steps = st.lists(st.tuples(st.sampled_from(["store", "ask"]), st.integers(0, 20), st.floats(0, 3)), max_size=40)


@given(steps, st.floats(0, 5))
def test_confirming_never_goes_back_never_passes_what_is_published_and_never_comes_early(
    taken: list[tuple[str, int, float]], delay: float
) -> None:
    progress, now = Progress(LSN(5), delay), 0.0
    stored: list[tuple[LSN, float]] = []
    confirmed = LSN(5)
    for what, lsn, pause in taken:
        now += pause
        if what == "store":
            progress.stored(LSN(lsn), now)
            stored.append((LSN(lsn), now))
            assert progress.published == max(5, *(end for end, _ in stored))
            continue
        confirmable = progress.confirmable(now)
        ripe = [end for end, at in stored if at + delay <= now]
        assert confirmed <= confirmable <= progress.published
        assert confirmable == max([LSN(5), *ripe])
        confirmed = confirmable
