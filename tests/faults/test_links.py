"""Whatever happens to a link while changes flow, nothing is lost, doubled or left behind once it is whole again."""

from __future__ import annotations

import time

import pytest

from tests.checker import confirmed_stays_behind_published
from tests.faults.links import FAULTS, LASTING, proxied
from tests.faults.pair import Pair, chance
from tests.processes import Pipeline
from tests.workload import Workload


@pytest.mark.parametrize(
    ("rounds", "lasts_seconds", "seed"),
    [pytest.param(1, 0.5, 6, id="short"), pytest.param(10, 60.0, None, id="long", marks=pytest.mark.soak)],
)
@pytest.mark.timeout(3600)
def test_a_fault_of_each_kind_on_all_links(shop: Pipeline, rounds: int, lasts_seconds: float, seed: int | None) -> None:
    """On all four at once, at moments that differ by less than a pause between two sessions."""
    dice = chance("links", seed)
    with proxied(shop) as links:
        pair = Pair.start(shop, 500)
        pair.wait()
        load = Workload(shop.source_dsn, seed=dice.randrange(1 << 32), keys=200, transactions_per_second=100)
        with confirmed_stays_behind_published(shop), load.running():
            for fault in dice.sample(sorted(FAULTS), len(FAULTS)) * rounds:
                for link in dice.sample(list(links.values()), len(links)):
                    FAULTS[fault](link, dice)
                    time.sleep(dice.uniform(0, 0.1))  # the moment is what is drawn
                if fault in LASTING:
                    time.sleep(dice.uniform(0.5, 1) * lasts_seconds)
                began = time.monotonic()
                for link in links.values():
                    link.heal()
                pair.wait()
                print(f"{fault}: up to date after {time.monotonic() - began:.2f} s")
        print(pair.judge(load))
