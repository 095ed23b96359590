"""`cdc init` on databases that nobody prepared for it: what it writes is what `cdc check` and `cdc run` accept."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc.config import load_reader_config
from cdc.errors import SourceError
from cdc.init.survey import Survey
from cdc.source.publication import drop_publication
from tests.fork_server import run_to_end
from tests.processes import wait_until
from transforms.address import Address
from transforms.keys import Keys
from transforms.names import TableName
from transforms.secret import Secret

PLANTED = "hunter2-planted"
ODD_SCHEMA = (Path(__file__).parent / "odd_schema.sql").read_text(encoding="utf-8")
PARTITIONED = ("measurements", "keyless_parts", "unique_parts", "leafless")
PGBENCH = """
CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84)) WITH (fillfactor = 100);
CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88));
CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84));
INSERT INTO pgbench_accounts SELECT i, 1, 0, '' FROM generate_series(1, 100) AS i;
INSERT INTO pgbench_branches VALUES (1, 0, '');
INSERT INTO pgbench_history SELECT 1, 1, i, i, now(), '' FROM generate_series(1, 10) AS i;
"""


@dataclass(frozen=True)
class Ended:
    """What a command printed, and how it ended."""

    code: int
    output: str
    log: str


@dataclass
class Newcomer:
    """Somebody with a database, an empty folder and the two commands."""

    source_dsn: str
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.folder / "cdc.toml"

    @property
    def pipeline(self) -> str:
        name: str = tomllib.loads(self.file.read_text(encoding="utf-8"))["pipeline"]["name"]
        return name

    def cdc(self, *arguments: str, expect: int = 0, dsn: str | None = None) -> Ended:
        """Run `cdc` in the folder, to its end."""
        return self.run("cdc.cli", *arguments, expect=expect, dsn=dsn)

    def run(self, module: str, *arguments: str, expect: int = 0, dsn: str | None = None) -> Ended:
        """Run a command in the folder, to its end."""
        environment = os.environ | self.environment | {"SOURCE_DSN": dsn or self.source_dsn}
        code, output, log = run_to_end(module, arguments, environment, self.folder, seconds=120)
        assert code == expect, f"exit {code}:\n{output}\n{log}"
        return Ended(code, output, log)

    def execute(self, statements: str) -> list[tuple[Any, ...]]:
        """Run SQL as the superuser; the rows of the last statement."""
        with psycopg.connect(self.source_dsn, autocommit=True) as connection:
            cursor = connection.execute(statements.encode())
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []


@pytest.fixture
def newcomer(source_dsn: str, redis_url: str, tmp_path: Path) -> Iterator[Newcomer]:
    made = Newcomer(source_dsn, tmp_path, {"REDIS_URL": redis_url})
    yield made
    role = f"cdc_{conninfo_to_dict(source_dsn)['dbname']}_reader"
    if made.execute(f"SELECT FROM pg_roles WHERE rolname = '{role}'"):
        made.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def sql_block(text: str) -> str:
    """The SQL between BEGIN and COMMIT."""
    found = re.search(r"^BEGIN;\n.*?^COMMIT;$", text, re.DOTALL | re.MULTILINE)
    assert found is not None, text
    return found[0]


def uncommented(text: str) -> str:
    """The SQL in comments, as somebody would take it out of the file."""
    return "\n".join(line[6:] for line in text.splitlines() if line.startswith("#     "))


def mending(file: Path) -> str:
    """The SQL of the file's part about what is not mapped."""
    text = file.read_text(encoding="utf-8")
    return uncommented(text[text.index("# Not mapped") : text.index("# A consuming service")])


def published(newcomer: Newcomer) -> dict[str, int]:
    """Event -> how many entries of rows its stream has."""
    keys = Keys(newcomer.pipeline)
    config = load_reader_config(newcomer.file, {"SOURCE_DSN": "x", **newcomer.environment})
    with redis.Redis.from_url(newcomer.environment["REDIS_URL"]) as client:
        return {
            event.name: sum(fields[b"op"] != b"mark" for _, fields in client.xrange(keys.stream(event.stream, 1)))
            for event in config.events
        }


