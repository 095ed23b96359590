"""The first hour: each wrong step ends in one message with thing, reason and remedy, and nothing is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
import redis
from psycopg.conninfo import make_conninfo

from cdc.demo.servers import PostgresServer, ValkeyServer
from tests.processes import Pipeline, closing

PASSWORD = "hunter2-planted"
EVENTS = """
[events.customer]
table = "customers"
columns = ["id", "name"]
[sinks.billing]
type = "postgres"
dsn = "${TARGET_DSN}"
[sinks.billing.tables]
customer = "replica.customers"
"""
SCHEMA = """
CREATE TABLE customers (id int PRIMARY KEY, name text);
CREATE TABLE keyless (id int, name text);
CREATE TABLE lost_identity (id int PRIMARY KEY, name text);
ALTER TABLE lost_identity REPLICA IDENTITY NOTHING;
"""


@dataclass(frozen=True)
class Step:
    """Something wrong, and what must be said of it."""

    says: tuple[str, ...]
    remedy: str
    code: int = 3
    configuration: tuple[str, str] = ("", "")
    """What is replaced in it, and by what."""
    environment: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    redis: Mapping[str, str] = field(default_factory=dict)
    redis_password: str = ""
    redis_user: str = f":{PASSWORD}@"
    """What the URL has before the host, where there is a `redis_password`."""
    prepare: str = ""
    """SQL of the superuser; READER is the role that the reader has."""
    access: str = ""
    """A line of pg_hba.conf."""
    options: tuple[str, ...] = ()


OPENED = (
    "ALTER ROLE reader REPLICATION; CREATE PUBLICATION cdc_shop FOR TABLE customers WITH (publish_via_partition_root);"
)
STEPS = {
    "unknown key": Step(
        ('source.snapshoot: unknown key (did you mean "snapshot"?)',),
        "Correct the lines",
        code=2,
        configuration=('dsn = "${SOURCE_DSN}"', 'dsn = "${SOURCE_DSN}"\nsnapshoot = "never"'),
    ),
    "wrong type": Step(
        ("events.customer.columns: ", "got text"), "Correct the lines", code=2, configuration=('["id", "name"]', '"id"')
    ),
    "missing variable": Step(
        ("transport.url: environment variable NO_SUCH is not set",),
        "or the environment",
        code=2,
        configuration=("${REDIS_URL}", "${NO_SUCH}"),
    ),
    "reserved name": Step(
        ("events.meta: ", "not meta"), "Correct the lines", code=2, configuration=("[events.customer]", "[events.meta]")
    ),
    "unreachable": Step(
        ("port 1 failed",),
        "Start the source database",
        code=4,
        environment={"SOURCE_DSN": f"postgresql://reader:{PASSWORD}@127.0.0.1:1/postgres"},
        options=("--connect-timeout", "1"),
    ),
    "unreachable Redis": Step(
        ("Redis does not answer",),
        "Start Redis",
        code=4,
        environment={"REDIS_URL": f"redis://:{PASSWORD}@127.0.0.1:1/0"},
        options=("--connect-timeout", "1"),
    ),
    "wrong password": Step(
        ("password authentication failed", '"reader"'),
        "Correct the role's password",
        access="host all reader 127.0.0.1/32 scram-sha-256",
    ),
    "not let in": Step(
        ("pg_hba.conf rejects",), "Correct the role's password", access="host all reader 127.0.0.1/32 reject"
    ),
    "wrong Redis password": Step(("Redis refuses", "invalid username-password pair"), "ACL", redis_password="another"),
    "no Redis password": Step(
        ("Redis refuses: it wants a password, and transport.url names none",),
        "redis://:PASSWORD@HOST",
        redis_password="another",
        redis_user="",
    ),
    "password that ends early": Step(
        ("source: user or password holds a character that ends it early in a URL",),
        "Percent-encode user and password",
        code=2,
        environment={"SOURCE_DSN": f"postgresql://reader:p@{PASSWORD}/x@127.0.0.1:1/postgres"},
    ),
    "wal_level": Step(
        ("wal_level: replica, must be logical",), "SET wal_level = 'logical'", settings={"wal_level": "replica"}
    ),
    "no REPLICATION": Step(("role: reader may not replicate",), "ALTER ROLE reader REPLICATION"),
    "no free slot": Step(
        ("max_replication_slots: all 1 are in use",),
        "SET max_replication_slots = '11'",
        settings={"max_replication_slots": "1"},
        prepare="SELECT pg_create_physical_replication_slot('other');" + OPENED,
    ),
    "no free sender": Step(
        ("max_wal_senders",),
        "Raise max_wal_senders",
        code=4,
        settings={"max_wal_senders": "0"},
        prepare=OPENED,
        options=("--connect-timeout", "1"),
    ),
    "synchronous": Step(
        ("synchronous_standby_names: matches statecast_shop",),
        "one by one",
        settings={"synchronous_standby_names": "*", "synchronous_commit": "local"},
        prepare=OPENED,
    ),
    "missing table": Step(
        ("events.customer.table: there is no table public.custmers",),
        "Correct events.*.table",
        prepare=OPENED,
        configuration=('"customers"', '"custmers"'),
    ),
    "missing column": Step(
        ("events.customer.columns: public.customers has no column nme (it has id, name)",),
        "Correct events.*.columns",
        prepare=OPENED,
        configuration=('["id", "name"]', '["id", "nme"]'),
    ),
    "missing key": Step(
        ("public.keyless has no replica identity", "UPDATE and DELETE on it would fail"),
        "Give the table a primary key",
        prepare=OPENED,
        configuration=('"customers"', '"keyless"'),
    ),
    "no identity": Step(
        ("public.lost_identity has no replica identity",),
        "REPLICA IDENTITY",
        prepare=OPENED,
        configuration=('"customers"', '"lost_identity"'),
    ),
    "no publication": Step(
        ("the publication has to be changed, and this role may not",),
        'CREATE PUBLICATION "cdc_shop" FOR TABLE',
        prepare="ALTER ROLE reader REPLICATION; REVOKE CREATE ON DATABASE postgres FROM PUBLIC;",
    ),
    "evicting Redis": Step(
        ("maxmemory-policy: allkeys-lru: Redis may remove whole streams",),
        "CONFIG SET maxmemory-policy noeviction",
        redis={"maxmemory-policy": "allkeys-lru"},
        prepare=OPENED,
    ),
}


@contextmanager
def wrong(step: Step, directory: Path) -> Iterator[tuple[Pipeline, PostgresServer]]:
    """A pipeline in which this is wrong."""
    with (
        PostgresServer.start(settings=step.settings) as server,
        ValkeyServer.start(settings=step.redis) as transport,
    ):
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute(SCHEMA)
            connection.execute(
                "CREATE ROLE reader LOGIN PASSWORD 'another'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader"
            )
            for statement in filter(None, step.prepare.split(";")):
                connection.execute(statement.encode())
            if step.access:
                rules = server.data_directory / "pg_hba.conf"
                rules.write_text(f"{step.access}\n{rules.read_text()}")
                connection.execute("SELECT pg_reload_conf()")
        dsn = make_conninfo(server.dsn(user="reader"), password=PASSWORD)
        url = transport.url()
        if step.redis_password:
            with redis.Redis.from_url(url) as client:
                client.config_set("requirepass", step.redis_password)
            url = url.replace("//", f"//{step.redis_user}")
        pipeline = Pipeline("shop", dsn, url, directory, EVENTS, {"TARGET_DSN": server.dsn(), **step.environment})
        before, after = step.configuration
        text = pipeline.path.read_text()
        assert before in text
        pipeline.path.write_text(text.replace(before, after, 1))
        with closing(pipeline) as made:
            yield made, server


@pytest.mark.parametrize("name", STEPS)
def test_a_wrong_step_of_the_reader(name: str, tmp_path: Path) -> None:
    step = STEPS[name]
    with wrong(step, tmp_path) as (shop, server):
        output = shop.run("cdc.cli", "run", "--once", *step.options, expect=step.code)
        with psycopg.connect(server.dsn()) as connection:
            slots = connection.execute(
                "SELECT slot_name FROM pg_replication_slots WHERE slot_name = 'cdc_shop'"
            ).fetchall()
            made = connection.execute("SELECT pubname FROM pg_publication").fetchall()
        checked = shop.command("cdc.cli", "check", *step.options, log="checked")
        checked.start()
        assert checked.wait() == (2 if step.code == 2 else 1), checked.output
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, output
    assert all(part in output for part in step.says), output
    assert step.remedy in output.partition("remedy: ")[2], output
    assert "Traceback" not in output
    assert PASSWORD not in output + checked.output
    assert slots == []
    assert made == ([("cdc_shop",)] if "CREATE PUBLICATION" in step.prepare else [])
