"""The first hour of a sink: each wrong step ends in one message with thing, reason and remedy, and writes nothing.

What is not here: tables of others, and misfits whose remedy is tried (test_sink_tables.py), certificates (test_tls.py),
every mistake that a configuration can hold (test_configuration.py), two workers of one sink (test_sink_worker.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import psutil
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from cdc.demo.servers import PostgresServer, ValkeyServer
from sinks.check import check
from sinks.control import Control
from tests import servers
from tests.integration.sink_harness import CUSTOMER, Pipeline, column, customer, delete
from tests.processes import Pipeline as Commands
from tests.processes import wait_until
from tests.readme import redis_users
from transforms.schema import SchemaDocument

PASSWORD = "hunter2-planted"
NAME = "shop"
CONFIGURATION = """
[sinks.billing]
type = "postgres"
dsn = "${TARGET_DSN}"
[sinks.billing.tables]
customer = "replica.customers"
"""
WITH_EMAIL = SchemaDocument("customer", 1, "customer", ("id",), (*CUSTOMER.columns, column("email", "text")))
LEASE_COLUMNS = {"owner", "lease_until", "updated_at"}
"""Of cdc.checkpoint: a worker that begins takes the lease, and gives it back."""
MAKES = "GRANT CREATE ON DATABASE {database} TO cdc_billing;"
"""What the README grants."""
OWN_SCHEMA = MAKES + "CREATE SCHEMA replica AUTHORIZATION cdc_billing;"
OWN_TABLE = "ALTER TABLE replica.customers OWNER TO cdc_billing;"
WRITES = (
    "GRANT USAGE ON SCHEMA replica TO cdc_billing; GRANT USAGE, CREATE ON SCHEMA cdc TO cdc_billing;"
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA cdc, replica TO cdc_billing;"
)
"""For a role that owns nothing, once the tables are there."""


@dataclass(frozen=True)
class Step:
    """Something wrong, and what must be said of it by `cdc-sink run`; `cdc-sink check` says the remedy too."""

    says: tuple[str, ...]
    remedy: str
    code: int = 3
    check: int = 1
    check_remedy: str = ""
    """Where it is another."""
    configuration: tuple[str, str] = ("", "")
    """What is replaced in it, and by what."""
    dsn: Mapping[str, object] = field(default_factory=dict)
    """Parameters of the DSN that are others."""
    dsn_text: str = ""
    url: str = ""
    """{user}, {host}: who it should be, and where. Also of `dsn_text`."""
    unset: str = ""
    prepare: str = MAKES
    """SQL of the superuser."""
    applied: bool = False
    """Another role has run the sink before, so that tables are there."""
    access: str = ""
    """A line of pg_hba.conf."""
    without: str = ""
    """A rule that the sink's Redis user lacks, of those in the README."""
    rule: str = ""
    """One that it has more."""
    redis: Callable[[Pipeline], object] = lambda pipeline: None
    """Something done to Redis after all else."""
    begins: bool = False
    """Only work shows it: by then the worker has made tables."""


def lacks(words: str, table: str) -> Step:
    return Step(
        (f"role cdc_billing lacks {words} on {table}",),
        f"GRANT {words} ON TABLE",
        applied=True,
        prepare=f"{WRITES}REVOKE {words} ON {table} FROM cdc_billing;",
    )


def misfit(definition: str, says: str, remedy: str) -> Step:
    return Step(
        (f"replica.customers does not fit event customer.v1: {says}",),
        remedy,
        prepare=f"{OWN_SCHEMA}CREATE TABLE replica.customers ({definition});{OWN_TABLE}",
    )


def forbidden(command: str, rule: str = "", **more: Any) -> Step:
    return Step(
        ("Redis refuses: ", "no permissions to run", f"'{command}"),
        f"ACL SETUSER cdc_billing {rule or '+' + command}",
        without=f"+{command.partition('|')[0]}",
        **more,
    )


