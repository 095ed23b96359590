"""Redis is killed under load, and loses its power: what it had promised is there, and nothing is lost or doubled."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from cdc.demo.servers import ValkeyServer
from tests import checker, workload
from tests.checker import assert_nothing_wrong, confirmed_stays_behind_published
from tests.processes import Pipeline, closing, wait_until
from tests.workload import Workload

SETTINGS = {"appendonly": "yes", "auto-aof-rewrite-percentage": "0"}
"""One file of what was written, which only grows."""

ROWS = 495
"""In all; none has a large value. One that did not change is not in the log, and where its change is sent again the row
is read again: that and the next change of the row may then be one entry with an origin, and none of the changes'."""


@dataclass(frozen=True)
class Case:
    """How Redis writes, what the reader waits for, and how Redis dies."""

    append_fsync: str
    options: str
    power_loss: bool = False
    """What was not on disk is gone too: SIGKILL alone loses nothing that was written."""


CASES = {
    "always": Case("always", 'durability = "fsync"'),
    "everysec": Case("everysec", "confirm_delay_seconds = 2"),
    "everysec, power lost, fsync": Case("everysec", 'durability = "fsync"', power_loss=True),
    "everysec, power lost, memory": Case("everysec", "confirm_delay_seconds = 2", power_loss=True),
}


def lose_power(server: ValkeyServer, client: redis.Redis, chance: random.Random) -> int:
    """Kill it, and cut off what it wrote since its last fsync, or all but a part of that; returns how many bytes."""
    client.config_set("appendfsync", "no")  # nobody can have been told that what follows is on disk
    (file,) = (server.directory / "appendonlydir").glob("*.incr.aof")
    on_disk = file.stat().st_size
    time.sleep(chance.uniform(0.3, 1.0))  # less than what everysec may lose; the load runs for so long
    server.kill()
    written = file.stat().st_size
    left = chance.randint(on_disk, min(written, on_disk + 200))
    with file.open("r+b") as appended:
        appended.truncate(left)
    return written - left


def kill_at_random(shop: Pipeline, server: ValkeyServer, case: Case, kills: int, seed: int) -> str:
    """Kill it so often, each time when the reader has caught up; returns what happened."""
    chance, lost, seconds = random.Random(seed), [], []
    for _ in range(kills):
        time.sleep(chance.uniform(0.1, 0.8))  # the load runs for so long
        if case.power_loss:
            lost.append(lose_power(server, shop.redis, chance))
        else:
            server.kill()
        server.start_again()
        began, position = time.monotonic(), shop.flush_position()
        wait_until(f"published to reach {position}", lambda: shop.published >= position, 60)  # noqa: B023
        seconds.append(time.monotonic() - began)
    assert not case.power_loss or sum(lost) > 0, "no power loss lost anything"
    return f"seed {seed}: {kills} kills, lost {sum(lost):,} bytes, longest recovery {max(seconds):.1f} s"


@pytest.mark.parametrize(
    ("name", "kills"),
    [pytest.param(name, 3, id=f"{name}-short") for name in CASES if name != "everysec"]
    + [pytest.param(name, 50, id=f"{name}-long", marks=pytest.mark.soak) for name in CASES],
)
@pytest.mark.timeout(900)
def test_nothing_is_lost_or_doubled_when_redis_is_killed(
    source_dsn: str, target_dsn: str, pipeline_name: str, tmp_path: Path, name: str, kills: int
) -> None:
    case, seed = CASES[name], 21
    settings = SETTINGS | {"appendfsync": case.append_fsync}
    configuration = workload.EVENTS + workload.SINK
    with (
        ValkeyServer.start(settings=settings) as server,
        closing(
            Pipeline(
                pipeline_name,
                source_dsn,
                server.url(),
                tmp_path,
                configuration,
                {"TARGET_DSN": target_dsn},
                transport_options=case.options,
            )
        ) as shop,
    ):
        workload.seed(source_dsn, ROWS)
        reader = shop.reader()
        wait_until("the slot", lambda: shop.published)
        shop.run("sinks.cli", "tables", "copy", "--apply")
        checker.watch_revs(target_dsn)
        sink = shop.sink("copy")
        shop.wait_published()
        load = Workload(source_dsn, seed=seed, keys=90, transactions_per_second=150, large_values=False)
        with confirmed_stays_behind_published(shop, patient=True) as samples:
            with load.running() as record:
                told = kill_at_random(shop, server, case, kills, seed)
            wait_until("the slot to follow", lambda: samples[-1] > samples[0])
        assert reader.running, reader.output
        assert sink.running, sink.output
        assert_nothing_wrong(shop, record)
        print(f"{told}, {record.transactions} transactions")
