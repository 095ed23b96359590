"""Replica tables are made, extended, checked and owned."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from sinks.errors import AccessDenied, TableForeign, TableMisfit
from sinks.worker import Worker
from tests.integration.sink_harness import (
    CUSTOMER,
    Pipeline,
    column,
    command,
    customer,
    delete,
    mark,
    upsert,
    wait_until,
)
from transforms.schema import SchemaDocument


@pytest.fixture
def pipeline(redis_url: str, target_dsn: str, pipeline_name: str) -> Iterator[Pipeline]:
    with Pipeline(redis_url, target_dsn, pipeline_name) as made:
        yield made


TYPES = (
    "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
)


def test_a_replica_has_the_sources_types_where_the_target_knows_them(pipeline: Pipeline) -> None:
    pipeline.execute("CREATE SCHEMA shop; CREATE TYPE shop.status AS ENUM ('new', 'paid')")
    fields = {
        "id": "bigint",
        "sum": "numeric(10,2)",
        "status": "shop.status",
        "shape": "geo.shape",
        "shapes": "geo.shape[]",
    }
    columns = tuple(column(name, type_) for name, type_ in fields.items())
    pipeline.describe(SchemaDocument("customer", 1, "customer", ("id",), columns))
    state = {"id": 1, "sum": "1.50", "status": "paid", "shape": "box", "shapes": ["a", None]}
    pipeline.transaction(upsert({"id": 1}, state))
    assert pipeline.apply() == 0
    expected = fields | {"shape": "text", "shapes": "text[]"}
    assert dict(pipeline.rows(TYPES, "replica.customers")) == expected
    assert pipeline.rows("SELECT sum::text, status::text, shape, shapes FROM replica.customers") == [
        ("1.50", "paid", "box", ["a", None])
    ]


def test_a_table_with_rows_of_someone_else_is_left_alone(pipeline: Pipeline) -> None:
    pipeline.execute("CREATE SCHEMA replica; CREATE TABLE replica.customers (id integer PRIMARY KEY, name text)")
    pipeline.execute("INSERT INTO replica.customers VALUES (1, 'mine')")
    pipeline.transaction(customer(2, "b"))
    with pytest.raises(TableForeign) as caught:
        pipeline.apply()
    assert caught.value.exit_code == 3
    assert pipeline.customers() == {1: "mine"}
    assert pipeline.rows("SELECT (SELECT count(*) FROM cdc.replica), (SELECT count(*) FROM cdc.checkpoint)") == [(0, 0)]


def test_a_table_with_rows_is_adopted_when_that_is_said(pipeline: Pipeline) -> None:
    pipeline.execute(
        "CREATE SCHEMA replica; CREATE TABLE replica.customers (id integer PRIMARY KEY, name text, more text)"
    )
    pipeline.execute("INSERT INTO replica.customers VALUES (1, 'mine', 'kept')")
    pipeline.adopt = True
    pipeline.transaction(customer(1, "b"))
    assert pipeline.apply() == 0
    assert pipeline.rows("SELECT * FROM replica.customers") == [(1, "b", "kept")]


@pytest.mark.parametrize("other", ["sink", "pipeline", "event"])
def test_a_table_of_another_sink_pipeline_or_event_is_refused(
    pipeline: Pipeline, other: str, pipeline_name: str
) -> None:
    assert pipeline.apply() == 0
    pipeline.adopt = True
    sink = "billing"
    if other == "sink":
        sink = "shipping"
    elif other == "pipeline":
        pipeline.execute("UPDATE cdc.replica SET pipeline = 'other'")
    else:
        pipeline.describe(SchemaDocument("order", 1, "customer", ("id",), CUSTOMER.columns))
        pipeline.tables = {"order.v1": "replica.customers"}
    with pytest.raises(TableForeign, match=r"replica\.customers belongs to"):
        pipeline.apply(sink)


@pytest.mark.parametrize(
    ("definition", "complaint", "mend"),
    [
        ("id bigint PRIMARY KEY, name text", "column id is bigint, its event has integer", "TYPE integer"),
        ("id integer PRIMARY KEY, name integer", "column name is integer, its event has text", "TYPE text"),
        ("id integer, name text", "it has no primary key", 'ADD PRIMARY KEY ("id")'),
        ("id integer, name text PRIMARY KEY", "its primary key is (name)", 'ADD PRIMARY KEY ("id")'),
        ("id integer PRIMARY KEY, name text, x text NOT NULL", "column x is NOT NULL", "DROP NOT NULL"),
        ("id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text", "column id is generated", "DROP IDENTITY"),
    ],
)
def test_a_table_that_does_not_fit_is_told_with_the_sql_that_mends_it(
    pipeline: Pipeline, definition: str, complaint: str, mend: str
) -> None:
    pipeline.execute(f"CREATE SCHEMA replica; CREATE TABLE replica.customers ({definition})")
    with pytest.raises(TableMisfit) as caught:
        pipeline.apply()
    assert complaint in str(caught.value)
    assert mend in caught.value.remedy
    if not complaint.startswith("its primary key"):
        pipeline.execute(caught.value.remedy.split("\n", 1)[1])
        pipeline.transaction(customer(1, "a"))
        assert pipeline.apply() == 0
        assert pipeline.customers() == {1: "a"}


def test_a_dropped_table_is_made_again_and_filled_by_a_snapshot(pipeline: Pipeline) -> None:
    pipeline.transaction(customer(1, "a"))
    assert pipeline.apply() == 0
    pipeline.execute("DROP TABLE replica.customers")
    assert pipeline.apply() == 0
    assert pipeline.requests() == [(["customer.v1"], "billing")]


ANOTHER = "CREATE TABLE replica.new (LIKE replica.customers INCLUDING ALL); DROP TABLE replica.customers;"
ANOTHER += "ALTER TABLE replica.new RENAME TO customers"


def test_another_table_under_the_name_is_filled_by_a_snapshot(pipeline: Pipeline) -> None:
    pipeline.transaction(mark("run-begin", "r1"), customer(1, "a"), mark("run-end", "r1"))
    assert pipeline.apply() == 0
    pipeline.execute(ANOTHER)
    assert pipeline.apply() == 0
    assert pipeline.requests() == [(["customer.v1"], "billing")]
    assert pipeline.rows("SELECT filled FROM cdc.replica") == [(False,)]
    assert pipeline.apply() == 0
    assert len(pipeline.requests()) == 1


def test_a_running_worker_notices_that_another_table_took_the_name(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sinks.worker.RENEW_SECONDS", 0.1)
    pipeline.transaction(mark("run-begin", "r1"), customer(1, "a"), mark("run-end", "r1"))
    stop = threading.Event()
    with ThreadPoolExecutor() as threads:
        worker = threads.submit(Worker(pipeline.config(), stop).run)
        try:
            wait_until(lambda: pipeline.rows("SELECT to_regclass('replica.customers')") != [(None,)], "a table")
            wait_until(pipeline.customers, "its row")
            pipeline.execute(ANOTHER)
            wait_until(pipeline.requests, "a snapshot is asked for")
        finally:
            stop.set()
        assert worker.result() == 0
    assert pipeline.requests() == [(["customer.v1"], "billing")]


def test_a_running_worker_leaves_a_table_that_another_sink_was_given(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sinks.worker.RENEW_SECONDS", 0.1)
    pipeline.transaction(mark("run-begin", "r1"), customer(1, "a"), mark("run-end", "r1"))
    assert pipeline.apply() == 0
    with ThreadPoolExecutor() as threads:
        stop = threading.Event()
        worker = threads.submit(Worker(pipeline.config(), stop).run)
        try:
            wait_until(lambda: pipeline.status().get("state") == "streaming", "the worker is at work")
            pipeline.execute("UPDATE cdc.replica SET sink = 'shipping'")
            with pytest.raises(TableForeign, match=r"belongs to event customer\.v1 of sink shipping"):
                worker.result(60)
        finally:
            stop.set()


def test_an_unlogged_table_is_refused_and_filled_again_once_it_is_logged(pipeline: Pipeline) -> None:
    pipeline.transaction(mark("run-begin", "r1"), customer(1, "a"), mark("run-end", "r1"))
    assert pipeline.apply() == 0
    pipeline.execute("ALTER TABLE replica.customers SET UNLOGGED")
    with pytest.raises(TableMisfit, match="a crash empties it") as caught:
        pipeline.apply()
    pipeline.execute(caught.value.remedy.split("\n", 1)[1])
    assert pipeline.apply() == 0
    assert pipeline.requests() == [(["customer.v1"], "billing")]


def test_an_event_mapped_later_onto_a_stream_in_use_asks_for_a_snapshot(pipeline: Pipeline) -> None:
    pipeline.describe(SchemaDocument("order", 1, "customer", ("id",), CUSTOMER.columns))
    pipeline.transaction(customer(1, "a"))
    assert pipeline.apply() == 0
    pipeline.tables["order.v1"] = "replica.orders"
    assert pipeline.apply() == 0
    assert pipeline.requests() == [(["order.v1"], "billing")]


@pytest.mark.parametrize("left", ["moved", "taken out"])
def test_a_table_that_was_left_for_a_while_is_filled_again(pipeline: Pipeline, left: str) -> None:
    pipeline.describe(SchemaDocument("order", 1, "customer", ("id",), CUSTOMER.columns))
    tables = pipeline.tables = {"customer.v1": "replica.customers", "order.v1": "replica.orders"}
    pipeline.transaction(mark("run-begin", "r1"), customer(1, "a"), customer(2, "a"), mark("run-end", "r1"))
    assert pipeline.apply() == 0
    moved = {"customer.v1": "replica.elsewhere"} if left == "moved" else {}
    pipeline.tables = {"order.v1": "replica.orders"} | moved
    pipeline.transaction(customer(1, "b"), delete({"id": 2}))
    assert pipeline.apply() == 0
    asked = len(pipeline.requests())
    pipeline.tables = tables
    pipeline.transaction(customer(3, "c"))
    assert pipeline.apply() == 0
    assert pipeline.requests()[asked:] == [(["customer.v1"], "billing")]
    whole_run = [mark("run-begin", "r2"), customer(1, "b", b"origin", b"snapshot"), mark("run-end", "r2")]
    pipeline.transaction(*whole_run, customer(3, "c"))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {1: "b", 3: "c"}


def test_a_role_without_rights_learns_what_to_grant(pipeline: Pipeline, tmp_path: Path) -> None:
    role, admin = f"{pipeline.name}_role", pipeline.target_dsn
    pipeline.execute(f"CREATE ROLE {role} LOGIN")
    try:
        pipeline.target_dsn = psycopg.conninfo.make_conninfo(admin, user=role)
        config = pipeline.config_file(tmp_path)
        with pytest.raises(AccessDenied) as caught:
            pipeline.apply()
        assert "cdc-sink tables" in caught.value.remedy
        pipeline.target_dsn = admin
        assert command(pipeline.config_file(tmp_path), "tables", "--apply")[0] == 0
        pipeline.transaction(customer(1, "a"))
        assert pipeline.apply() == 0
        pipeline.target_dsn = psycopg.conninfo.make_conninfo(admin, user=role)
        pipeline.config_file(tmp_path)
        for _ in range(10):
            code, out, _err = command(config, "check", "--json")
            if code == 0:
                break
            for finding in json.loads(out):
                if finding["verdict"] == "error":
                    pipeline.execute(finding["remedy"])
        assert code == 0, "what `check` prints is enough"
        pipeline.transaction(mark("run-begin", "r"), customer(2, "b"), mark("run-end", "r"))
        assert pipeline.apply() == 0
        assert pipeline.customers() == {2: "b"}
    finally:
        pipeline.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_tables_prints_the_ddl_and_changes_nothing_until_it_is_told_to(pipeline: Pipeline, tmp_path: Path) -> None:
    config = pipeline.config_file(tmp_path)
    code, printed, _ = command(config, "tables")
    assert code == 0
    assert 'CREATE SCHEMA "replica";' in printed
    assert pipeline.rows("SELECT to_regnamespace('cdc'), to_regnamespace('replica')") == [(None, None)]
    assert command(config, "tables", "--apply")[:2] == (0, printed)
    assert command(config, "tables")[1] == "-- nothing to do: the replica tables fit\n"
    second = SchemaDocument("customer", 1, "customer", ("id",), (*CUSTOMER.columns, column("email", "text")))
    pipeline.describe(second.succeed(CUSTOMER))
    assert "ADD COLUMN" in command(config, "tables", "--apply")[1]
    pipeline.transaction(customer(1, "a"))
    assert pipeline.apply() == 0
    assert pipeline.requests() == [], "the stream is complete, so nothing is missing"


def test_a_schema_that_tables_share_is_made_once(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.tables["order.v1"] = "replica.orders"
    pipeline.describe(SchemaDocument("order", 1, "order", ("id",), CUSTOMER.columns))
    config = pipeline.config_file(tmp_path)
    printed = command(config, "tables")[1]
    assert printed.count('CREATE SCHEMA "replica";') == 1
    pipeline.execute(printed)
    assert command(config, "tables")[1] == "-- nothing to do: the replica tables fit\n"


def test_two_sinks_that_start_at_once_make_their_schema_once(pipeline: Pipeline) -> None:
    pipeline.tables = {"customer.v1": "other.customers"}
    assert pipeline.apply() == 0
    pipeline.tables = {"customer.v1": "replica.customers"}
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with psycopg.connect(pipeline.target_dsn) as other, ThreadPoolExecutor() as threads:
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended('statecast schema', 0)); CREATE SCHEMA replica")
        worker = threads.submit(pipeline.apply, "shipping")
        wait_until(lambda: pipeline.rows(waiting), "the second sink waits for the first one")
        other.commit()
        assert worker.result() == 0


def test_check_says_what_holds_and_what_mends_the_rest(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.tables["order.v1"] = "replica.orders"
    config = pipeline.config_file(tmp_path)
    code, out, _ = command(config, "check")
    assert code == 1
    assert "error    event order.v1: no schema document" in out
    pipeline.describe(SchemaDocument("order", 1, "order", ("id",), CUSTOMER.columns))
    pipeline.execute("CREATE SCHEMA replica; CREATE TABLE replica.orders (id text PRIMARY KEY)")
    code, out, _ = command(config, "check", "--json")
    findings = {(found["verdict"], found["thing"]): found for found in json.loads(out)}
    assert code == 1
    assert "TYPE integer" in findings["error", "table replica.orders"]["remedy"]
    pipeline.execute("DROP TABLE replica.orders")
    assert command(config, "check")[0] == 0
    assert pipeline.apply() == 0
    assert command(config, "check")[0] == 0


def test_check_names_a_type_that_the_target_lacks_once_with_all_its_columns(pipeline: Pipeline, tmp_path: Path) -> None:
    moods = [column(name, "shop.mood") for name in ("before", "after")]
    columns = (*CUSTOMER.columns, *moods, column("shapes", "geo.shape[]"))
    pipeline.describe(SchemaDocument("customer", 1, "customer", ("id",), columns))
    code, out, _ = command(pipeline.config_file(tmp_path), "check", "--json")
    told = [found["what"] for found in json.loads(out) if "has no type" in found["what"]]
    assert code == 0
    assert [what.partition(" (")[0] for what in told] == [
        "columns before, after become text: the target has no type shop.mood",
        "column shapes becomes text[]: the target has no type geo.shape[]",
    ]