def rows(newcomer: Newcomer) -> dict[str, int]:
    """Event -> how many rows its table has."""
    config = load_reader_config(newcomer.file, {"SOURCE_DSN": "x", **newcomer.environment})
    with psycopg.connect(newcomer.source_dsn) as connection:
        found = {}
        for event in config.events:
            name = sql.Identifier(event.table.schema, event.table.name)
            only = sql.SQL("" if event.table.name in PARTITIONED else "ONLY ")
            row = connection.execute(sql.SQL("SELECT count(*) FROM {}{}").format(only, name)).fetchone()
            assert row is not None
            found[event.name] = row[0]
        return found


# What is written is accepted as it is


def test_a_pgbench_database_goes_from_nothing_to_published(newcomer: Newcomer) -> None:
    newcomer.execute(PGBENCH)
    printed = newcomer.cdc("init")
    assert "Wrote cdc.toml: 3 events, 1 table that cannot be mapped yet." in printed.output
    assert "public.pgbench_history: has no replica identity" in printed.output
    assert "error " not in newcomer.cdc("check").output
    newcomer.cdc("run", "--once")
    assert published(newcomer) == {"pgbench_account": 100, "pgbench_branch": 1, "pgbench_teller": 0}
    newcomer.execute("UPDATE pgbench_history SET delta = 0")  # its owner notices nothing


def test_the_sql_for_a_table_without_a_key_lets_it_be_mapped(newcomer: Newcomer) -> None:
    newcomer.execute(PGBENCH)
    newcomer.cdc("init")
    newcomer.execute(mending(newcomer.file))
    newcomer.file.unlink()
    newcomer.cdc("init", "--table", "pgbench_history")
    newcomer.cdc("run", "--once")
    assert published(newcomer) == {"pgbench_history": 10}


def test_odd_names_types_and_kinds_are_all_published(newcomer: Newcomer) -> None:
    newcomer.execute(ODD_SCHEMA)
    newcomer.cdc("init")
    checked = newcomer.cdc("check").output
    assert [line for line in checked.splitlines() if line.startswith("error")] == []
    newcomer.cdc("run", "--once")
    assert published(newcomer) == rows(newcomer)
    assert len(published(newcomer)) == 34


def test_all_sql_that_mends_does(newcomer: Newcomer) -> None:
    newcomer.execute(ODD_SCHEMA)
    before = newcomer.cdc("init").output
    assert "13 tables that cannot be mapped yet" in before
    newcomer.execute(mending(newcomer.file))
    newcomer.file.unlink()
    assert "cannot be mapped" not in newcomer.cdc("init").output
    newcomer.cdc("run", "--once")
    assert published(newcomer) == rows(newcomer)


def test_each_kind_of_caution_is_written_at_its_event(newcomer: Newcomer) -> None:
    newcomer.execute(ODD_SCHEMA)
    newcomer.cdc("init")
    text = newcomer.file.read_text(encoding="utf-8")

    def about(event: str) -> str:
        start = text.rindex("\n\n", 0, text.index(f"[events.{event}]"))
        return " ".join(
            line.removeprefix("# ").strip() for line in text[start : text.index(f"[events.{event}]")].split("\n")
        )

    assert "left out since they look personal: name, email;" in about("user")
    assert "looks personal and is published all the same, being the key: email" in about("keyed_by_email")
    assert "of large values (of body)" in about("large_value")
    assert "partitioned" in about("measurement")
    assert "twice (stored: not" in about("calculated")
    assert "st (types.state), sts (types.state[]), am (public.money_amount)" in about("every_type")
    assert "rows of public.dogs are not in this event" in about("animal")
    assert "inherits from public.animals" in about("dog")
    assert "row security is on" in about("guarded")
    assert "- unlogged: their changes are not in the log: public.cache" in text


def test_patterns_choose_tables(newcomer: Newcomer) -> None:
    newcomer.execute(ODD_SCHEMA)
    newcomer.cdc("init", "--table", "sales.*", "--table", "anim*")
    events = load_reader_config(newcomer.file, {"SOURCE_DSN": "x", **newcomer.environment}).events
    assert [(event.name, event.table) for event in events] == [
        ("animal", TableName("public", "animals")),
        ("order", TableName("sales", "orders")),
    ]


