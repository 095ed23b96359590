"""`cdc check`: each precondition that is taken away is told, with what mends it; and what it prints does mend it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from cdc.demo.servers import PostgresServer, ValkeyServer
from tests.processes import Pipeline, closing, wait_until

EVENTS = """
[events.customer]
table = "shop.customers"
columns = ["id", "name"]
"""
ROLE = "Reader 1"


@pytest.fixture
def administrator(source_dsn: str) -> Iterator[psycopg.Connection]:
    """A superuser's connection to a database with one table, and a role that may not do anything yet."""
    with psycopg.connect(source_dsn, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA shop")
        connection.execute("CREATE TABLE shop.customers (id int PRIMARY KEY, name text, note text)")
        connection.execute("INSERT INTO shop.customers VALUES (1, 'Ada')")
        connection.execute(f'CREATE ROLE "{ROLE}" LOGIN')
        yield connection
        connection.execute(f'DROP OWNED BY "{ROLE}"')
        connection.execute(f'DROP ROLE "{ROLE}"')


@pytest.fixture
def shop(
    administrator: psycopg.Connection, source_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path
) -> Iterator[Pipeline]:
    """A pipeline whose reader logs in as that role."""
    dsn = make_conninfo(source_dsn, user=ROLE)
    with closing(Pipeline(pipeline_name, dsn, redis_url, tmp_path, EVENTS)) as made:
        yield made


def findings(shop: Pipeline, expect: int) -> dict[str, list[dict[str, Any]]]:
    """What `cdc check --json` says, by verdict."""
    found: dict[str, list[dict[str, Any]]] = {"ok": [], "warning": [], "error": []}
    for finding in json.loads(shop.run("cdc.cli", "check", "--json", expect=expect)):
        found[finding["verdict"]].append(finding)
    return found


def mend(shop: Pipeline, administrator: psycopg.Connection) -> None:
    """Run all that `cdc check` prints of errors, as a person would who pastes it."""
    for finding in findings(shop, expect=1)["error"]:
        administrator.execute(finding["remedy"].encode())
    assert findings(shop, expect=0)["error"] == []


def things(found: list[dict[str, Any]]) -> list[str]:
    return [finding["thing"] for finding in found]


def test_the_sql_that_it_prints_is_all_that_a_role_needs(shop: Pipeline, administrator: psycopg.Connection) -> None:
    lacking = findings(shop, expect=1)["error"]
    assert things(lacking) == ["role", "table shop.customers", f"publication cdc_{shop.name}"]
    for finding in lacking:
        assert finding["remedy"]
        administrator.execute(finding["remedy"].encode())
    assert findings(shop, expect=0)["error"] == []
    shop.run("cdc.cli", "run", "--once")
    after = findings(shop, expect=0)
    assert things(after["warning"]) == ["max_slot_wal_keep_size", "persistence"]


@pytest.mark.parametrize(
    ("taken", "thing", "what"),
    [
        ("ALTER ROLE {role} NOREPLICATION", "role", "may not replicate"),
        ("REVOKE USAGE ON SCHEMA shop FROM {role}", "table shop.customers", "may not read id, name"),
        ("REVOKE SELECT (name) ON shop.customers FROM {role}", "table shop.customers", "may not read name"),
        ("ALTER TABLE shop.customers ENABLE ROW LEVEL SECURITY", "table shop.customers", "row-level security applies"),
        ("DROP PUBLICATION {publication}", "publication", "may not make it"),
        ("ALTER PUBLICATION {publication} SET (publish = 'insert')", "publication", "leaves out some kind of change"),
        ("ALTER PUBLICATION {publication} SET TABLE shop.customers (id)", "publication", "only some columns or rows"),
    ],
)
def test_whatever_is_taken_away_is_told_and_mended(
    shop: Pipeline, administrator: psycopg.Connection, taken: str, thing: str, what: str
) -> None:
    mend(shop, administrator)
    administrator.execute(taken.format(role=f'"{ROLE}"', publication=f"cdc_{shop.name}").encode())
    (lacking,) = findings(shop, expect=1)["error"]
    assert lacking["thing"].startswith(thing)
    assert what in lacking["what"]
    administrator.execute(lacking["remedy"].encode())
    assert findings(shop, expect=0)["error"] == []


@pytest.mark.parametrize(
    "taken",
    [
        "ALTER ROLE {role} NOREPLICATION",
        "ALTER PUBLICATION {publication} SET (publish = 'insert')",
        "ALTER PUBLICATION {publication} SET TABLE shop.customers WHERE (id > 0)",
    ],
)
def test_the_reader_refuses_in_the_same_words(shop: Pipeline, administrator: psycopg.Connection, taken: str) -> None:
    mend(shop, administrator)
    administrator.execute(taken.format(role=f'"{ROLE}"', publication=f"cdc_{shop.name}").encode())
    (lacking,) = findings(shop, expect=1)["error"]
    refused = f"error: {lacking['thing']}: {lacking['what']}\n  remedy: {lacking['remedy']}\n"
    assert refused in shop.run("cdc.cli", "run", "--once", expect=3)


def test_what_the_owner_must_not_do_is_said_once_and_names_the_tables(
    shop: Pipeline, administrator: psycopg.Connection
) -> None:
    administrator.execute("CREATE TABLE shop.items (id int PRIMARY KEY); CREATE TABLE shop.whole (id int PRIMARY KEY)")
    administrator.execute("ALTER TABLE shop.whole REPLICA IDENTITY FULL")
    events = [f'[events.{name}]\ntable = "shop.{name}"\ncolumns = ["id"]' for name in ("items", "whole")]
    again = '[events.customer_v2]\ntype = "customer"\nversion = 2\ntable = "shop.customers"\ncolumns = ["id"]'
    shop.path.write_text("\n".join([shop.path.read_text(), *events, again]))
    told = [each["what"] for each in findings(shop, expect=1)["ok"] if each["thing"] == "tables' owner"]
    assert told == [
        "must not drop the primary key or set REPLICA IDENTITY NOTHING (shop.customers, shop.items)",
        "must not set REPLICA IDENTITY NOTHING (shop.whole)",
    ]


def test_a_table_that_the_publication_lacks_is_told_and_mended(
    shop: Pipeline, administrator: psycopg.Connection
) -> None:
    mend(shop, administrator)
    administrator.execute("CREATE TABLE shop.other (id int PRIMARY KEY)")
    administrator.execute(f"ALTER PUBLICATION cdc_{shop.name} SET TABLE shop.other".encode())
    (lacking,) = [found for found in findings(shop, expect=0)["warning"] if "is missing" in found["what"]]
    assert "shop.customers is missing" in lacking["what"]
    administrator.execute(lacking["remedy"].encode())
    assert "is missing" not in shop.run("cdc.cli", "check")


# The publication and the slot


def test_a_slot_without_a_publication_cannot_be_read_by_one_that_is_made_later(
    shop: Pipeline, administrator: psycopg.Connection
) -> None:
    mend(shop, administrator)
    administrator.execute(f"SELECT pg_create_logical_replication_slot('cdc_{shop.name}', 'pgoutput')".encode())
    administrator.execute(f"DROP PUBLICATION cdc_{shop.name}".encode())
    administrator.execute(f'GRANT CREATE ON DATABASE "{administrator.info.dbname}" TO "{ROLE}"'.encode())
    administrator.execute(f'ALTER TABLE shop.customers OWNER TO "{ROLE}"'.encode())
    (younger,) = findings(shop, expect=1)["error"]
    assert "what was written before a publication is made cannot be read through it" in younger["what"]
    assert younger["what"] in shop.run("cdc.cli", "run", "--once", expect=3)
    assert administrator.execute("SELECT pubname FROM pg_publication").fetchall() == []
    administrator.execute(younger["remedy"].encode())
    shop.run("cdc.cli", "run", "--once")
    assert "publishes whole rows of 1 table, and is older than the slot" in shop.run("cdc.cli", "check")


def test_a_publication_of_which_it_is_not_known_is_not_called_older_than_the_slot(
    shop: Pipeline, administrator: psycopg.Connection
) -> None:
    administrator.execute(f"SELECT pg_create_logical_replication_slot('cdc_{shop.name}', 'pgoutput')".encode())
    made = f"CREATE PUBLICATION cdc_{shop.name} FOR TABLE ONLY shop.customers WITH (publish_via_partition_root)"
    administrator.execute(made.encode())
    mend(shop, administrator)
    output = shop.run("cdc.cli", "check")
    assert "publishes whole rows of 1 table\n" in output


@pytest.mark.parametrize("version", [16, 18])
def test_a_publication_that_is_younger_than_the_slot_ends_the_reader_with_a_way_out(
    redis_url: str, pipeline_name: str, tmp_path: Path, version: int
) -> None:
    with a_server(tmp_path, redis_url, pipeline_name, version=version) as shop:
        with psycopg.connect(shop.source_dsn, autocommit=True) as administrator:
            administrator.execute(f"SELECT pg_create_logical_replication_slot('cdc_{shop.name}', 'pgoutput')".encode())
            administrator.execute("INSERT INTO shop.customers VALUES (1, 'Ada')")
            made = f"CREATE PUBLICATION cdc_{shop.name} FOR TABLE ONLY shop.customers WITH (publish_via_partition_root)"
            administrator.execute(made.encode())
        for _ in range(2):  # not only while it happens
            printed = shop.run("cdc.cli", "run", "--once", expect=3)
            assert "error: the publication is younger than the slot: " in printed
            assert "remedy: Run `cdc snapshot --all`" in printed
        shop.run("cdc.cli", "snapshot", "--all")
        shop.run("cdc.cli", "run", "--once")
        assert "and is older than the slot" in shop.run("cdc.cli", "check")
        found = shop.redis.xrange(shop.keys.stream("customer", 2))
        states = [fields.get(b"state") for _, fields in found]  # type: ignore[union-attr]
        assert list(filter(None, states)) == [b'{"id":1,"name":"Ada"}']


# Tables that inherit


def test_rows_of_tables_that_inherit_are_said_to_be_in_no_event(
    shop: Pipeline, administrator: psycopg.Connection
) -> None:
    mend(shop, administrator)
    administrator.execute("CREATE TABLE shop.former () INHERITS (shop.customers)")
    administrator.execute('CREATE TABLE shop."long gone*" (PRIMARY KEY (id)) INHERITS (shop.former)')
    (told,) = [each for each in findings(shop, expect=0)["warning"] if each["thing"] == "event customer.v1"]
    assert 'rows of shop.former, shop."long gone*", which inherit from shop.customers, are in no event' in told["what"]
    command = told["remedy"].partition(" #")[0].removeprefix("cdc ")
    written = shop.run("cdc.cli", *shlex.split(command))
    assert 'table = "shop.\\"long gone*\\""' in written
    assert "shop.former: has no replica identity" in written


def test_a_child_that_has_an_event_of_its_own_is_no_longer_warned_of(
    shop: Pipeline, administrator: psycopg.Connection
) -> None:
    administrator.execute("CREATE TABLE shop.former (PRIMARY KEY (id)) INHERITS (shop.customers)")
    shop.path.write_text(f'{shop.path.read_text()}\n[events.former]\ntable = "shop.former"\ncolumns = ["id"]\n')
    mend(shop, administrator)
    assert "in no event" not in shop.run("cdc.cli", "check")


@pytest.mark.parametrize(
    ("key", "verdict", "what"),
    [
        ("", "error", "without a replica identity, the application's UPDATE and DELETE on it fail"),
        ("PRIMARY KEY (id)", "warning", "its changes are sent to the reader for nothing"),
    ],
)
def test_children_that_a_publication_without_only_took_along_are_noticed(
    shop: Pipeline, administrator: psycopg.Connection, key: str, verdict: str, what: str
) -> None:
    administrator.execute(f"CREATE TABLE shop.former ({key}) INHERITS (shop.customers)".encode())
    administrator.execute("INSERT INTO shop.former VALUES (7, 'Cy')")
    made = f"CREATE PUBLICATION cdc_{shop.name} FOR TABLE shop.customers WITH (publish_via_partition_root)"
    administrator.execute(made.encode())
    for finding in findings(shop, expect=1)["error"]:
        if not finding["thing"].startswith("publication"):
            administrator.execute(finding["remedy"].encode())
    found = findings(shop, expect=int(verdict == "error"))[verdict]
    (told,) = [each for each in found if each["thing"].startswith("publication")]
    assert told["what"].startswith("publishes shop.former too, which inherits from shop.customers and is in no event")
    assert what in told["what"]
    if verdict == "error":
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            administrator.execute("UPDATE shop.former SET name = 'Di'")
    administrator.execute(told["remedy"].encode())
    administrator.execute("UPDATE shop.former SET name = 'Di'")
    assert "publishes shop.former" not in shop.run("cdc.cli", "check")
    assert "publishes whole rows of 1 table" in shop.run("cdc.cli", "check")


# Settings


def test_walsenders_are_counted_for_a_role_that_may_see_little(
    shop: Pipeline, administrator: psycopg.Connection, source_dsn: str
) -> None:
    def senders() -> int:
        (told,) = [each for each in findings(shop, expect=1)["ok"] if each["thing"] == "max_wal_senders"]
        return int(told["what"].partition(", ")[2].removesuffix(" in use"))

    before = senders()
    with psycopg.connect(source_dsn, replication="database", autocommit=True):
        wait_until("the walsender to be counted", lambda: senders() == before + 1)


@contextmanager
def a_server(
    directory: Path,
    redis_url: str,
    name: str,
    *,
    version: int | None = None,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Pipeline]:
    """A pipeline on a server of its own, of another version or with settings that a running one does not change."""
    with PostgresServer.start(version=version, settings=settings) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("CREATE SCHEMA shop")
            connection.execute("CREATE TABLE shop.customers (id int PRIMARY KEY, name text)")
        with closing(Pipeline(name, server.dsn(), redis_url, directory, EVENTS)) as made:
            yield made


@pytest.mark.parametrize(
    ("settings", "thing", "remedy"),
    [
        ({"wal_level": "replica"}, "wal_level", "SET wal_level = 'logical'"),
        ({"max_replication_slots": "0"}, "max_replication_slots", "SET max_replication_slots = '10'"),
        ({"max_wal_senders": "0"}, "max_wal_senders", "SET max_wal_senders = '10'"),
        ({"synchronous_standby_names": "*"}, "synchronous_standby_names", "one by one"),
    ],
)
def test_settings_that_need_a_restart_or_would_stall_the_application(
    redis_url: str, pipeline_name: str, tmp_path: Path, settings: dict[str, str], thing: str, remedy: str
) -> None:
    settings |= {"synchronous_commit": "local"} if thing.startswith("synchronous") else {}
    with a_server(tmp_path, redis_url, pipeline_name, settings=settings) as shop:
        (lacking,) = findings(shop, expect=1)["error"]
    assert lacking["thing"] == thing
    assert remedy in lacking["remedy"]


def test_where_a_provider_runs_the_server_all_commands_tell_its_way(
    redis_url: str, pipeline_name: str, tmp_path: Path
) -> None:
    wal_level = "Set rds.logical_replication = 1 in the parameter group (of the cluster, with Aurora), then reboot."
    with a_server(tmp_path, redis_url, pipeline_name, settings={"wal_level": "replica"}) as shop:
        shop.environment["SOURCE_DSN"] = make_conninfo(shop.source_dsn, user="reader")
        with psycopg.connect(shop.source_dsn, autocommit=True) as administrator:
            administrator.execute("CREATE ROLE rds_superuser; CREATE ROLE rds_replication; CREATE ROLE reader LOGIN")
            administrator.execute("GRANT USAGE ON SCHEMA shop TO reader")
            checked = findings(shop, expect=1)
            lacking = {finding["thing"]: finding["remedy"] for finding in checked["error"]}
            assert lacking["wal_level"] == wal_level
            assert lacking["role"] == "GRANT rds_replication TO reader;"
            assert "at Amazon RDS or Aurora answers" in checked["ok"][0]["what"]
            assert f"remedy: {wal_level}" in shop.run("cdc.cli", "run", "--once", expect=3)
            proposed = shop.run("cdc.cli", "init", "-o", str(tmp_path / "other.toml"))
            assert wal_level in proposed
            assert "GRANT rds_replication TO cdc_postgres_reader;" in proposed
            administrator.execute(lacking["role"].encode())
            assert "role" in things(findings(shop, expect=1)["ok"])


@pytest.mark.parametrize(
    ("settings", "verdict", "thing", "what"),
    [
        ({"maxmemory-policy": "allkeys-lru"}, "error", "maxmemory-policy", "may remove whole streams"),
        ({"maxmemory-policy": "volatile-ttl"}, "warning", "maxmemory-policy", "may remove whole streams"),
        ({"maxmemory": "1mb"}, "warning", "memory", "nothing is published"),
        ({"appendonly": "no"}, "warning", "persistence", "a restart of Redis loses"),
        ({"appendonly": "yes"}, "ok", "persistence", "publishes again what was lost"),
    ],
)
def test_what_redis_may_lose_is_said_in_plain_words(
    shop: Pipeline, settings: dict[str, str], verdict: str, thing: str, what: str
) -> None:
    with ValkeyServer.start(settings=settings) as server:
        shop.environment["REDIS_URL"] = server.url()
        found = findings(shop, expect=1)
    (finding,) = [each for each in found[verdict] if each["thing"] == thing]
    assert what in finding["what"]


def test_without_an_append_only_file_there_is_no_fsync_to_wait_for(shop: Pipeline) -> None:
    shop.path.write_text(shop.path.read_text().replace("confirm_delay_seconds = 0.3", 'durability = "fsync"'))
    with ValkeyServer.start() as server:
        shop.environment["REDIS_URL"] = server.url()
        (finding,) = [each for each in findings(shop, expect=1)["error"] if each["thing"] == "persistence"]
        refused = shop.run("cdc.cli", "run", "--once", expect=3)
    assert "nothing is ever on disk" in finding["what"]
    assert finding["what"] in refused
    assert "CONFIG SET appendonly yes" in finding["remedy"]


def test_a_server_that_cannot_be_reached_leaves_the_other_half_to_be_checked(shop: Pipeline) -> None:
    shop.environment["SOURCE_DSN"] = "postgresql://reader:hunter2-planted@127.0.0.1:1/shop"
    output = shop.run("cdc.cli", "check", expect=1)
    assert "error    source: " in output
    assert "ok       transport: " in output
    assert output.splitlines()[-1].startswith("1 error")
    assert "hunter2" not in output


@pytest.mark.parametrize("locked", ["customers", "orders_1"])
def test_a_table_that_somebody_alters_is_not_waited_for(
    shop: Pipeline, administrator: psycopg.Connection, source_dsn: str, locked: str
) -> None:
    administrator.execute("CREATE TABLE shop.orders (id int PRIMARY KEY, note text) PARTITION BY LIST (id)")
    administrator.execute("CREATE TABLE shop.orders_1 PARTITION OF shop.orders FOR VALUES IN (1)")
    with shop.path.open("a") as file:
        file.write('[events.order]\ntable = "shop.orders"\ncolumns = ["id", "note"]\n')
    mend(shop, administrator)
    with psycopg.connect(source_dsn) as owner:
        owner.execute(f"ALTER TABLE shop.{locked} ADD CONSTRAINT noted CHECK (note <> '')".encode())
        assert findings(shop, expect=0)["error"] == []


def test_what_mends_a_thing_has_its_comments_on_lines_of_their_own(
    shop: Pipeline, administrator: psycopg.Connection
) -> None:
    administrator.execute(
        "INSERT INTO shop.customers SELECT 2, string_agg(gen_random_uuid()::text, '') FROM generate_series(1, 2000)"
    )
    administrator.execute("VACUUM shop.customers")
    told = [finding["what"] for finding in findings(shop, expect=1)["ok"]]
    assert any("so its row is read again by its key" in what for what in told)
    shop.path.write_text(shop.path.read_text() + 'unchanged_toast = "partial"\n')
    remedies = [finding["remedy"] or "" for found in findings(shop, expect=1).values() for finding in found]
    assert any("REPLICA IDENTITY FULL" in remedy for remedy in remedies)
    assert any("appendonly" in remedy for remedy in remedies)
    assert [line for remedy in remedies for line in remedy.splitlines() if " -- " in line.lstrip()] == []
