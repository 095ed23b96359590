"""A table that its owner takes out of the publication and adds again: what changed in between comes by a snapshot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.processes import Pipeline, closing, wait_until

CONFIGURATION = """
[events.row]
table = "owned.rows"
columns = ["id", "name"]
[events.other]
table = "owned.others"
columns = ["id"]
[sinks.copy]
type = "postgres"
dsn = "${TARGET_DSN}"
[sinks.copy.tables]
row = "replica.rows"
other = "replica.others"
"""
WRITES = """
UPDATE owned.rows SET name = 'x' WHERE id <= 5;
DELETE FROM owned.rows WHERE id = 9;
INSERT INTO owned.rows VALUES (99)
"""
WHOLE = "(publish_via_partition_root = true)"
FORMS = {  # how the publication is made; what takes the table out; what adds it again
    "FOR TABLE": ("FOR TABLE owned.rows, owned.others", "DROP TABLE owned.rows", "ADD TABLE owned.rows"),
    "FOR TABLES IN SCHEMA": (
        "FOR TABLES IN SCHEMA owned",
        "DROP TABLES IN SCHEMA owned",
        "ADD TABLES IN SCHEMA owned",
    ),
}
Rows = list[tuple[object, ...]]


@pytest.fixture
def shop(source_dsn: str, target_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path) -> Iterator[Pipeline]:
    """Two tables, mapped, and nothing started."""
    with psycopg.connect(source_dsn) as connection:
        connection.execute("CREATE SCHEMA owned")
        connection.execute("CREATE TABLE owned.rows (id int PRIMARY KEY, name text)")
        connection.execute("CREATE TABLE owned.others (id int PRIMARY KEY)")
        connection.execute("INSERT INTO owned.rows SELECT i, 'old' FROM generate_series(1, 20) i")
        connection.execute("INSERT INTO owned.others VALUES (1)")
    environment = {"TARGET_DSN": target_dsn}
    with closing(Pipeline(pipeline_name, source_dsn, redis_url, tmp_path, CONFIGURATION, environment)) as made:
        yield made


def execute(shop: Pipeline, statement: str) -> None:
    with psycopg.connect(shop.source_dsn, autocommit=True) as connection:
        connection.execute(statement.replace("PUBLICATION", f"PUBLICATION cdc_{shop.name}").encode())


def rows(dsn: str, table: str) -> Rows:
    with psycopg.connect(dsn) as connection:
        return connection.execute(f"SELECT id, name FROM {table} ORDER BY id".encode()).fetchall()


def is_equal(shop: Pipeline) -> bool:
    return rows(shop.source_dsn, "owned.rows") == rows(shop.environment["TARGET_DSN"], "replica.rows")


def settle(shop: Pipeline) -> None:
    """Publish and apply all that is there."""
    shop.run("cdc.cli", "run", "--once")
    shop.run("sinks.cli", "run", "copy", "--once")


def snapshots(shop: Pipeline) -> dict[str, str | None]:
    """The event of each snapshot that is kept -> why the reader made it by itself."""
    status = json.loads(shop.run("cdc.cli", "status", "--json"))
    return {run["event"]: run["reason"] for run in status["snapshots"]}


def appended(shop: Pipeline, stream: str) -> int:
    info = shop.redis.xinfo_stream(shop.keys.stream(stream, 1))
    return int(info["entries-added"])


@pytest.mark.parametrize("form", FORMS)
def test_what_changed_while_the_reader_was_down_and_the_table_was_out_is_in_the_replica(
    shop: Pipeline, form: str
) -> None:
    made, take_out, add_again = FORMS[form]
    execute(shop, f"CREATE PUBLICATION {made} WITH {WHOLE}")
    settle(shop)
    assert snapshots(shop) == {"row.v1": None, "other.v1": None}
    execute(shop, f"ALTER PUBLICATION {take_out}")
    execute(shop, WRITES)
    execute(shop, f"ALTER PUBLICATION {add_again}")
    told = shop.run("cdc.cli", "run", "--once")
    shop.run("sinks.cli", "run", "copy", "--once")
    assert is_equal(shop)
    assert f"owned.rows was taken out of publication cdc_{shop.name} and added again" in told
    found = snapshots(shop)
    assert "was taken out of the publication and added again" in str(found["row.v1"])
    assert (found["other.v1"] is None) == (form == "FOR TABLE")
    assert "made because its table was taken out of the publication" in " ".join(shop.run("cdc.cli", "status").split())
    before = appended(shop, "row")
    shop.run("cdc.cli", "run", "--once")
    assert appended(shop, "row") == before, "it was made once"


def test_what_changed_beside_a_reader_at_work_is_in_the_replica(shop: Pipeline) -> None:
    reader = shop.reader()
    shop.sink("copy")
    shop.wait_published()
    shop.wait_applied(shop.environment["TARGET_DSN"], "copy")
    for statement in ("ALTER PUBLICATION DROP TABLE owned.rows", WRITES, "ALTER PUBLICATION ADD TABLE owned.rows"):
        execute(shop, statement)
    wait_until("the replica to be equal", lambda: is_equal(shop))
    assert "was taken out of publication" in reader.output
    assert reader.running


@pytest.mark.parametrize(
    "alteration",
    [
        "ALTER PUBLICATION SET TABLE owned.rows, owned.others",
        "CREATE TABLE owned.more (id int PRIMARY KEY); ALTER PUBLICATION ADD TABLE owned.more",
        "ALTER TABLE owned.rows SET SCHEMA public; ALTER TABLE rows SET SCHEMA owned",
        "ANALYZE owned.rows; VACUUM FULL owned.rows",
    ],
)
def test_what_leaves_the_table_published_makes_no_snapshot(shop: Pipeline, alteration: str) -> None:
    settle(shop)
    before = appended(shop, "row")
    for statement in alteration.split(";"):
        execute(shop, statement)
    shop.run("cdc.cli", "run", "--once")
    assert appended(shop, "row") == before


def test_a_publication_of_all_tables_makes_no_snapshot_again_and_again(shop: Pipeline) -> None:
    execute(shop, f"CREATE PUBLICATION FOR ALL TABLES WITH {WHOLE}")
    settle(shop)
    before = appended(shop, "row")
    settle(shop)
    assert appended(shop, "row") == before


def test_a_reader_that_is_upgraded_takes_what_it_finds_and_makes_no_snapshot(shop: Pipeline) -> None:
    settle(shop)
    before = appended(shop, "row")
    shop.redis.hdel(shop.keys.meta, "grounds")
    settle(shop)
    assert appended(shop, "row") == before
    execute(shop, "ALTER PUBLICATION DROP TABLE owned.rows")
    execute(shop, "DELETE FROM owned.rows WHERE id = 3")
    execute(shop, "ALTER PUBLICATION ADD TABLE owned.rows")
    settle(shop)
    assert is_equal(shop)


def test_a_reader_that_dies_between_finding_it_and_storing_it_makes_the_snapshot_all_the_same(shop: Pipeline) -> None:
    settle(shop)
    before = shop.redis.hget(shop.keys.meta, "grounds")
    assert isinstance(before, bytes)
    for statement in ("ALTER PUBLICATION DROP TABLE owned.rows", WRITES, "ALTER PUBLICATION ADD TABLE owned.rows"):
        execute(shop, statement)
    shop.run("cdc.cli", "snapshot", "--pause")
    reader = shop.reader()
    wait_until("it to be found", lambda: "added again" in reader.output and "streaming from" in reader.output)
    reader.kill()
    shop.redis.hset(shop.keys.meta, "grounds", before)  # as if it had died a moment earlier
    shop.run("cdc.cli", "snapshot", "--resume")
    added = appended(shop, "row")
    settle(shop)
    assert is_equal(shop)
    assert appended(shop, "row") - added == 22, "20 rows and two marks: once"
