"""Partitions that are attached, detached and dropped take rows along of which the log tells nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import shops
from tests.faults.shops import execute, wait_until_equal
from tests.processes import Pipeline, wait_until

PARTITIONED = (
    "DROP TABLE rows",
    "CREATE TABLE rows (id int PRIMARY KEY, name text) PARTITION BY RANGE (id)",
    "CREATE TABLE rows_0 PARTITION OF rows FOR VALUES FROM (0) TO (100)",
    "INSERT INTO rows SELECT i, 'old' FROM generate_series(1, 20) i",
    "CREATE TABLE rows_1 (name text, id int PRIMARY KEY)",
    "INSERT INTO rows_1 SELECT 'attached', i FROM generate_series(100, 110) i",
    "CREATE TABLE rows_3 (id int PRIMARY KEY, name text) PARTITION BY RANGE (id)",
    "CREATE TABLE rows_3_0 PARTITION OF rows_3 FOR VALUES FROM (300) TO (350)",
    "INSERT INTO rows_3 VALUES (301, 'attached with its parent')",
)
MOVES = (
    "ALTER TABLE rows ATTACH PARTITION rows_1 FOR VALUES FROM (100) TO (200)",
    "ALTER TABLE rows DETACH PARTITION rows_0",
    "ALTER TABLE rows ATTACH PARTITION rows_3 FOR VALUES FROM (300) TO (400)",
    "DROP TABLE rows_1",
    "ALTER TABLE rows DETACH PARTITION rows_3 CONCURRENTLY",
)


@pytest.fixture
def shop(source_dsn: str, target_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path) -> Iterator[Pipeline]:
    with shops.a_shop(source_dsn, target_dsn, redis_url, pipeline_name, tmp_path) as made:
        execute(source_dsn, *PARTITIONED)
        yield made


@pytest.mark.parametrize(
    ("at_its_work", "moves"),
    [
        pytest.param(True, MOVES[:2], id="at its work-short"),  # which are looked for every five seconds
        pytest.param(True, MOVES, id="at its work-long", marks=pytest.mark.soak),
        pytest.param(False, MOVES, id="down"),
    ],
)
def test_rows_that_come_and_go_with_partitions_do_so_in_the_replica(
    shop: Pipeline, at_its_work: bool, moves: tuple[str, ...]
) -> None:
    reader = shop.reader()
    sink = shop.sink("copy")
    wait_until_equal(shop)
    for move in moves:
        if not at_its_work:
            assert reader.terminate() == 0
        execute(shop.source_dsn, move)
        if not at_its_work:
            reader.start()
        wait_until_equal(shop)
    assert reader.running
    assert sink.running


def test_a_partition_that_is_made_as_one_needs_no_snapshot(shop: Pipeline) -> None:
    reader = shop.reader()
    shop.sink("copy")
    wait_until_equal(shop)
    before = reader.output.count("snapshot of row.v1 begins")
    execute(
        shop.source_dsn,
        "CREATE TABLE rows_2 PARTITION OF rows FOR VALUES FROM (200) TO (300)",
        "INSERT INTO rows VALUES (201, 'new')",
    )
    wait_until("the reader to see it", lambda: "partitions" in reader.output)
    wait_until_equal(shop)
    execute(shop.source_dsn, "UPDATE rows SET name = 'newer' WHERE id = 201")
    wait_until_equal(shop)
    assert reader.output.count("snapshot of row.v1 begins") == before