# The SQL


def test_the_role_of_the_sql_can_do_all_that_check_and_run_do(newcomer: Newcomer) -> None:
    newcomer.execute(ODD_SCHEMA)
    block = sql_block(newcomer.cdc("init").output)
    assert block == sql_block(uncommented(newcomer.file.read_text(encoding="utf-8")))
    newcomer.execute(block)
    role = f"cdc_{newcomer.pipeline}_reader"
    newcomer.execute(f"ALTER ROLE {role} PASSWORD '{PLANTED}'")
    dsn = make_conninfo(newcomer.source_dsn, user=role, password=PLANTED)
    checked = newcomer.cdc("check", dsn=dsn).output
    assert [line for line in checked.splitlines() if line.startswith("error") or "does not exist" in line] == [
        f"warning  slot cdc_{newcomer.pipeline}: does not exist yet; `cdc run` makes it"
    ]
    newcomer.cdc("run", "--once", dsn=dsn)
    newcomer.execute(
        "UPDATE orders SET note = 'changed'; UPDATE keyed_by_enum SET at = '2026-02-02'; UPDATE dogs SET id = 2"
    )
    newcomer.cdc("run", "--once", dsn=dsn)
    newcomer.cdc("snapshot", "--all", dsn=dsn)
    newcomer.cdc("run", "--once", dsn=dsn)
    assert published(newcomer)["public_order"] == 2 + 2 + 2
    with psycopg.connect(dsn) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute('SELECT email FROM "user"')


def test_run_again_the_sql_has_only_what_is_missing(newcomer: Newcomer) -> None:
    newcomer.execute("CREATE TABLE a (id int PRIMARY KEY)")
    newcomer.execute(sql_block(newcomer.cdc("init").output))
    newcomer.execute("CREATE TABLE b (id int PRIMARY KEY)")
    block = sql_block(newcomer.cdc("init", "-o", "again.toml").output)
    assert f"ALTER ROLE cdc_{newcomer.pipeline}_reader LOGIN REPLICATION;" in block
    assert f"ALTER PUBLICATION cdc_{newcomer.pipeline} ADD TABLE ONLY public.b;" in block
    newcomer.execute(block)
    newcomer.cdc("run", "--once", "-c", "again.toml")


def test_the_sink_in_the_comments_fills_a_replica(newcomer: Newcomer, target_dsn: str) -> None:
    newcomer.execute('CREATE TABLE "order" (id int PRIMARY KEY, v text); INSERT INTO "order" VALUES (1, \'x\')')
    newcomer.execute("CREATE TABLE meta (id int PRIMARY KEY); INSERT INTO meta VALUES (2)")
    newcomer.cdc("init")
    newcomer.cdc("run", "--once")
    text = newcomer.file.read_text(encoding="utf-8")
    sink = uncommented(text[text.index("# A consuming service") : text.index("# The role that reads")])
    newcomer.file.write_text(text + sink, encoding="utf-8")
    newcomer.environment["BILLING_DSN"] = target_dsn
    newcomer.run("sinks.cli", "tables", "billing", "--apply")
    newcomer.run("sinks.cli", "run", "billing", "--once")
    with psycopg.connect(target_dsn) as connection:
        assert connection.execute('SELECT * FROM replica."order"').fetchall() == [(1, "x")]
        assert connection.execute("SELECT * FROM replica.public_meta").fetchall() == [(2,)]


# Where it is written


def test_the_next_steps_lead_to_where_the_source_is(newcomer: Newcomer) -> None:
    newcomer.execute("CREATE TABLE a (id int PRIMARY KEY)")
    told = newcomer.cdc("init").output
    source = conninfo_to_dict(newcomer.source_dsn)
    place, name = f"{source['host']}:{source['port']}", newcomer.pipeline
    assert f"export SOURCE_DSN='postgresql://cdc_{name}_reader:PASSWORD@{place}/{source['dbname']}'" in told
    assert "cdc-sink run billing" in told.partition("Next:")[2]