CODE_2: Mapping[str, Any] = {"code": 2, "check": 2}
STEPS = {
    # --- the file ----------------------------------------------------------------------------------------------------
    "unknown key": Step(
        ('sinks.billing.adapt: unknown key (did you mean "adopt"?)',),
        "Correct the lines",
        configuration=("type =", "adapt = true\ntype ="),
        **CODE_2,
    ),
    "wrong type": Step(
        ("sinks.billing.adopt: expected true or false, got text",),
        "Correct the lines",
        configuration=("type =", 'adopt = "yes"\ntype ='),
        **CODE_2,
    ),
    "missing variable": Step(
        ("sinks.billing.dsn: environment variable TARGET_DSN is not set",),
        "or the environment",
        unset="TARGET_DSN",
        **CODE_2,
    ),
    "one table twice": Step(
        ("sinks.billing.tables.customer: the same table as sinks.billing.tables.order",),
        "Correct the lines",
        configuration=("customer =", 'order = "Replica.customers"\ncustomer ='),
        **CODE_2,
    ),
    "reserved name": Step(
        ("sinks.billing.tables.meta: ", "not meta"),
        "Correct the lines",
        configuration=("customer =", "meta ="),
        **CODE_2,
    ),
    "no TOML": Step(
        ("cdc.toml: not TOML: ", "at line "), "Correct the lines", configuration=("type =", "type = ="), **CODE_2
    ),
    # --- the database's address --------------------------------------------------------------------------------------
    "no DSN": Step(
        ("sinks.billing.dsn: neither a libpq URI nor a keyword string",),
        "Correct the lines",
        dsn_text=f"nonsense {PASSWORD}",
        **CODE_2,
    ),
    "unknown DSN option": Step(
        ("sinks.billing.dsn: ", "an option unknown to libpq"), "Correct the lines", dsn_text="nonsens=1", **CODE_2
    ),
    "DSN option's value": Step(
        ("sinks.billing.dsn: sslmode has a value that libpq does not know",),
        "Correct the lines",
        dsn={"sslmode": PASSWORD},
        **CODE_2,
    ),
    "slash in a password": Step(
        ("sinks.billing: user or password holds a character that ends it early",),
        "/ is %2F",
        dsn_text=f"postgresql://cdc_billing:{PASSWORD}/x@{{host}}/postgres",
        **CODE_2,
    ),
    "at sign in a password": Step(
        ("sinks.billing: user or password holds a character that ends it early",),
        "@ is %40",
        dsn_text=f"postgresql://cdc_billing:x@{PASSWORD}@{{host}}/postgres",
        **CODE_2,
    ),
    # --- the database ------------------------------------------------------------------------------------------------
    "unreachable": Step(("port 1 failed",), "Start the replica's database", code=4, dsn={"port": 1}),
    "wrong password": Step(
        ('password authentication failed for user "cdc_billing"',), "Correct the password", dsn={"password": "another"}
    ),
    "no password": Step(("no password supplied",), "Put the role's password", dsn={"password": ""}),
    "unknown database": Step(('database "bling" does not exist',), "Create it", dsn={"dbname": "bling"}),
    "unknown role": Step(('role "cdc_biling" does not exist',), "Create it", dsn={"user": "cdc_biling"}),
    "not let in": Step(
        ("pg_hba.conf rejects",), "Let the server's pg_hba.conf", access="host all cdc_billing 127.0.0.1/32 reject"
    ),
    "may not log in": Step(
        ("not permitted to log in",), "ALTER ROLE ... LOGIN", prepare=f"{MAKES}ALTER ROLE cdc_billing NOLOGIN;"
    ),
    "may not connect": Step(
        ("permission denied for database",),
        "GRANT CONNECT ON DATABASE",
        prepare="REVOKE CONNECT ON DATABASE {database} FROM PUBLIC;",
    ),
    "TLS is refused": Step(
        ("server does not support SSL",), "allow_plaintext = true in [sinks.NAME]", dsn={"sslmode": "verify-full"}
    ),
    # --- grants ------------------------------------------------------------------------------------------------------
    "may not make schema cdc": Step(
        ("schema cdc cannot be made: permission denied for database",),
        "cdc-sink tables billing --apply",
        prepare="",
        check_remedy="GRANT CREATE ON DATABASE",
    ),
    "schema cdc of another": Step(
        ("role cdc_billing lacks USAGE, CREATE on schema cdc",),
        "GRANT USAGE, CREATE ON SCHEMA",
        prepare=f"{MAKES}CREATE SCHEMA cdc;",
    ),
    "may not use schema cdc": Step(
        ("role cdc_billing lacks USAGE on schema cdc",),
        "ON SCHEMA",
        applied=True,
        prepare=f"{WRITES}REVOKE USAGE ON SCHEMA cdc FROM cdc_billing;",
    ),
    "schema of another": Step(
        ("role cdc_billing lacks USAGE, CREATE on schema replica",),
        'GRANT USAGE, CREATE ON SCHEMA "replica"',
        prepare=f"{MAKES}CREATE SCHEMA replica;",
    ),
    "may not use the schema": Step(
        ("role cdc_billing lacks USAGE on schema replica",),
        'GRANT USAGE ON SCHEMA "replica" TO "cdc_billing";',
        applied=True,
        prepare=f"{WRITES}REVOKE USAGE ON SCHEMA replica FROM cdc_billing;",
    ),
    **{f"may not {word}": lacks(word, "replica.customers") for word in ("SELECT", "INSERT", "UPDATE", "DELETE")},
    **{
        f"may not INSERT into {table}": lacks("INSERT", f"cdc.{table}")
        for table in ("checkpoint", "replica", "dead_event")
    },
    "row-level security": Step(
        ("row-level security hides rows of replica.customers from role cdc_billing",),
        'ALTER ROLE "cdc_billing" BYPASSRLS;',
        applied=True,
        prepare=f"{WRITES}ALTER TABLE replica.customers ENABLE ROW LEVEL SECURITY;",
    ),
    "may not add a column": Step(
        ("replica.customers: must be owner of table customers",),
        'ALTER TABLE "replica"."customers" ADD COLUMN "email" text',
        applied=True,
        prepare=WRITES,
        redis=lambda pipeline: pipeline.describe(WITH_EMAIL.succeed(CUSTOMER)),
    ),
    # --- replica tables ----------------------------------------------------------------------------------------------
    "stored column": misfit(
        "id integer PRIMARY KEY, name text GENERATED ALWAYS AS ('x') STORED",
        "column name is generated",
        'ALTER TABLE "replica"."customers" ALTER COLUMN "name" DROP EXPRESSION;',
    ),
    "wider key": misfit(
        "id integer, name text, CONSTRAINT both_columns PRIMARY KEY (id, name)",
        "its primary key is (id, name), the event's key is (id)",
        'ALTER TABLE "replica"."customers" DROP CONSTRAINT "both_columns", ADD PRIMARY KEY ("id");',
    ),
    "two misfits": misfit(
        "id bigint, name text",
        "column id is bigint, its event has integer; it has no primary key, the event's key is (id)",
        'ADD PRIMARY KEY ("id");',
    ),
    "view": Step(
        ("replica.customers is not a table",),
        "map the event to another name",
        prepare=f"{OWN_SCHEMA}CREATE VIEW replica.customers AS SELECT 1 AS id, 'x' AS name;"
        "ALTER VIEW replica.customers OWNER TO cdc_billing;",
    ),
    "table of another": Step(
        ("replica.customers has rows and was not made by a sink",),
        "adopt = true",
        prepare=f"{OWN_SCHEMA}CREATE TABLE replica.customers (id integer PRIMARY KEY, name text);{OWN_TABLE}"
        "INSERT INTO replica.customers VALUES (7, 'theirs');",
    ),
    # --- Redis -------------------------------------------------------------------------------------------------------
    "no Redis URL": Step(
        ("transport.url: expected a redis://",), "Correct the lines", url=f"http://:{PASSWORD}@{{host}}", **CODE_2
    ),
    "Redis port": Step(
        ("transport.url: the port is not a number from 1 to 65535 (", "%2F for /"),
        "Correct the lines",
        url=f"redis://cdc_billing:{PASSWORD}/x@{{host}}/0",
        **CODE_2,
    ),
    "Redis option": Step(
        ("transport.url: unknown option nonsense",),
        "Correct the lines",
        url="redis://{user}@{host}/0?nonsense=1",
        **CODE_2,
    ),
    "Redis option's value": Step(
        ("transport.url: an option has a value that it cannot have",),
        "Correct the lines",
        url=f"redis://{{user}}@{{host}}/0?health_check_interval={PASSWORD}",
        **CODE_2,
    ),
    "unreachable Redis": Step(("Redis does not answer",), "Start Redis", code=4, url="redis://{user}@127.0.0.1:1/0"),
    "wrong Redis password": Step(
        ("Redis refuses", "invalid username-password pair"), "ACL", url="redis://cdc_billing:another@{host}/0"
    ),
    "TLS to a plain Redis": Step(
        ("Redis speaks plain text, and transport.url asks for TLS",),
        "write redis://",
        url="rediss://{user}@{host}/0",
    ),
    "no certificate file": Step(
        ("a certificate file that transport.url names: No such file or directory",),
        "correct transport.url",
        code=4,
        url="rediss://{user}@{host}/0?ssl_ca_certs=/no/such/file",
    ),
    "other keys": Step(("ermissions to access ",), "'~shop:*'", without="~shop:*", rule="~else:*"),
    "may not ping": forbidden("ping"),
    "may not exists": forbidden("exists"),
    "may not hmget": forbidden("hmget"),
    "may not xinfo": forbidden("xinfo|stream"),
    "may not xrange": forbidden("xrange", begins=True),
    "may not xread": forbidden("xread", begins=True),
    "may not xgroup": forbidden("xgroup|create"),
    "may not set": forbidden("set", "'(+set ~shop:status:sink:billing)'", begins=True),
    "may not xadd": forbidden(
        "xadd",
        "'(+xadd ~shop:requests)'",
        begins=True,
        redis=lambda pipeline: pipeline.redis.xtrim(pipeline.keys.stream("customer", 1), maxlen=1, approximate=False),
    ),
    "foreign meta": Step(
        ("shop:meta holds something that statecast did not put there",),
        "DEL shop:meta",
        redis=lambda pipeline: pipeline.redis.set(pipeline.keys.meta, "x"),
    ),
    "meta of no reader": Step(
        ("shop:meta holds something that no reader wrote",),
        "only the reader of its pipeline may",
        redis=lambda pipeline: pipeline.redis.hset(pipeline.keys.meta, "epoch", "x"),
    ),
    "foreign schema": Step(
        ("shop:schema holds something that statecast did not put there",),
        "DEL shop:schema",
        redis=lambda pipeline: pipeline.redis.set(pipeline.keys.schema, "x"),
    ),
    "foreign document": Step(
        ("a schema document cannot be read",),
        "only the reader of its pipeline may",
        redis=lambda pipeline: pipeline.redis.hset(pipeline.keys.schema, CUSTOMER.label, "x"),
    ),
    "no stream": Step(
        ("shop:customer holds something that statecast did not put there",),
        "DEL shop:customer",
        redis=lambda pipeline: pipeline.redis.set(pipeline.keys.stream("customer", 1), "x"),
    ),
    "foreign stream": Step(
        ("has no field 'op'",),
        "only the reader of its pipeline may",
        check=0,
        begins=True,
        redis=lambda pipeline: pipeline.redis.xadd(
            pipeline.keys.stream("customer", 1), {"a": "b"}, id="1073741824-1000000"
        ),
    ),
    "foreign id": Step(
        ("has an id that is not of wire format 1",),
        "only the reader of its pipeline may",
        check=0,
        begins=True,
        redis=lambda pipeline: pipeline.redis.xadd(pipeline.keys.stream("customer", 1), {"a": "b"}),
    ),
}


