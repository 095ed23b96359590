"""`cdc check`: each precondition that is taken away is told, with what mends it; and what it prints does mend it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from cdc.demo.servers import PostgresServer, ValkeyServer
from tests.processes import Pipeline, closing

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
        ("DROP PUBLICATION {publication}", "publication", "may not make it"),
        ("ALTER PUBLICATION {publication} SET (publish = 'insert')", "publication", "leaves out some kind of change"),
        ("ALTER PUBLICATION {publication} SET TABLE shop.customers (id)", "publication", "only some columns or rows"),
    ],
)
def test_whatever_is_taken_away_is_told_and_mended(
    shop: Pipeline, administrator: psycopg.Connection, taken: str, thing: str, what: str
) -> None:
    for finding in findings(shop, expect=1)["error"]:
        administrator.execute(finding["remedy"].encode())
    administrator.execute(taken.format(role=f'"{ROLE}"', publication=f"cdc_{shop.name}").encode())
    (lacking,) = findings(shop, expect=1)["error"]
    assert lacking["thing"].startswith(thing)
    assert what in lacking["what"]
    administrator.execute(lacking["remedy"].encode())
    assert findings(shop, expect=0)["error"] == []


def test_a_table_that_the_publication_lacks_is_told_and_mended(
    shop: Pipeline, administrator: psycopg.Connection
) -> None:
    for finding in findings(shop, expect=1)["error"]:
        administrator.execute(finding["remedy"].encode())
    administrator.execute("CREATE TABLE shop.other (id int PRIMARY KEY)")
    administrator.execute(f"ALTER PUBLICATION cdc_{shop.name} SET TABLE shop.other".encode())
    lacking = findings(shop, expect=0)["warning"][0]
    assert "shop.customers is missing" in lacking["what"]
    administrator.execute(lacking["remedy"].encode())
    assert "is missing" not in shop.run("cdc.cli", "check")


@contextmanager
def a_server(directory: Path, redis_url: str, name: str, **settings: str) -> Iterator[Pipeline]:
    """A pipeline on a server of its own, with settings that a running one does not change."""
    with PostgresServer.start(settings=settings) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("CREATE SCHEMA shop")
            connection.execute("CREATE TABLE shop.customers (id int PRIMARY KEY, name text)")
        with closing(Pipeline(name, server.dsn(), redis_url, directory, EVENTS)) as made:
            yield made


@pytest.mark.parametrize(
    ("settings", "thing", "remedy"),
    [
        ({"wal_level": "replica"}, "wal_level", "SET wal_level = logical"),
        ({"max_replication_slots": "0"}, "max_replication_slots", "SET max_replication_slots = 10"),
        ({"max_wal_senders": "0"}, "max_wal_senders", "SET max_wal_senders = 10"),
        ({"synchronous_standby_names": "*"}, "synchronous_standby_names", "one by one"),
    ],
)
def test_settings_that_need_a_restart_or_would_stall_the_application(
    redis_url: str, pipeline_name: str, tmp_path: Path, settings: dict[str, str], thing: str, remedy: str
) -> None:
    settings |= {"synchronous_commit": "local"} if thing.startswith("synchronous") else {}
    with a_server(tmp_path, redis_url, pipeline_name, **settings) as shop:
        (lacking,) = findings(shop, expect=1)["error"]
    assert lacking["thing"] == thing
    assert remedy in lacking["remedy"]


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


def test_a_server_that_cannot_be_reached_leaves_the_other_half_to_be_checked(shop: Pipeline) -> None:
    shop.environment["SOURCE_DSN"] = "postgresql://reader:hunter2-planted@127.0.0.1:1/shop"
    output = shop.run("cdc.cli", "check", expect=1)
    assert "error    source: " in output
    assert "ok       transport: " in output
    assert output.splitlines()[-1].startswith("1 error")
    assert "hunter2" not in output
