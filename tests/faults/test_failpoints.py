"""A death, and an error that is survived, at each arrow of the confirm rule and of a sink's transaction."""

from __future__ import annotations

from itertools import cycle

import pytest

from tests.checker import confirmed_stays_behind_published
from tests.faults.pair import RESUME_SECONDS, Pair, chance
from tests.processes import Pipeline, wait_until
from tests.workload import Workload
from transforms.failpoints import OF_READER, OF_SINK, Failpoint


@pytest.mark.parametrize(
    ("rounds", "passes", "per_second"),
    [pytest.param(1, 3, 40, id="short"), pytest.param(10, 40, 200, id="long", marks=pytest.mark.soak)],
)
@pytest.mark.timeout(1800)
def test_nothing_is_wrong_after_a_death_at_each_arrow(
    shop: Pipeline, rounds: int, passes: int, per_second: int
) -> None:
    """Each process dies at the place, and when it is started again, an error there is survived as well."""
    assert len(OF_SINK) <= len(OF_READER), "a round takes one of each"
    dice = chance("failpoints", 1 if rounds == 1 else None)
    pair = Pair.start(shop, 500)
    pair.wait()
    load = Workload(shop.source_dsn, seed=dice.randrange(1 << 32), keys=200, transactions_per_second=per_second)
    with confirmed_stays_behind_published(shop), load.running():
        for at_reader, at_sink in rounds * list(zip(OF_READER, cycle(OF_SINK), strict=False)):
            places = ((pair.reader, at_reader), (pair.sink, at_sink))
            for command, place in places:
                pair.die(command, place, dice.randint(1, passes))
            for command, place in places:  # in this order: without a reader a sink has nothing to die at
                pair.wait_for_death(command, place)
                survived = command.output.count(line(place))
                pair.resume(command, fails_at=place, at=dice.randint(1, passes))
                wait_until(line(place), lambda c=command, p=place, s=survived: c.output.count(line(p)) > s)  # type: ignore[misc]
    for command in (pair.reader, pair.sink):
        pair.kill(command)
        pair.resume(command)  # with nothing that fails
    print(pair.judge(load))
    assert max(pair.recoveries["reader"]) < RESUME_SECONDS


def line(place: Failpoint) -> str:
    return f"failpoint {place}: error"