def test_a_file_that_is_there_is_left_alone(newcomer: Newcomer) -> None:
    newcomer.file.write_text("mine")
    ended = newcomer.cdc("init", expect=2)
    assert ended.log == (
        "error: cdc.toml is there already, and is not overwritten\n"
        "  remedy: Name another file with -o and take over from it what is new here, or write to standard output with"
        " `-o -`.\n"
    )
    assert newcomer.file.read_text() == "mine"


def test_standard_output_gets_the_file_and_nothing_else(newcomer: Newcomer) -> None:
    newcomer.execute(PGBENCH)
    ended = newcomer.cdc("init", "-o", "-")
    assert set(tomllib.loads(ended.output)) == {"pipeline", "source", "transport", "events"}
    assert "COMMIT;" in ended.log
    assert list(newcomer.folder.iterdir()) == []


def test_the_configuration_that_is_named_for_all_commands_is_where_it_goes(newcomer: Newcomer) -> None:
    newcomer.execute(PGBENCH)
    assert "4. cdc check -c 'my shop.toml'" in newcomer.cdc("-c", "my shop.toml", "init").output
    newcomer.cdc("check", "-c", "my shop.toml")


# What goes wrong


def test_a_pattern_that_matches_nothing_is_named(newcomer: Newcomer) -> None:
    newcomer.execute(PGBENCH)
    ended = newcomer.cdc("init", "--table", "ordres", expect=2)
    assert ended.log.startswith("error: no table matches 'ordres'")
    assert "remedy: Correct --table" in ended.log


def test_without_any_table_that_can_be_mapped_nothing_is_written(newcomer: Newcomer) -> None:
    newcomer.execute("CREATE TABLE history (what text)")
    ended = newcomer.cdc("init", expect=3)
    assert "no table can be mapped as it is\n- public.history: has no replica identity" in ended.log
    assert "ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;" in ended.log
    assert list(newcomer.folder.iterdir()) == []


def test_an_empty_database_is_told_so(newcomer: Newcomer) -> None:
    newcomer.execute("CREATE UNLOGGED TABLE cache (id int PRIMARY KEY)")
    ended = newcomer.cdc("init", expect=3)
    assert "no table is of a kind that could be mapped\n- 1 unlogged" in ended.log
    assert "remedy: Name the database that holds the tables in --source" in ended.log


def test_any_role_that_may_connect_will_do(newcomer: Newcomer) -> None:
    newcomer.execute(ODD_SCHEMA)
    superusers = newcomer.cdc("init", "-o", "-").output
    role = f"nobody_{os.getpid()}"
    newcomer.execute(f"CREATE ROLE {role} LOGIN")
    try:
        assert newcomer.cdc("init", "-o", "-", dsn=make_conninfo(newcomer.source_dsn, user=role)).output == superusers
    finally:
        newcomer.execute(f"DROP ROLE {role}")


def test_the_survey_cannot_write(source_dsn: str) -> None:
    with (
        closing(Survey(Address("source", Secret(source_dsn)), "test")) as survey,
        pytest.raises(SourceError, match="read-only transaction"),
    ):
        drop_publication(survey, "cdc_shop")


def test_a_table_that_is_locked_is_not_waited_for(newcomer: Newcomer) -> None:
    newcomer.execute(PGBENCH)
    with psycopg.connect(newcomer.source_dsn) as owner:
        owner.execute("ALTER TABLE pgbench_accounts ADD COLUMN note text")
        ended = newcomer.cdc("init")
    assert "a table is locked, as by an ALTER TABLE: sizes are those of the last VACUUM" in ended.log
    text = newcomer.file.read_text(encoding="utf-8")
    assert {table["table"] for table in tomllib.loads(text)["events"].values()} == {
        "public.pgbench_accounts",
        "public.pgbench_tellers",
        "public.pgbench_branches",
    }
    assert "about 100 rows" in text


@pytest.mark.parametrize(
    ("change", "code", "remedy"),
    [
        ({"port": "1"}, 4, "correct host and port in --source"),
        ({"dbname": "no_such_database"}, 3, "Correct user, password and database in --source"),
        ({"user": "no_such_role"}, 3, "Correct user, password and database in --source"),
    ],
)
def test_a_source_that_cannot_be_reached_is_told_without_the_password(
    newcomer: Newcomer, change: dict[str, Any], code: int, remedy: str
) -> None:
    dsn = make_conninfo(newcomer.source_dsn, password=PLANTED, **change)
    ended = newcomer.cdc("init", "--source", dsn, expect=code)
    assert ended.log.count("error: ") == 1
    assert remedy in ended.log
    assert_no_password(newcomer, ended)