class Servers(NamedTuple):
    """One of each for all steps."""

    postgres: PostgresServer
    transport: ValkeyServer


@pytest.fixture(scope="module")
def both() -> Iterator[Servers]:
    with PostgresServer.start() as postgres, ValkeyServer.start() as transport:
        with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE ROLE cdc_billing PASSWORD {}").format(PASSWORD))
        yield Servers(postgres, transport)


@contextmanager
def admitted(postgres: PostgresServer, access: str) -> Iterator[None]:
    """pg_hba.conf asks the sink's role for its password, behind this line."""
    rules = postgres.data_directory / "pg_hba.conf"
    before = rules.read_text()
    asked = "host all cdc_billing 127.0.0.1/32 scram-sha-256\n"
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        rules.write_text(f"{access}\n{asked}{before}")
        connection.execute("SELECT pg_reload_conf()")
        read = "SELECT string_agg(auth_method, ' ') LIKE %s FROM pg_hba_file_rules"
        assert connection.execute(read, ["%scram-sha-256%"]).fetchone() == (True,)
        try:
            yield
        finally:
            rules.write_text(before)
            connection.execute("SELECT pg_reload_conf()")


@dataclass
class Scene:
    """A pipeline in which something is wrong, and the sink's commands."""

    pipeline: Pipeline
    commands: Commands

    def rows(self) -> dict[str, list[str]]:
        """Every row of the replica's database that a sink may write, and every table's columns."""
        tables = self.pipeline.rows(
            "SELECT c.oid::regclass::text, array_agg(quote_ident(a.attname) ORDER BY a.attnum)"
            " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
            " WHERE c.relnamespace = ANY(ARRAY[to_regnamespace('cdc'), to_regnamespace('replica')]::oid[])"
            " AND c.relkind IN ('r', 'p') GROUP BY c.oid"
        )
        found = {}
        for table, columns in tables:
            kept = ", ".join(name for name in columns if name not in LEASE_COLUMNS)
            rows = [str(row) for row in self.pipeline.rows(f"SELECT {kept} FROM {table} ORDER BY 1")]
            if rows or not table.startswith("cdc."):
                found[table] = [kept, *rows]
        return found

    def keys(self) -> dict[bytes, bytes]:
        """Everything in Redis but what the sink tells of itself."""
        status = self.pipeline.keys.sink_status("billing").encode()
        names = cast(list[bytes], self.pipeline.redis.keys())
        return {name: cast(bytes, self.pipeline.redis.dump(name)) for name in names if name != status}


