"""A reader dies, halts, or finds that the slot went back: it goes on where it was, within seconds."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from cdc.demo.servers import PostgresServer
from tests import servers, workload
from tests.checker import confirmed_stays_behind_published
from tests.faults.pair import RESUME_SECONDS, Pair, chance
from tests.processes import Pipeline, closing, wait_until
from tests.workload import Workload, Writer
from transforms.failpoints import Failpoint

SENDER_SECONDS = 3
"""After which a walsender gives a silent reader up: longer than a reader at work is held up by a busy machine."""


@pytest.mark.parametrize(
    ("kills", "per_second", "seed"),
    [pytest.param(6, 80, 2, id="short"), pytest.param(200, 150, None, id="long", marks=pytest.mark.soak)],
)
@pytest.mark.timeout(3600)
def test_kills_of_both_at_any_moment(shop: Pipeline, kills: int, per_second: float, seed: int | None) -> None:
    """The reader and the sink, each so often, together and apart."""
    dice = chance("kills", seed)
    pair = Pair.start(shop, 1_000)
    load = Workload(shop.source_dsn, seed=dice.randrange(1 << 32), keys=500, transactions_per_second=per_second)
    both = (pair.reader, pair.sink)
    with confirmed_stays_behind_published(shop), load.running():
        for _ in range(kills):
            time.sleep(dice.uniform(0, 0.8))  # the moment is what is drawn
            for command in dice.sample(both, 2):
                pair.kill(command)
                if dice.random() < 0.7:
                    pair.resume(command)
            for command in both:
                if not command.running:
                    pair.resume(command)
    print(pair.judge(load))
    assert max(pair.recoveries["reader"]) < RESUME_SECONDS


@pytest.mark.parametrize(
    ("rows", "kills"),
    [pytest.param(8_000, 4, id="short"), pytest.param(500_000, 60, id="long", marks=pytest.mark.soak)],
)
@pytest.mark.timeout(1800)
def test_a_transaction_is_gone_on_with_in_its_middle(shop: Pipeline, rows: int, kills: int) -> None:
    """Giant ones, those of COPY (many rows under one LSN), and small ones in a row, each beginning where one ends."""
    dice = chance("in the middle", 3)
    pair = Pair.start(shop, 500)
    load = Workload(shop.source_dsn, seed=1, keys=200, giant_rows=rows)
    pair.wait()
    before = shop.redis.xinfo_stream(shop.keys.stream("part", 1))["entries-added"]
    pair.kill(pair.reader)
    load.act(Writer.write_giant, Writer.copy_parts)
    for _ in range(50):
        load.act(Writer.copy_parts)
    load.act(Writer.write_giant)
    for _ in range(kills):
        place = dice.choice((Failpoint.BATCH_SENT, Failpoint.BATCH_APPENDED, Failpoint.POSITION_STORED))
        pair.die(pair.reader, place, dice.randint(1, 2))
        pair.wait_for_death(pair.reader, place)
    added = shop.redis.xinfo_stream(shop.keys.stream("part", 1))["entries-added"] - before
    assert 0 < added < 2 * rows, "no death was in the middle"
    pair.resume(pair.reader)
    print(pair.judge(load, least=2 * rows))


def test_a_reader_that_was_suspended_leaves_the_slot_to_another_and_writes_nothing_behind_it(shop: Pipeline) -> None:
    pair = Pair.start(shop, 500)
    pair.wait()
    with psycopg.connect(shop.source_dsn, autocommit=True) as connection:  # for walsenders that begin now
        timeout = f"ALTER DATABASE {connection.info.dbname} SET wal_sender_timeout = '{SENDER_SECONDS}s'"
        connection.execute(timeout.encode())
    pair.kill(pair.reader)
    suspended = shop.reader()
    load = Workload(shop.source_dsn, seed=4, keys=200, transactions_per_second=100)
    with confirmed_stays_behind_published(shop) as confirmed, load.running():
        standby = shop.command("cdc.cli", "run", log="standby")
        # its log goes on where its forerunner, which streamed too, left off
        wait_until("the first to stream", lambda: suspended.output.count("streaming from") == 2)
        standby.start()
        wait_until("the second to stand by", lambda: "standing by" in standby.output)
        os.kill(suspended.pid, signal.SIGSTOP)
        position, stopped = shop.flush_position(), time.monotonic()
        wait_until("the second to take over", lambda: shop.published > position, 30)
        waited = time.monotonic() - stopped
        print(f"taken over after {waited:.1f} s")
        os.kill(suspended.pid, signal.SIGCONT)
        wait_until("the first to stand by", lambda: "standing by" in suspended.output)
        later = shop.flush_position()
        wait_until("the second to go on", lambda: shop.published > later)
        wait_until("the slot to move", lambda: len(set(confirmed)) > 1)
        assert waited < SENDER_SECONDS + RESUME_SECONDS
    assert suspended.running
    pair.judge(load)
    assert standby.terminate() == 0
    wait_until("the first to take over again", lambda: "streaming" in shop.run("cdc.cli", "status"))
    assert suspended.terminate() == 0


@pytest.fixture
def own_shop(
    tmp_path: Path, pipeline_name: str, redis_url: str, embedded_only: None
) -> Iterator[tuple[Pipeline, PostgresServer]]:
    """A pipeline whose source may be stopped."""
    configuration = workload.EVENTS + workload.SINK
    with (
        PostgresServer.start(settings={"checkpoint_timeout": "1h", "autovacuum": "off"}) as server,
        servers.database(server, "target") as target,
        servers.database(server, "source") as source,
    ):
        made = Pipeline(pipeline_name, source, redis_url, tmp_path, configuration, {"TARGET_DSN": target})
        with closing(made):
            yield made, server


def test_what_a_slot_that_went_back_sends_again_is_not_written_again(own_shop: tuple[Pipeline, PostgresServer]) -> None:
    """A crash of the server loses what the slot was told since the last checkpoint."""
    shop, server = own_shop
    pair = Pair.start(shop, 500)
    pair.wait()
    load = Workload(shop.source_dsn, seed=5, keys=200, transactions_per_second=200, patient=True)
    with psycopg.connect(shop.source_dsn, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
    with load.running():
        begun = shop.flush_position()
        pair.die(pair.reader, Failpoint.STATUS_SENT, 5)
        pair.wait_for_death(pair.reader, Failpoint.STATUS_SENT)
        wait_until("the slot to be told", lambda: pair.confirmed() > begun)
        confirmed = pair.confirmed()
        server.stop("immediate")
        server.start_again()
        assert pair.confirmed() < confirmed, "the slot did not go back"
        pair.resume(pair.reader)
    print(pair.judge(load))
