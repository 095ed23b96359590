"""Done by hand, so that the log leaves something out or tells it of another column: no replica stays wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.faults import shops
from tests.faults.shops import execute, wait_until_equal
from tests.processes import Pipeline, closing, wait_until


@pytest.fixture
def shop(source_dsn: str, target_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path) -> Iterator[Pipeline]:
    with shops.a_shop(source_dsn, target_dsn, redis_url, pipeline_name, tmp_path) as made:
        yield made


@pytest.mark.parametrize("at_its_work", [True, False])
def test_a_publication_that_left_out_deletes_for_a_while_is_made_up_for(shop: Pipeline, at_its_work: bool) -> None:
    reader = shop.reader()
    shop.sink("copy")
    wait_until_equal(shop)
    if not at_its_work:
        reader.terminate()
    altered = f"ALTER PUBLICATION cdc_{shop.name} SET (publish = '%s')"
    execute(shop.source_dsn, altered % "insert, update", "DELETE FROM rows WHERE id < 5", "TRUNCATE others")
    execute(shop.source_dsn, altered % "insert, update, delete, truncate")
    if not at_its_work:
        reader.start()
    wait_until_equal(shop)
    assert reader.running
    assert f"publication cdc_{shop.name} was altered" in reader.output
    told = shop.run("cdc.cli", "status")
    assert "made because its publication was altered" in " ".join(told.split())


def test_a_column_that_had_the_name_of_another_for_a_while_is_made_up_for(shop: Pipeline) -> None:
    """Each column has the name that it had before, so the catalog tells nothing: the log's order of columns does."""
    execute(shop.source_dsn, "ALTER TABLE rows ADD called text")
    reader = shop.reader()
    shop.sink("copy")
    wait_until_equal(shop)
    reader.terminate()
    execute(shop.source_dsn, "ALTER TABLE rows RENAME name TO x; ALTER TABLE rows RENAME called TO name")
    execute(shop.source_dsn, "INSERT INTO rows VALUES (100, 'right', 'wrong')")
    execute(shop.source_dsn, "ALTER TABLE rows RENAME name TO called; ALTER TABLE rows RENAME x TO name")
    execute(shop.source_dsn, "INSERT INTO rows VALUES (101, 'later', 'wrong')")
    reader.start()
    wait_until_equal(shop)
    assert reader.running
    assert "its column name was another one for a while" in reader.output


@pytest.mark.parametrize("at_its_work", [True, False])
def test_an_enum_s_value_that_is_renamed_is_renamed_in_the_replica(shop: Pipeline, at_its_work: bool) -> None:
    execute(shop.source_dsn, "CREATE TYPE mood AS ENUM ('fine', 'bad')")
    execute(shop.source_dsn, "ALTER TABLE rows ALTER name TYPE mood USING CASE id % 2 WHEN 0 THEN 'fine' END::mood")
    reader = shop.reader()
    shop.sink("copy")
    wait_until_equal(shop)
    if not at_its_work:
        reader.terminate()
    execute(shop.source_dsn, "ALTER TYPE mood ADD VALUE 'good'", "ALTER TYPE mood RENAME VALUE 'fine' TO 'splendid'")
    if not at_its_work:
        reader.start()
    wait_until_equal(shop)
    assert reader.running
    assert shops.contents(shop.source_dsn, "public")["rows"][1] == (2, "splendid")


@pytest.mark.parametrize("at_its_work", [True, False])
def test_a_key_that_was_not_unique_for_a_while_stops_the_reader_and_what_it_missed_is_made_up_for(
    shop: Pipeline, at_its_work: bool
) -> None:
    """Of two rows of one key the replica holds one, and loses it with the first of them that is deleted."""
    execute(shop.source_dsn, "ALTER TABLE rows REPLICA IDENTITY FULL")
    reader = shop.reader()
    shop.sink("copy")
    wait_until_equal(shop)
    if not at_its_work:
        reader.terminate()
    execute(shop.source_dsn, "ALTER TABLE rows DROP CONSTRAINT rows_pkey", "INSERT INTO rows VALUES (3, 'another')")
    if not at_its_work:
        reader.start()
    assert reader.wait() == 3
    assert "public.rows has no primary key" in reader.output
    execute(shop.source_dsn, "DELETE FROM rows WHERE name = 'another'", "ALTER TABLE rows ADD PRIMARY KEY (id)")
    reader.start()
    wait_until_equal(shop)
    told = " ".join(shop.run("cdc.cli", "status").split())
    assert "made because its table could not be followed for a while" in told