@contextmanager
def wrong(step: Step, both: Servers, directory: Path) -> Iterator[Scene]:
    """A pipeline in which this is wrong."""
    with ExitStack() as stack:
        stack.enter_context(admitted(both.postgres, step.access))
        superuser = stack.enter_context(servers.database(cast(Any, both.postgres), "target"))
        servers.flush(both.transport.url())
        pipeline = stack.enter_context(Pipeline(both.transport.url(), superuser, NAME))
        database = str(pipeline.target.info.dbname)
        pipeline.execute("ALTER ROLE cdc_billing LOGIN NOBYPASSRLS")
        pipeline.transaction(customer(1, "Ada"), customer(2, "Bo"), delete({"id": 2}))
        if step.applied:
            assert pipeline.apply() == 0
            pipeline.transaction(customer(3, "Cy"), delete({"id": 1}))
        for statement in filter(None, step.prepare.format(database=f'"{database}"').split(";")):
            pipeline.execute(statement)
        step.redis(pipeline)
        rules = redis_users(PASSWORD)["cdc_billing"]
        kept = [rule for rule in rules if not step.without or rule.strip("(").split()[0] != step.without]
        assert len(kept) == len(rules) - bool(step.without), "the README grants it"
        pipeline.redis.execute_command("ACL", "SETUSER", "cdc_billing", "reset", *kept, *filter(None, [step.rule]))
        user, host = f"cdc_billing:{PASSWORD}", f"127.0.0.1:{both.transport.port}"
        dsn = {"user": "cdc_billing", "password": PASSWORD, **step.dsn}
        environment = {
            "TARGET_DSN": step.dsn_text.format(host=f"127.0.0.1:{both.postgres.port}")
            or make_conninfo(superuser, **cast(Any, dsn)),
            "REDIS_URL": (step.url or "redis://{user}@{host}/0").format(user=user, host=host),
        }
        environment.pop(step.unset, None)
        commands = Commands(NAME, superuser, both.transport.url(), directory, CONFIGURATION, environment)
        stack.callback(commands.close)
        text = commands.path.read_text()
        before, after = step.configuration
        assert before in text
        commands.path.write_text(text.replace(before, after, 1))
        yield Scene(pipeline, commands)


