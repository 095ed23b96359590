"""Events with related rows under load: replicas hold the documents that SQL computes at the source."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

from cdc.demo.servers import PostgresServer
from tests.end_to_end import aggregates
from tests.end_to_end.aggregates import HUGE, Load
from tests.end_to_end.test_visibility_race import hold_commits
from tests.processes import Command, Pipeline, closing, wait_until


@pytest.fixture
def shop(source_dsn: str, target_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path) -> Iterator[Pipeline]:
    """The order with its lines, products and customer, kept by two sinks; nothing is started."""
    configuration = aggregates.EVENTS + aggregates.SINKS
    with closing(
        Pipeline(pipeline_name, source_dsn, redis_url, tmp_path, configuration, {"TARGET_DSN": target_dsn})
    ) as made:
        yield made


def start(shop: Pipeline, *sinks: str) -> list[Command]:
    reader = shop.reader()
    wait_until("the slot", lambda: shop.published)
    for sink in sinks:
        shop.run("sinks.cli", "tables", sink, "--apply")
    return [reader, *map(shop.sink, sinks)]


@pytest.mark.parametrize(
    ("orders", "seconds", "kills"),
    [pytest.param(2_500, 8, 2, id="short"), pytest.param(20_000, 60, 12, id="long", marks=pytest.mark.soak)],
)
@pytest.mark.timeout(900)
def test_every_replica_holds_what_sql_computes_at_the_source(
    shop: Pipeline, embedded_only: None, orders: int, seconds: float, kills: int
) -> None:
    aggregates.seed(shop.source_dsn, orders, of_the_huge_one=orders * 3 // 5)
    commands = start(shop, "whole", "parts")
    chance = random.Random(21)
    with Load(shop.source_dsn, seed=21, orders=400).running() as load:
        for _ in range(kills):
            for command in chance.sample(commands, len(commands)):
                time.sleep(chance.uniform(0, 2 * seconds / kills / len(commands)))  # the load runs meanwhile
                assert command.running, command.output
                command.kill()
                command.start()
    aggregates.assert_replicas_equal_source(shop, "whole", "parts")
    entries = aggregates.assert_nothing_went_back(shop)
    print(f"{load.transactions} transactions, {entries} states")


@pytest.mark.parametrize(
    ("orders", "most_seconds"),
    [pytest.param(28_000, None, id="short"), pytest.param(200_000, 2.0, id="long", marks=pytest.mark.soak)],
)
@pytest.mark.timeout(900)
def test_a_customer_with_very_many_orders_does_not_hold_up_what_is_live(
    shop: Pipeline, embedded_only: None, orders: int, most_seconds: float | None
) -> None:
    """Changes that come behind the renaming are published before it is worked off, however often the reader dies."""
    aggregates.seed(shop.source_dsn, orders + 500, of_the_huge_one=orders)
    reader, *_ = start(shop, "whole")
    shop.wait_published(300)
    shop.wait_applied(shop.environment["TARGET_DSN"], "whole", 300)
    lags, pings, live = list[float](), Tail(shop, "ping"), Tail(shop, "order")
    with psycopg.connect(shop.source_dsn, autocommit=True) as connection:
        connection.execute(f"UPDATE customers SET rev = nextval('revs'), name = 'renamed' WHERE id = {HUGE}".encode())
        wait_until("the fan-out", lambda: fan_outs(shop))
        assert "renamed" not in json.dumps(shop.run("cdc.cli", "status", "--json"))
        for number in range(1, 10_000):
            if not fan_outs(shop) or number > (200 if most_seconds else 12):
                break
            began = time.monotonic()
            connection.execute(f"UPDATE pings SET number = {number}".encode())
            connection.execute(
                "UPDATE orders SET rev = nextval('revs'), status = %s WHERE id = %s",
                (f"live {number}", orders + number),
            )
            pings.wait_for("number", number)
            live.wait_for("status", f"live {number}")
            lags.append(time.monotonic() - began)
            if number == 1 and most_seconds is None:
                reader.kill()
                reader.start()
    assert len(lags) > 2, lags
    assert most_seconds is None or max(lags) < most_seconds, max(lags)
    aggregates.assert_replicas_equal_source(shop, "whole")
    aggregates.assert_nothing_went_back(shop)
    print(f"{len(lags)} live changes meanwhile, {sorted(lags)[len(lags) // 2]:.3f} s median, {max(lags):.3f} s at most")


@pytest.mark.timeout(180)
def test_changes_of_related_rows_that_are_in_the_log_and_not_visible_are_waited_for(
    redis_url: str, pipeline_name: str, tmp_path: Path, embedded_only: None
) -> None:
    """Held so by a synchronous standby that does not answer; the reader is killed meanwhile, between its marks."""
    with PostgresServer.start() as server:
        aggregates.seed(server.dsn(), 40, of_the_huge_one=10)
        with closing(Pipeline(pipeline_name, server.dsn(), redis_url, tmp_path, aggregates.EVENTS)) as shop:
            reader = shop.reader()
            shop.wait_published()
            hold_commits(shop, held=True)
            held = [
                threading.Thread(target=commit, args=(shop.source_dsn, statement))
                for statement in (
                    f"UPDATE customers SET rev = nextval('revs'), name = 'held' WHERE id = {HUGE}",
                    "DELETE FROM order_lines WHERE order_id = 1 AND line_no = 1",
                    "UPDATE products SET rev = nextval('revs'), title = 'held' WHERE id % 7 = 1",
                )
            ]
            for thread in held:
                thread.start()
            wait_until("the commits to hang", lambda: hanging(shop.source_dsn) == len(held))
            before = shop.last_ids()["order"]
            commit(
                shop.source_dsn, "SET synchronous_commit = local; UPDATE orders SET rev = nextval('revs') WHERE id = 1"
            )
            for _ in range(2):
                waits = reader.output.count("not visible yet")
                wait_until("the reader to wait", lambda waits=waits: reader.output.count("not visible yet") > waits)  # type: ignore[misc]
                assert shop.last_ids()["order"] == before
                reader.kill()
                reader.start()
            hold_commits(shop, held=False)
            for thread in held:
                thread.join()
            aggregates.wait_settled(shop)
            assert aggregates.newest(shop) == aggregates.documents(shop.source_dsn, aggregates.AT_SOURCE)
            aggregates.assert_nothing_went_back(shop)


def commit(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement.encode())


def hanging(dsn: str) -> int:
    """How many sessions wait for the standby."""
    with psycopg.connect(dsn) as connection:
        return connection.execute("SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'").rowcount


def fan_outs(shop: Pipeline) -> list[dict[str, Any]]:
    """Those that are left."""
    runs = [json.loads(run) for run in cast(dict[bytes, bytes], shop.redis.hgetall(shop.keys.runs)).values()]
    return [run for run in runs if run["related"] and run["state"] != "done"]


class Tail:
    """What comes into a stream from now on, read as it comes."""

    def __init__(self, shop: Pipeline, stream: str) -> None:
        self._redis, self._key = shop.redis, shop.keys.stream(stream, 1)
        self._last = str(shop.last_ids()[stream])

    def wait_for(self, field: str, value: object) -> None:
        """Wait for a state with this value in a field."""
        wait_until(f"{field} {value}", lambda: any(state.get(field) == value for state in self._new()))

    def _new(self) -> Iterator[dict[str, Any]]:
        for entry_id, fields in cast(Any, self._redis.xrange(self._key, f"({self._last}")):
            self._last = entry_id.decode()
            if b"state" in fields:
                yield json.loads(fields[b"state"])
