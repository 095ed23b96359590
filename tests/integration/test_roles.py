"""What the README grants to reader and sinks is all that they need: no more is given, and each part is needed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest
import redis
from psycopg.conninfo import make_conninfo

from cdc.demo.servers import ValkeyServer
from tests.processes import Pipeline, closing, wait_until
from tests.readme import block, redis_users
from tests.scraping import Endpoint

PASSWORD = "hunter2-planted"
CONFIGURATION = """
[events.customer]
table = "public.customers"
columns = ["id", "name", "email"]
[sinks.billing]
type = "postgres"
dsn = "${BILLING_DSN}"
[sinks.billing.tables]
customer = "replica.customers"
"""


def statements(first_words: str) -> list[str]:
    """The SQL of a block, without comments."""
    text = "\n".join(line.partition("--")[0] for line in block("sql", first_words)).replace("'...'", f"'{PASSWORD}'")
    return [statement.strip() for statement in text.split(";") if statement.strip()]


@pytest.fixture
def transport() -> Iterator[ValkeyServer]:
    """A Redis with the README's two users, and nobody else."""
    with ValkeyServer.start(settings={"appendonly": "yes"}) as server:
        with redis.Redis.from_url(server.url()) as client:
            others = {"cdc_admin": ["on", f">{PASSWORD}", "~*", "+@all"], "default": ["off"]}
            for user, rules in (redis_users(PASSWORD) | others).items():
                client.execute_command("ACL", "SETUSER", user, *rules)
        yield server


@pytest.fixture
def shop(
    source_dsn: str, target_dsn: str, redis_url: str, transport: ValkeyServer, tmp_path: Path
) -> Iterator[Pipeline]:
    """The quick start's pipeline, with the roles that it makes."""
    roles = ("cdc_reader", "cdc_billing")
    with (
        psycopg.connect(source_dsn, autocommit=True) as source,
        psycopg.connect(target_dsn, autocommit=True) as target,
    ):
        source.execute("CREATE TABLE customers (id int PRIMARY KEY, name text, email text, secret text)")
        source.execute("INSERT INTO customers VALUES (1, 'Ada', 'a@example.com', 'PLANTED')")
        for connection, first_words in ((source, "CREATE ROLE cdc_reader"), (target, "CREATE ROLE cdc_billing")):
            for statement in statements(first_words):
                database = connection.info.dbname
                connection.execute(statement.replace("DATABASE billing", f'DATABASE "{database}"').encode())
        urls = {"REDIS_URL": at(transport, "cdc_reader")}
        dsns = {
            "SOURCE_DSN": make_conninfo(source_dsn, user=roles[0], password=PASSWORD),
            "BILLING_DSN": make_conninfo(target_dsn, user=roles[1], password=PASSWORD),
        }
        with closing(Pipeline("shop", source_dsn, redis_url, tmp_path, CONFIGURATION, dsns | urls)) as made:
            yield made
        for connection, role in ((source, roles[0]), (target, roles[1])):
            connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")
            connection.execute(f"DROP OWNED BY {role} CASCADE".encode())
            connection.execute(f"DROP ROLE {role}".encode())


def at(transport: ValkeyServer, user: str) -> str:
    return transport.url().replace("redis://", f"redis://{user}:{PASSWORD}@")


def sink(shop: Pipeline, transport: ValkeyServer, *command: str, expect: int = 0) -> str:
    """Run a sink's command as the sink's Redis user."""
    before = shop.environment
    shop.environment = before | {"REDIS_URL": at(transport, "cdc_billing")}
    try:
        return shop.run("sinks.cli", *command, expect=expect)
    finally:
        shop.environment = before


def test_the_readmes_grants_are_all_that_reader_and_sink_need(
    shop: Pipeline, transport: ValkeyServer, target_dsn: str
) -> None:
    for command in (["check"], ["run", "--once"], ["snapshot", "customer.v1"], ["status"], ["run", "--once"]):
        assert "NOPERM" not in shop.run("cdc.cli", *command)
    for command in (["check", "billing"], ["run", "billing", "--once"], ["tables", "billing"]):
        assert "NOPERM" not in sink(shop, transport, *command)
    with psycopg.connect(target_dsn) as connection:
        assert connection.execute("SELECT * FROM replica.customers").fetchall() == [(1, "Ada", "a@example.com")]
    assert "left to its owner: DROP PUBLICATION cdc_shop;" in shop.run("cdc.cli", "drop", "--yes")


def test_a_sink_may_not_publish(shop: Pipeline, transport: ValkeyServer) -> None:
    shop.run("cdc.cli", "run", "--once")
    with redis.Redis.from_url(at(transport, "cdc_billing")) as client:
        for key in ("shop:customer", "shop:meta", "shop:schema", "shop:status:reader"):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.xadd(key, {"op": "upsert"})
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.delete(key)


@pytest.mark.parametrize(
    ("user", "command"),
    [
        *(("cdc_reader", name) for name in ("evalsha", "hset", "xadd", "xinfo", "xsetid", "info", "set")),
        *(("cdc_billing", name) for name in ("xrange", "xinfo", "hmget")),
    ],
)
def test_what_a_redis_user_may_not_do_is_told_with_the_command(
    shop: Pipeline, transport: ValkeyServer, source_dsn: str, user: str, command: str
) -> None:
    if user == "cdc_billing":
        shop.run("cdc.cli", "run", "--once")
    with redis.Redis.from_url(at(transport, "cdc_admin")) as client:
        client.execute_command("ACL", "SETUSER", user, f"-{command}")
    output = (
        shop.run("cdc.cli", "run", "--once", expect=3)
        if user == "cdc_reader"
        else sink(shop, transport, "run", "billing", "--once", expect=3)
    )
    assert "ACL" in output
    assert command in output
    assert PASSWORD not in output


def test_the_grants_are_enough_for_the_metrics_too(shop: Pipeline) -> None:
    reader = shop.reader("--metrics-port", "0")
    endpoint = Endpoint.of(reader)
    for metric in ("statecast_source_up", "statecast_slot_active", "statecast_transport_up"):
        wait_until(metric, partial(endpoint.has, metric, 1))
    assert reader.terminate() == 0