@pytest.mark.parametrize("name", STEPS)
def test_a_wrong_step_of_a_sink(name: str, both: Servers, tmp_path: Path) -> None:
    step = STEPS[name]
    with wrong(step, both, tmp_path) as scene:
        rows, keys = scene.rows(), scene.keys()
        checked = scene.commands.run("sinks.cli", "check", "billing", "--log-level", "debug", expect=step.check)
        assert (scene.rows(), scene.keys()) == (rows, keys), "check changes nothing"
        output = scene.commands.run("sinks.cli", "run", "billing", "--connect-timeout", "1", expect=step.code)
        if not step.begins:
            assert (scene.rows(), scene.keys()) == (rows, keys)
        status = str(scene.pipeline.redis.get(scene.pipeline.keys.sink_status("billing")))
    message, _, remedy = output.partition("error: ")[2].partition("\n  remedy: ")
    assert output.count("error: ") == 1, output
    assert all(part in message for part in step.says), output
    wanted = step.remedy
    if "User cdc_billing" not in message:  # Redis 7.0 does not say whom it refuses
        wanted = wanted.replace("ACL SETUSER cdc_billing", "ACL SETUSER USER")
    assert wanted in remedy, output
    if step.check:
        assert (step.check_remedy or wanted) in checked or step.remedy in checked, checked
    assert "Traceback" not in output + checked
    assert PASSWORD not in output + checked + status