def test_a_person_who_waits_for_a_snapshot_is_told_that_nobody_makes_it(shop: Pipeline) -> None:
    shop.run("cdc.cli", "run", "--once")
    waiting = shop.command("cdc.cli", "snapshot", "row", "--wait", log="waiting")
    waiting.start()
    wait_until("it to be told", lambda: "no reader is at work" in waiting.output)
    shop.reader()
    assert waiting.wait() == 0
    assert "published row.v1: 20 rows" in waiting.output


def test_an_event_that_is_not_published_any_more_is_told(shop: Pipeline) -> None:
    shop.run("cdc.cli", "run", "--once")
    shop.run("sinks.cli", "run", "copy", "--once")
    before = shop.path.read_text()
    shop.path.write_text(before.replace("[events.other]\n", "[events.other]\nversion = 2\n"))
    shop.run("cdc.cli", "run", "--once")
    told = " ".join(shop.run("cdc.cli", "status").split())
    assert "sink copy maps other.v1, which is not published any more" in told
    assert told.count("is not published any more") == 1
    assert "warning event other.v1: is not published any more" in " ".join(
        shop.run("sinks.cli", "check", "copy").split()
    )


# --- partitions have identities of their own -------------------------------------------------------------------------

PARTITIONED = """
[events.row]
table = "rows"
columns = ["id", "part", "code"]
key = ["part", "code"]
[sinks.copy]
type = "postgres"
dsn = "${TARGET_DSN}"
[sinks.copy.tables]
row = "replica.rows"
"""
PARTITIONS = """
CREATE TABLE rows (id int, part text, code int NOT NULL, PRIMARY KEY (part, id)) PARTITION BY LIST (part);
CREATE UNIQUE INDEX ON rows (part, code);
ALTER TABLE rows REPLICA IDENTITY FULL;
CREATE TABLE rows_a PARTITION OF rows FOR VALUES IN ('a');
ALTER TABLE rows_a REPLICA IDENTITY FULL;
INSERT INTO rows SELECT i, 'a', i FROM generate_series(1, 20) i;
"""


@pytest.fixture
def partitioned(
    source_dsn: str, target_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path
) -> Iterator[Pipeline]:
    """A partitioned table whose key is another unique one than its primary key."""
    execute(source_dsn, PARTITIONS)
    environment = {"TARGET_DSN": target_dsn}
    with closing(Pipeline(pipeline_name, source_dsn, redis_url, tmp_path, PARTITIONED, environment)) as made:
        yield made


def wait_until_partitions_equal(shop: Pipeline) -> None:
    def rows(dsn: str, table: str) -> list[tuple[object, ...]]:
        with psycopg.connect(dsn) as connection:
            if connection.execute("SELECT to_regclass(%s)", (table,)).fetchone() == (None,):
                return []
            return connection.execute(f"SELECT id, part, code FROM {table} ORDER BY id, part".encode()).fetchall()

    target = shop.environment["TARGET_DSN"]
    wait_until("the replica to equal the source", lambda: rows(shop.source_dsn, "rows") == rows(target, "replica.rows"))


def test_a_partition_that_does_not_tell_the_key_is_refused_with_what_mends_it(partitioned: Pipeline) -> None:
    execute(partitioned.source_dsn, "ALTER TABLE rows_a REPLICA IDENTITY DEFAULT")
    told = partitioned.run("cdc.cli", "run", "--once", expect=3)
    assert "the replica identity of partition public.rows_a does not hold (part, code)" in told
    assert "public.rows_a" in partitioned.run("cdc.cli", "check", expect=1)
    execute(partitioned.source_dsn, told.partition("remedy: ")[2])
    partitioned.run("cdc.cli", "run", "--once")


