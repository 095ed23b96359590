"""Two consuming services on the same streams."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests import servers
from tests.processes import Pipeline, closing, wait_until

CONFIGURATION = """
[events.customer]
table = "customers"
columns = ["id", "name"]
[events.contact]
table = "customers"
columns = ["id", "email"]
[sinks.billing]
type = "postgres"
dsn = "${BILLING_DSN}"
[sinks.billing.tables]
customer = "replica.customers"
[sinks.mail]
type = "postgres"
dsn = "${MAIL_DSN}"
[sinks.mail.tables]
customer = "copies.people"
contact = "copies.contacts"
"""


@pytest.fixture
def shop(
    postgres_server: servers.Postgres,
    source_dsn: str,
    target_dsn: str,
    redis_url: str,
    pipeline_name: str,
    tmp_path: Path,
) -> Iterator[Pipeline]:
    """A pipeline with both sinks running."""
    with psycopg.connect(source_dsn) as connection:
        connection.execute("CREATE TABLE customers (id int PRIMARY KEY, name text, email text)")
        connection.execute("INSERT INTO customers SELECT i, 'n' || i, 'e' || i FROM generate_series(1, 100) i")
    with servers.database(postgres_server, "mail") as mail_dsn:
        environment = {"BILLING_DSN": target_dsn, "MAIL_DSN": mail_dsn}
        with closing(Pipeline(pipeline_name, source_dsn, redis_url, tmp_path, CONFIGURATION, environment)) as made:
            made.reader()
            made.sink("billing")
            made.sink("mail")
            made.wait_published()
            wait_applied(made)
            yield made


def wait_applied(shop: Pipeline) -> None:
    shop.wait_applied(shop.environment["BILLING_DSN"], "billing")
    shop.wait_applied(shop.environment["MAIL_DSN"], "mail")


def rows(dsn: str, table: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(f"SELECT * FROM {table} ORDER BY 1".encode()).fetchall()


def test_each_holds_the_columns_it_maps(shop: Pipeline) -> None:
    with psycopg.connect(shop.source_dsn) as connection:
        connection.execute("UPDATE customers SET name = 'Zoë', email = 'zoe' WHERE id = 1")
        connection.execute("DELETE FROM customers WHERE id = 100")
    shop.wait_published()
    wait_applied(shop)
    names = [(1, "Zoë"), *((number, f"n{number}") for number in range(2, 100))]
    emails = [(1, "zoe"), *((number, f"e{number}") for number in range(2, 100))]
    assert rows(shop.environment["BILLING_DSN"], "replica.customers") == names
    assert rows(shop.environment["MAIL_DSN"], "copies.people") == names
    assert rows(shop.environment["MAIL_DSN"], "copies.contacts") == emails


def test_a_snapshot_for_one_sink_is_skipped_by_the_other(shop: Pipeline) -> None:
    for dsn, table in (("BILLING_DSN", "replica.customers"), ("MAIL_DSN", "copies.people")):
        with psycopg.connect(shop.environment[dsn]) as connection:
            connection.execute(f"UPDATE {table} SET name = 'damaged' WHERE id = 7".encode())
            connection.execute(f"INSERT INTO {table} VALUES (500, 'extra')".encode())
    shop.run("cdc.cli", "snapshot", "customer", "--sink", "mail", "--wait")
    wait_applied(shop)
    assert len(rows(shop.environment["MAIL_DSN"], "copies.people")) == 100
    assert (7, "n7") in rows(shop.environment["MAIL_DSN"], "copies.people")
    assert len(rows(shop.environment["BILLING_DSN"], "replica.customers")) == 101
    assert (7, "damaged") in rows(shop.environment["BILLING_DSN"], "replica.customers")


def test_consumer_groups_follow_the_checkpoints(shop: Pipeline) -> None:
    def lag() -> set[object]:
        groups = shop.redis.xinfo_groups(shop.keys.stream("customer", 1))
        return {(group["name"], group["last-delivered-id"]) for group in groups}

    last = str(shop.last_ids()["customer"]).encode()
    wait_until("both groups at the end", lambda: lag() == {(b"billing", last), (b"mail", last)})


def test_sinks_go_on_after_the_pipeline_was_dropped_and_made_again(shop: Pipeline) -> None:
    reader = next(command for command in shop.commands if command.log.name == "reader.log")
    reader.terminate()
    shop.run("cdc.cli", "drop", "--yes")
    with psycopg.connect(shop.source_dsn) as connection:
        connection.execute("DELETE FROM customers WHERE id > 50")
        connection.execute("UPDATE customers SET name = 'new'")
    reader.start()
    wait_until("the new pipeline", lambda: shop.published)
    shop.wait_published()
    expected = [(number, "new") for number in range(1, 51)]
    wait_until(
        "both replicas to be right",
        lambda: (
            rows(shop.environment["BILLING_DSN"], "replica.customers") == expected
            and rows(shop.environment["MAIL_DSN"], "copies.people") == expected
        ),
    )