@pytest.mark.parametrize(
    ("what", "reason"),
    [("no file", "No such file or directory"), ("a folder", "Is a directory"), ("not text", "not TOML")],
)
@pytest.mark.parametrize("command", ["run billing", "check billing", "tables billing", "dead billing list"])
def test_a_file_that_cannot_be_read(what: str, reason: str, command: str, tmp_path: Path) -> None:
    commands = Commands(NAME, "", "redis://127.0.0.1:1", tmp_path, CONFIGURATION)
    commands.path.unlink()
    if what == "a folder":
        commands.path.mkdir()
    elif what == "not text":
        commands.path.write_bytes(b"\xff")
    output = commands.run("sinks.cli", *command.split(), expect=2)
    assert output.startswith(f"error: {commands.path}: {reason}")


def test_a_role_whose_transactions_are_read_only_by_default_writes_all_the_same(both: Servers, tmp_path: Path) -> None:
    prepare = f"{MAKES}ALTER DATABASE {{database}} SET default_transaction_read_only = on;"
    with wrong(Step((), "", prepare=prepare), both, tmp_path) as scene:
        scene.commands.run("sinks.cli", "run", "billing", "--once")
        assert scene.pipeline.customers() == {1: "Ada"}


def test_a_partitioned_replica_is_one(both: Servers, tmp_path: Path) -> None:
    table = "CREATE TABLE replica.customers (id integer PRIMARY KEY, name text) PARTITION BY HASH (id);"
    parts = "CREATE TABLE replica.p PARTITION OF replica.customers FOR VALUES WITH (MODULUS 1, REMAINDER 0);"
    with wrong(Step((), "", prepare=OWN_SCHEMA + table + parts + OWN_TABLE), both, tmp_path) as scene:
        scene.commands.run("sinks.cli", "run", "billing", "--once")
        assert scene.pipeline.customers() == {1: "Ada"}


