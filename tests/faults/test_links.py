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
    [pytest.param(5, 0.5, 6, id="short"), pytest.param(26, 60.0, None, id="long", marks=pytest.mark.soak)],
)
@pytest.mark.timeout(3600)
def test_faults_of_all_links_at_once(shop: Pipeline, rounds: int, lasts_seconds: float, seed: int | None) -> None:
    """Each link has another one, at moments that differ a little; after 13 rounds each has had each."""
    dice = chance("links", seed)
    with proxied(shop) as links:
        pair = Pair.start(shop, 500)
        pair.wait()
        faults = dice.sample(sorted(FAULTS), len(FAULTS))
        load = Workload(shop.source_dsn, seed=dice.randrange(1 << 32), keys=200, transactions_per_second=60)
        with confirmed_stays_behind_published(shop), load.running():
            for round_ in range(rounds):
                chosen = {name: faults[(round_ + 3 * at) % len(faults)] for at, name in enumerate(links)}
                for name in dice.sample(list(links), len(links)):
                    FAULTS[chosen[name]](links[name], dice)
                    time.sleep(dice.uniform(0, 0.1))  # the moment is what is drawn
                if LASTING & set(chosen.values()):
                    time.sleep(dice.uniform(0.5, 1) * lasts_seconds)  # so long
                began = time.monotonic()
                for link in links.values():
                    link.heal()
                pair.wait()
                print(f"{chosen}: up to date after {time.monotonic() - began:.2f} s")
        print(pair.judge(load))