def test_beyond_this_machine_the_server_must_be_the_one_that_is_meant(newcomer: Newcomer) -> None:
    dsn = f"host=db.invalid sslmode=require password={PLANTED}"
    ended = newcomer.cdc("init", "--source", dsn, expect=3)
    assert ended.log.startswith("error: --source: sslmode=require does not make sure")
    assert ended.log.endswith("or add --allow-plaintext.\n")
    assert "db.invalid" in newcomer.cdc("init", "--allow-plaintext", "--source", dsn, expect=4).log


def test_what_was_allowed_for_the_survey_is_allowed_in_the_file(newcomer: Newcomer) -> None:
    newcomer.execute(PGBENCH)
    newcomer.cdc("init", "--allow-plaintext")
    assert load_reader_config(newcomer.file, newcomer.environment | {"SOURCE_DSN": "x"}).source.allow_plaintext
    newcomer.cdc("init", "-o", "strict.toml")
    assert "allow_plaintext" not in (newcomer.folder / "strict.toml").read_text()


@pytest.mark.parametrize("dsn", [f"postgresql://u:{PLANTED}@@h/db", f"postgresql://u:{PLANTED} x@h/db", f"{PLANTED} x"])
def test_what_is_no_dsn_is_not_repeated(newcomer: Newcomer, dsn: str) -> None:
    ended = newcomer.cdc("init", "--source", dsn, expect=2)
    assert "--source" in ended.log
    assert_no_password(newcomer, ended)


def test_a_wrong_password_is_told_and_not_shown(newcomer: Newcomer) -> None:
    role = f"asked_for_password_{os.getpid()}"
    newcomer.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'another'")
    ((hba,),) = newcomer.execute("SELECT pg_read_file(current_setting('hba_file'))")
    set_hba(newcomer, f"host all {role} all scram-sha-256\nlocal all {role} scram-sha-256\n{hba}")
    dsn = make_conninfo(newcomer.source_dsn, user=role, password=PLANTED)
    try:
        wait_until("the server to ask for a password", lambda: "authentication failed" in refusal(dsn))
        ended = newcomer.cdc("init", "--source", dsn, expect=3)
        assert "password authentication failed" in ended.log
        assert "remedy: Correct user, password and database in --source" in ended.log
        assert_no_password(newcomer, ended)
    finally:
        set_hba(newcomer, hba)
        newcomer.execute(f"DROP ROLE {role}")


def test_a_password_is_neither_written_nor_printed(newcomer: Newcomer) -> None:
    newcomer.execute(PGBENCH)
    dsn = make_conninfo(newcomer.source_dsn, password=PLANTED)
    ended = newcomer.cdc("init", "--source", dsn, "--log-level", "debug")
    assert newcomer.file.exists()
    assert_no_password(newcomer, ended)


def set_hba(newcomer: Newcomer, text: str) -> None:
    """Replace the server's rules of authentication, from within: it may run in a container."""
    with psycopg.connect(newcomer.source_dsn, autocommit=True) as connection:
        row = connection.execute("SELECT current_setting('hba_file')").fetchone()
        assert row is not None
        lines = sql.SQL(", ").join(
            sql.SQL("({})").format(sql.Literal(line)) for line in text.splitlines() if "\\" not in line
        )
        connection.execute(sql.SQL("COPY (VALUES {}) TO {}").format(lines, sql.Literal(row[0])))
        connection.execute("SELECT pg_reload_conf()")


def refusal(dsn: str) -> str:
    """Why the server does not let us in; empty where it does."""
    try:
        psycopg.connect(dsn).close()
    except psycopg.OperationalError as error:
        return str(error)
    return ""


def assert_no_password(newcomer: Newcomer, ended: Ended) -> None:
    written = "".join(file.read_text(encoding="utf-8") for file in newcomer.folder.iterdir())
    assert PLANTED not in ended.output + ended.log + written