def test_a_standby_is_waited_for_to_become_a_primary(both: Servers, tmp_path: Path) -> None:
    with PostgresServer.start() as standby, wrong(Step((), ""), both, tmp_path) as scene:
        standby.stop()
        (standby.data_directory / "standby.signal").touch()
        standby.start_again()
        scene.commands.environment["TARGET_DSN"] = standby.dsn()
        output = scene.commands.run("sinks.cli", "run", "billing", "--once", "--connect-timeout", "1", expect=4)
        assert "error: the database is a standby, which takes no writes" in output
        assert "target_session_attrs=primary" in output
        checked = scene.commands.run("sinks.cli", "check", "billing", expect=1)
        assert "error    database: the database is a standby" in checked
        worker = scene.commands.sink("billing")
        wait_until("the standby to be noticed", lambda: "takes no writes" in worker.output)
        with psycopg.connect(standby.dsn(), autocommit=True) as connection:
            assert connection.execute("SELECT pg_promote()").fetchone() == (True,)
            read = "SELECT to_regclass('replica.customers') IS NOT NULL"
            wait_until("the replica", lambda: connection.execute(read).fetchone() == (True,))
        assert worker.terminate() == 0


def test_a_redis_that_may_remove_streams_or_is_too_old_is_told(
    both: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with wrong(Step((), ""), both, tmp_path) as scene:
        scene.pipeline.redis.config_set("maxmemory-policy", "allkeys-lru")
        checked = scene.commands.run("sinks.cli", "check", "billing")
        scene.pipeline.redis.config_set("maxmemory-policy", "noeviction")
        assert "warning  maxmemory-policy: allkeys-lru: Redis may remove whole streams" in checked
        assert "CONFIG SET maxmemory-policy noeviction" in checked
        monkeypatch.setattr(Control, "server", lambda control: ("Redis", "6.2.14", "noeviction"))
        first, *_ = check(scene.pipeline.config())
    assert (first.verdict, first.what) == ("error", "Redis 6.2.14 is too old")
    assert first.remedy == "Redis 7.0 or Valkey 7.2 is needed."


def test_parked_events_of_a_sink_that_never_ran(both: Servers, tmp_path: Path) -> None:
    with wrong(Step((), ""), both, tmp_path) as scene:
        assert scene.commands.run("sinks.cli", "dead", "billing", "list") == "nothing is parked\n"
        for command in ("show", "retry"):
            output = scene.commands.run("sinks.cli", "dead", "billing", command, "7", expect=3)
            assert "parked" in output.partition("\n  remedy: ")[0]
            assert "cdc-sink dead billing list" in output
        assert scene.commands.run("sinks.cli", "dead", "billing", "drop", "7", "--yes", expect=1) == "forgotten: 0\n"
        assert scene.rows() == {}


def test_a_worker_shows_its_password_to_nobody(both: Servers, tmp_path: Path) -> None:
    with wrong(Step((), ""), both, tmp_path) as scene:
        scene.commands.forked = False  # so that its arguments are its own
        worker = scene.commands.sink("billing", "--log-level", "debug", "--log-format", "json")
        wait_until("its status", lambda: scene.pipeline.status().get("state") == "streaming")
        process = psutil.Process(worker.pid)
        shown = [process.cmdline(), process.name(), scene.pipeline.status(), scene.pipeline.redis.client_list()]
        shown += scene.pipeline.rows("SELECT application_name, query FROM pg_stat_activity")
        assert "cdc-sink shop/billing" in str(shown)
        assert PASSWORD not in str(shown)
        assert worker.terminate() == 0
        assert PASSWORD not in worker.output
