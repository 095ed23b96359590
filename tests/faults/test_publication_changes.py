"""Tables and their publication are altered by hand while rows are written: a right replica, or a stop that says why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.faults import shops
from tests.faults.shops import execute, wait_until_equal
from tests.processes import Command, Pipeline, wait_until


@pytest.fixture
def shop(source_dsn: str, target_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path) -> Iterator[Pipeline]:
    with shops.a_shop(source_dsn, target_dsn, redis_url, pipeline_name, tmp_path) as made:
        yield made


def at_work(shop: Pipeline) -> Command:
    """A reader and a sink that have caught up; returns the reader."""
    reader = shop.reader()
    shop.sink("copy")
    wait_until_equal(shop)
    return reader


def transaction(shop: Pipeline, *statements: str) -> None:
    with psycopg.connect(shop.source_dsn) as connection:
        for statement in statements:
            connection.execute(statement.encode())


@pytest.mark.parametrize(
    ("change", "at_its_work"),
    [
        ("(id)", True),
        ("WHERE (id > 10)", False),
        pytest.param("(id)", False, marks=pytest.mark.soak),
        pytest.param("WHERE (id > 10)", True, marks=pytest.mark.soak),
    ],
)
def test_columns_or_rows_that_are_left_out_stop_the_reader_and_its_remedy_heals(
    shop: Pipeline, change: str, at_its_work: bool
) -> None:
    reader = at_work(shop)
    if not at_its_work:
        reader.terminate()
    execute(shop.source_dsn, f"ALTER PUBLICATION cdc_{shop.name} SET TABLE rows {change}, others")
    execute(shop.source_dsn, "UPDATE rows SET name = 'left out' WHERE id = 3", "INSERT INTO others VALUES (50)")
    if not at_its_work:
        reader.start()
    assert reader.wait() == 3
    assert "publishes only some columns or rows of public.rows" in reader.output
    for statement in reader.output.partition("remedy: ")[2].split(";")[:2]:
        execute(shop.source_dsn, statement)
    reader.start()
    wait_until_equal(shop)
    execute(shop.source_dsn, "UPDATE rows SET name = 'later' WHERE id IN (3, 4)")
    wait_until_equal(shop)
    assert reader.running


FOLLOWED = {
    "a column added": ("ALTER TABLE rows ADD IF NOT EXISTS added int DEFAULT 7", "UPDATE rows SET added = 8"),
    "a column added and dropped": ("ALTER TABLE rows ADD added int", "ALTER TABLE rows DROP added"),
    "a column renamed and back": ("ALTER TABLE rows RENAME name TO called", "ALTER TABLE rows RENAME called TO name"),
    "a column retyped and back": (
        "ALTER TABLE rows ALTER name TYPE varchar(50)",
        "ALTER TABLE rows ALTER name TYPE text",
    ),
    "the table renamed and back": ("ALTER TABLE rows RENAME TO moved", "ALTER TABLE moved RENAME TO rows"),
}
"""What is done, and what ends it."""


@pytest.mark.parametrize("what", shops.some(FOLLOWED, {"a column added", "a column added and dropped"}))
def test_rows_amid_changes_of_their_table_are_in_the_replica(shop: Pipeline, what: str) -> None:
    """First within one transaction beside a reader at work, then while it is down, each a transaction of its own."""
    reader = at_work(shop)
    change, end = FOLLOWED[what]
    table = "moved" if "moved" in change else "rows"
    amid = f"INSERT INTO {table} (id) VALUES (%d)"
    transaction(
        shop,
        "INSERT INTO rows VALUES (1000, 'before')",
        change,
        amid % 1001,
        f"UPDATE {table} SET id = 2000 WHERE id = 5",
        end,
        "INSERT INTO rows VALUES (1002, 'after')",
    )
    wait_until_equal(shop)
    reader.terminate()
    execute(shop.source_dsn, change, amid % 1003, f"DELETE FROM {table} WHERE id = 6", end)
    execute(shop.source_dsn, "INSERT INTO rows VALUES (1004, 'after')")
    reader.start()
    wait_until_equal(shop)
    assert reader.running
    assert "a new epoch" not in reader.output


ANOTHER_COLUMN = "ALTER TABLE rows RENAME name TO called; ALTER TABLE rows ADD name text DEFAULT 'by default'"


@pytest.mark.parametrize("at_its_work", [True, False])
def test_a_column_that_takes_the_name_of_another_brings_its_values(shop: Pipeline, at_its_work: bool) -> None:
    """No row is written: its default is in no log."""
    reader = at_work(shop)
    if not at_its_work:
        reader.terminate()
    execute(shop.source_dsn, ANOTHER_COLUMN)
    if not at_its_work:
        reader.start()
    wait_until_equal(shop)
    assert reader.running
    assert shops.contents(shop.source_dsn, "public")["rows"][0] == (1, "by default")


STOPS = {
    "the table renamed": ("ALTER TABLE rows RENAME TO moved", "there is no table public.rows"),
    "the table dropped": ("DROP TABLE rows", "there is no table public.rows"),
}


@pytest.mark.parametrize("what", shops.some(STOPS, {"the table dropped"}))
def test_what_is_gone_in_the_midst_of_a_transaction_stops_the_reader_by_name(shop: Pipeline, what: str) -> None:
    reader = at_work(shop)
    change, told = STOPS[what]
    table = "moved" if "moved" in change else "rows"
    rest = [] if "DROP TABLE" in change else [f"INSERT INTO {table} (id) VALUES (1001)"]
    transaction(shop, "INSERT INTO rows VALUES (1000, 'before')", change, *rest)
    assert reader.wait() == 3
    assert told in reader.output


ENDS_IN_A_STOP = {
    "a column dropped": ("ALTER TABLE rows DROP name", "ALTER TABLE rows ADD name text"),
    "a column renamed": ("ALTER TABLE rows RENAME name TO called", "ALTER TABLE rows RENAME called TO name"),
    "a column retyped": ("ALTER TABLE rows ALTER name TYPE varchar(50)", "ALTER TABLE rows ALTER name TYPE text"),
    "the key renamed": ("ALTER TABLE rows RENAME id TO number", "ALTER TABLE rows RENAME number TO id"),
    "the key dropped": (
        "ALTER TABLE rows DROP id",
        "ALTER TABLE rows ADD id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    ),
}


@pytest.mark.parametrize(
    "what", shops.some(ENDS_IN_A_STOP, {name for name in ENDS_IN_A_STOP if name != "the key dropped"})
)
def test_a_column_gone_in_the_midst_of_a_transaction_stops_its_event_alone(shop: Pipeline, what: str) -> None:
    reader = at_work(shop)
    change, mended = ENDS_IN_A_STOP[what]
    transaction(
        shop, "INSERT INTO rows VALUES (1000, 'before')", change, "INSERT INTO others VALUES (1001)",
        "INSERT INTO rows DEFAULT VALUES" if "DROP id" in change else "INSERT INTO others VALUES (1002)",
    )  # fmt: skip
    target = shop.environment["TARGET_DSN"]
    others = "SELECT count(*) FROM %s.others"
    wait_until(
        "the other event",
        lambda: shops.one(target, others % "replica") == shops.one(shop.source_dsn, others % "public"),
    )
    wait_until("the stop", lambda: "event row.v1 stops, all others go on" in reader.output)
    execute(shop.source_dsn, mended)
    wait_until_equal(shop)
    assert reader.running


def test_a_key_that_the_log_did_not_tell_heals_by_its_remedy(shop: Pipeline) -> None:
    reader = at_work(shop)
    reader.terminate()
    transaction(
        shop,
        "ALTER TABLE rows RENAME id TO number",
        "INSERT INTO rows VALUES (1000, 'amid')",
        "ALTER TABLE rows RENAME number TO id",
    )
    assert "does not hold id" in shop.run("cdc.cli", "run", expect=3)
    shops.heal(shop)