@pytest.mark.parametrize("made_later", [True, False])
def test_a_partition_that_comes_to_not_tell_the_key_stops_the_reader_and_its_remedy_heals(
    partitioned: Pipeline, made_later: bool
) -> None:
    """An update of such a partition's key looks like one that leaves the key alone."""
    reader = partitioned.reader()
    partitioned.sink("copy")
    wait_until_partitions_equal(partitioned)
    if made_later:
        execute(partitioned.source_dsn, "CREATE TABLE rows_b PARTITION OF rows FOR VALUES IN ('b')")
        execute(partitioned.source_dsn, "INSERT INTO rows SELECT i, 'b', i FROM generate_series(1, 20) i")
    else:
        execute(partitioned.source_dsn, "ALTER TABLE rows_a REPLICA IDENTITY DEFAULT")
    execute(partitioned.source_dsn, "UPDATE rows SET code = code + 1000 WHERE id = 3")
    assert reader.wait() == 3
    name = "rows_b" if made_later else "rows_a"
    assert f"the replica identity of public.{name} does not hold code" in reader.output
    execute(partitioned.source_dsn, reader.output.rpartition("remedy: Run `")[2].partition("`")[0])
    partitioned.run("cdc.cli", "snapshot", "--all")
    reader.start()
    wait_until_partitions_equal(partitioned)
    execute(partitioned.source_dsn, "UPDATE rows SET code = code + 1000 WHERE id = 4", "DELETE FROM rows WHERE id = 5")
    wait_until_partitions_equal(partitioned)
    assert reader.running


def test_a_partition_that_is_not_in_the_log_stops_the_reader_and_is_made_up_for(partitioned: Pipeline) -> None:
    reader = partitioned.reader()
    partitioned.sink("copy")
    wait_until_partitions_equal(partitioned)
    execute(partitioned.source_dsn, "CREATE UNLOGGED TABLE rows_b PARTITION OF rows FOR VALUES IN ('b')")
    execute(partitioned.source_dsn, "INSERT INTO rows SELECT i, 'b', i FROM generate_series(1, 20) i")
    assert reader.wait() == 3
    assert "partition public.rows_b of public.rows is unlogged" in reader.output
    execute(partitioned.source_dsn, "ALTER TABLE rows_b SET LOGGED", "ALTER TABLE rows_b REPLICA IDENTITY FULL")
    reader.start()
    wait_until_partitions_equal(partitioned)
    assert reader.running


def test_a_table_that_is_published_as_part_of_another_is_refused(partitioned: Pipeline) -> None:
    configuration = partitioned.path.read_text()
    partitioned.path.write_text(f'{configuration}\n[events.part]\ntable = "rows_a"\ncolumns = ["*"]\n')
    told = partitioned.run("cdc.cli", "run", "--once", expect=3)
    assert "public.rows_a is a partition of public.rows, which is published too" in told
    assert "public.rows_a is a partition of public.rows" in partitioned.run("cdc.cli", "check", expect=1)


def test_a_table_that_comes_to_be_published_as_part_of_another_stops_the_reader_and_is_made_up_for(
    shop: Pipeline,
) -> None:
    reader = shop.reader()
    shop.sink("copy")
    wait_until_equal(shop)
    execute(shop.source_dsn, "CREATE TABLE root (id int PRIMARY KEY, name text) PARTITION BY RANGE (id)")
    execute(shop.source_dsn, "ALTER TABLE root ATTACH PARTITION rows FOR VALUES FROM (0) TO (1000)")
    altered = f"ALTER PUBLICATION cdc_{shop.name} %s TABLE root"
    execute(shop.source_dsn, altered % "ADD", "DELETE FROM rows WHERE id < 5")
    assert reader.wait() == 3
    assert "public.rows is a partition of public.root, which is published too" in reader.output
    execute(shop.source_dsn, altered % "DROP")
    reader.start()
    wait_until_equal(shop)
    assert reader.running
