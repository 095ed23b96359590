"""A replica table is filled anew beside the one that is read, and the two are swapped."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from sinks.dead_commands import DeadCommands
from sinks.errors import AccessDenied, EventUnknown, RebuildFailed, RebuildRefused, TableMisfit
from sinks.rebuild.command import RebuildCommand, Wishes
from sinks.worker import Worker
from tests.integration.sink_harness import (
    CUSTOMER,
    Pipeline,
    Words,
    column,
    command,
    customer,
    delete,
    mark,
    truncate,
    upsert,
    wait_until,
)
from transforms.config import ConfigurationError
from transforms.schema import SchemaDocument

SNAPSHOT = (b"origin", b"snapshot")
OWN = (*SNAPSHOT, b"to", b"billing")


@pytest.fixture
def pipeline(redis_url: str, target_dsn: str, pipeline_name: str) -> Iterator[Pipeline]:
    """With a replica of three customers, which a snapshot has filled."""
    with Pipeline(redis_url, target_dsn, pipeline_name) as made:
        made.transaction(mark("run-begin", "r0"), *(customer(id_, "a", *SNAPSHOT) for id_ in (1, 2, 3)))
        made.transaction(mark("run-end", "r0"))
        assert made.apply() == 0
        yield made


def retyped(document: SchemaDocument) -> SchemaDocument:
    """The next revision of customers, as a reader of before stored it, which went on with other types."""
    return replace(document, rev=2, revisions=(CUSTOMER.names, document.names))


def ask(pipeline: Pipeline, keep_as: str | None = None, *, drop_columns: bool = False) -> list[str]:
    """`cdc-sink rebuild billing customer`; returns what it says."""
    said: list[str] = []
    with closing(RebuildCommand(pipeline.config(), "customer")) as rebuild:
        rebuild.ask(Wishes(keep_as, drop_columns), said.append)
    return said


def begin(pipeline: Pipeline) -> str:
    """The worker begins a rebuild that was asked for; returns the id of the run that it asks the reader for."""
    assert pipeline.apply() == 0
    ((run,),) = pipeline.rows("SELECT run FROM cdc.rebuild WHERE state = 'filling'")
    return str(run)


def own_mark(name: str, run: str) -> Words:
    return mark(name, run, to="billing")


def noted_run(pipeline: Pipeline) -> str:
    """The run that the worker has asked for, once it has noted which that is."""
    query = "SELECT run FROM cdc.rebuild WHERE ended_at IS NULL AND run IS NOT NULL"
    wait_until(lambda: pipeline.rows(query), "the run is noted")
    return str(pipeline.rows(query)[0][0])


def fill(pipeline: Pipeline, run: str, rows: Sequence[Words]) -> None:
    """The reader publishes the run, for this sink alone."""
    pipeline.transaction(own_mark("run-begin", run), *rows, own_mark("run-end", run))


def rebuild(
    pipeline: Pipeline, rows: Sequence[Words], keep_as: str | None = None, *, drop_columns: bool = False
) -> None:
    """From asking to the end."""
    ask(pipeline, keep_as, drop_columns=drop_columns)
    fill(pipeline, begin(pipeline), rows)
    assert pipeline.apply() == 0
    assert state(pipeline) == ("done", None)


@contextmanager
def working(pipeline: Pipeline) -> Iterator[None]:
    """A worker at work."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(Worker(pipeline.config(), stop).run)
        try:
            yield
        finally:
            stop.set()
        assert running.result() == 0


def state(pipeline: Pipeline) -> tuple[str, str | None]:
    ((found, reason),) = pipeline.rows("SELECT state, reason FROM cdc.rebuild ORDER BY id DESC LIMIT 1")
    return found, reason


def tables(pipeline: Pipeline) -> list[str]:
    return [
        row[0]
        for row in pipeline.rows(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'replica'::regnamespace ORDER BY 1"
        )
    ]


def test_the_table_that_was_filled_takes_the_place_of_the_old_one(pipeline: Pipeline) -> None:
    ask(pipeline)
    ((before,),) = pipeline.rows("SELECT 'replica.customers'::regclass::oid")
    run = begin(pipeline)
    assert tables(pipeline) == ["customers", "customers_rebuild"]
    pipeline.transaction(customer(4, "live"), delete({"id": 1}))
    pipeline.transaction(own_mark("run-begin", run))
    pipeline.transaction(customer(2, "read", *OWN), customer(3, "read", *OWN))
    pipeline.transaction(customer(3, "live"))
    pipeline.transaction(customer(4, "read", *OWN))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {2: "a", 3: "live", 4: "live"}, "the snapshot's rows are for the new table alone"
    assert dict(pipeline.rows("SELECT id, name FROM replica.customers_rebuild")) == {2: "read", 3: "live", 4: "read"}
    pipeline.transaction(own_mark("run-end", run))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {2: "read", 3: "live", 4: "read"}
    assert pipeline.rows("SELECT 'replica.customers'::regclass::oid") != [(before,)]
    assert tables(pipeline) == ["customers"]
    assert state(pipeline) == ("done", None)
    assert pipeline.rows("SELECT table_name, event, filled, run, unseen_table FROM cdc.replica") == [
        ("replica.customers", "customer.v1", True, None, None)
    ]
    pipeline.transaction(customer(5, "after"), delete({"id": 2}))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {3: "live", 4: "read", 5: "after"}


ROWS = [customer(id_, "new", *OWN) for id_ in (1, 2, 3)]
NEW = dict.fromkeys((1, 2, 3), "new")
OLD = dict.fromkeys((1, 2, 3), "a")

# --- what the new table is like --------------------------------------------------------------------------------------


def test_a_replica_gets_the_types_that_its_event_has_now(pipeline: Pipeline) -> None:
    second = SchemaDocument(
        "customer", 1, "customer", ("id",), (column("id", "bigint"), column("name", "text"), column("n", "integer"))
    )
    pipeline.describe(retyped(second))
    with pytest.raises(TableMisfit) as caught:
        pipeline.apply()
    assert "Run `cdc-sink rebuild billing customer.v1`" in caught.value.remedy
    ask(pipeline)
    run = begin(pipeline)
    large = 1 << 40
    rev = (b"rev", b"2")
    pipeline.transaction(upsert({"id": 4}, {"id": 4, "name": "fits", "n": 1}, *rev))
    assert pipeline.apply() == 0
    assert pipeline.customers() == OLD | {4: "fits"}, "it takes what it can"
    pipeline.transaction(upsert({"id": large}, {"id": large, "name": "large", "n": 1}, *rev))
    pipeline.transaction(upsert({"id": 5}, {"id": 5, "name": "later", "n": 1}, *rev))
    assert pipeline.apply() == 0
    assert pipeline.customers() == OLD | {4: "fits"}, "and then stays as it is"
    ids = (1, 2, 4, 5, large)
    fill(pipeline, run, [upsert({"id": id_}, {"id": id_, "name": "new", "n": 2}, *rev, *OWN) for id_ in ids])
    assert pipeline.apply() == 0
    assert pipeline.rows("SELECT * FROM replica.customers ORDER BY id") == [(id_, "new", 2) for id_ in ids]
    assert pipeline.rows("SELECT pg_typeof(id)::text FROM replica.customers LIMIT 1") == [("bigint",)]
    assert pipeline.rows("SELECT FROM cdc.dead_event") == []


def test_a_table_that_was_frozen_and_whose_rebuild_is_called_off_is_to_be_filled_again(pipeline: Pipeline) -> None:
    second = SchemaDocument("customer", 1, "customer", ("id",), (column("id", "bigint"), column("name", "text")))
    pipeline.describe(retyped(second))
    ask(pipeline)
    begin(pipeline)
    large = 1 << 40
    pipeline.transaction(customer(large, "large", b"rev", b"2"))
    assert pipeline.apply() == 0
    call_off(pipeline)
    assert pipeline.rows("SELECT table_name, filled, wants_snapshot FROM cdc.replica") == [
        ("replica.customers", False, True)
    ]
    with pytest.raises(TableMisfit):
        pipeline.apply()


def test_a_type_that_the_target_has_come_to_know_replaces_text(pipeline: Pipeline) -> None:
    fields = (column("id", "integer"), column("name", "shop.name"))
    pipeline.describe(retyped(SchemaDocument("customer", 1, "customer", ("id",), fields)))
    assert pipeline.apply() == 0
    pipeline.execute("CREATE SCHEMA shop; CREATE TYPE shop.name AS ENUM ('a', 'new')")
    rebuild(pipeline, ROWS)
    assert pipeline.rows("SELECT name::text, pg_typeof(name)::text FROM replica.customers WHERE id = 1") == [
        ("new", "shop.name")
    ]


CONSUMERS_WORK = """
ALTER TABLE replica.customers ADD loud text GENERATED ALWAYS AS (upper(name)) STORED, SET (fillfactor = 70),
    ADD CONSTRAINT is_named CHECK (name <> ''), ADD CONSTRAINT by_id_and_name UNIQUE (name, id),
    ALTER name SET DEFAULT 'x';
CREATE INDEX by_lower ON replica.customers (lower(name)) WHERE name <> '100%%';
CREATE UNIQUE INDEX "odd ON x" ON replica.customers USING btree (id DESC) INCLUDE (name);
COMMENT ON TABLE replica.customers IS 'of the shop, 100%%';
COMMENT ON COLUMN replica.customers.name IS 'in full';
GRANT SELECT ON replica.customers TO PUBLIC;
GRANT UPDATE (name) ON replica.customers TO {role} WITH GRANT OPTION;
CREATE VIEW public.names WITH (security_barrier = true) AS SELECT id, name FROM replica.customers;
CREATE VIEW public.short_names AS SELECT left(name, 1) AS short FROM public.names;
GRANT SELECT ON public.names TO {role};
CREATE TABLE public.log (id int);
CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO public.log VALUES (NEW.id); RETURN NULL; END $$;
CREATE TRIGGER note AFTER UPDATE ON replica.customers FOR EACH ROW WHEN (NEW.id > 0) EXECUTE FUNCTION public.note();
CREATE TRIGGER never AFTER UPDATE ON replica.customers FOR EACH ROW EXECUTE FUNCTION public.note();
ALTER TABLE replica.customers DISABLE TRIGGER never;
ALTER DEFAULT PRIVILEGES IN SCHEMA replica GRANT DELETE ON TABLES TO PUBLIC;
"""
SHAPE = """
SELECT ARRAY(SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = c.oid ORDER BY 1),
       ARRAY(SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
             WHERE conrelid = c.oid AND contype <> 'n' ORDER BY 1),
       ARRAY(SELECT pg_get_triggerdef(oid) || tgenabled::text FROM pg_trigger WHERE tgrelid = c.oid ORDER BY 1),
       ARRAY(SELECT attname || ' ' || format_type(atttypid, atttypmod) || coalesce(attacl::text, '') ||
                    coalesce(col_description(c.oid, attnum), '')
             FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 ORDER BY attnum),
       ARRAY(SELECT acl::text FROM unnest(relacl) AS acl ORDER BY 1),
       reloptions::text, obj_description(oid, 'pg_class'), relowner::regrole::text
FROM pg_class c WHERE oid = 'replica.customers'::regclass
"""


@pytest.fixture
def role(pipeline: Pipeline) -> Iterator[str]:
    name = f"{pipeline.name}_role"
    pipeline.execute(f"CREATE ROLE {name} LOGIN")
    try:
        yield name
    finally:
        pipeline.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


@pytest.mark.parametrize("keep_as", [None, "customers_before"])
def test_what_the_consumer_has_made_on_the_table_is_carried_over(
    pipeline: Pipeline, role: str, keep_as: str | None
) -> None:
    pipeline.execute(CONSUMERS_WORK.format(role=role))
    (before,) = pipeline.rows(SHAPE)
    rebuild(pipeline, ROWS, keep_as)
    assert pipeline.rows(SHAPE) == [before]
    assert pipeline.rows("SELECT loud FROM replica.customers") == [("NEW",)] * 3
    assert pipeline.rows("SELECT * FROM public.names ORDER BY id") == [(id_, "new") for id_ in (1, 2, 3)]
    assert pipeline.rows("SELECT DISTINCT short FROM public.short_names") == [("n",)]
    assert pipeline.rows(
        "SELECT reloptions, relacl::text LIKE %s FROM pg_class WHERE relname = 'names'", f"%{role}%"
    ) == [(["security_barrier=true"], True)]
    pipeline.transaction(customer(2, "live"))
    assert pipeline.apply() == 0
    assert pipeline.rows("SELECT id FROM public.log") == [(2,)], "the snapshot's rows were no updates"
    kept = [] if keep_as is None else [keep_as]
    assert tables(pipeline) == ["customers", *kept]
    if keep_as is not None:
        assert pipeline.rows("SELECT name FROM replica.customers_before WHERE id = 2") == [("a",)]


def test_an_owner_that_the_role_is_a_member_of_stays_the_owner(pipeline: Pipeline, role: str) -> None:
    pipeline.execute(f"GRANT ALL ON SCHEMA replica TO {role}; ALTER TABLE replica.customers OWNER TO {role}")
    rebuild(pipeline, ROWS)
    assert pipeline.rows("SELECT relowner::regrole::text FROM pg_class WHERE relname = 'customers'") == [(role,)]


def test_an_index_and_a_check_that_are_made_during_the_filling_are_carried_over(pipeline: Pipeline) -> None:
    ask(pipeline)
    run = begin(pipeline)
    pipeline.execute("CREATE INDEX by_name ON replica.customers (name)")
    pipeline.execute("ALTER TABLE replica.customers ADD CONSTRAINT is_named CHECK (name <> '')")
    fill(pipeline, run, ROWS)
    assert pipeline.apply() == 0
    assert pipeline.rows("SELECT indexname FROM pg_indexes WHERE schemaname = 'replica' ORDER BY 1") == [
        ("by_name",),
        ("customers_pkey",),
    ]
    assert pipeline.rows("SELECT conname FROM pg_constraint WHERE conname = 'is_named'") == [("is_named",)]


def test_columns_that_no_field_fills_are_dropped_only_when_that_is_said(pipeline: Pipeline) -> None:
    pipeline.execute("ALTER TABLE replica.customers ADD seen boolean DEFAULT false")
    pipeline.execute("CREATE INDEX by_seen ON replica.customers (seen, name)")
    with pytest.raises(RebuildRefused, match="no field of the event fills seen") as caught:
        ask(pipeline)
    assert "Add --drop-columns." in caught.value.remedy
    rebuild(pipeline, ROWS, drop_columns=True)
    assert pipeline.rows("SELECT * FROM replica.customers ORDER BY id") == [(id_, "new") for id_ in (1, 2, 3)]


def test_a_table_with_a_long_and_odd_name_is_rebuilt(pipeline: Pipeline) -> None:
    name = 'replica."Größe ""%s"" of what is sold, in all shops and in all years"'
    pipeline.tables = {"customer.v1": name}
    pipeline.transaction(*(customer(id_, "a") for id_ in (1, 2)))
    assert pipeline.apply() == 0
    quoted = name.replace("%s", "%%s")
    pipeline.execute(f"CREATE INDEX ON {quoted} (lower(name))")
    before = pipeline.rows("SELECT indexname FROM pg_indexes WHERE schemaname = 'replica' ORDER BY 1")
    rebuild(pipeline, ROWS)
    assert pipeline.rows(f"SELECT id, name FROM {quoted} ORDER BY id") == list(NEW.items())
    assert pipeline.rows("SELECT indexname FROM pg_indexes WHERE schemaname = 'replica' ORDER BY 1") == before


def test_a_schema_that_was_made_before_there_were_rebuilds_gets_the_table(pipeline: Pipeline) -> None:
    pipeline.execute("DROP TABLE cdc.rebuild")
    rebuild(pipeline, ROWS)
    assert pipeline.customers() == NEW


# --- what stands in the way ------------------------------------------------------------------------------------------

OBSTACLES = {
    "CREATE TABLE public.orders (customer int REFERENCES replica.customers)": (
        "foreign key orders_customer_fkey of public.orders points to it",
        "ALTER TABLE public.orders DROP CONSTRAINT orders_customer_fkey;",
    ),
    "CREATE TABLE public.n (name text PRIMARY KEY); INSERT INTO public.n VALUES ('a'), ('new');"
    "ALTER TABLE replica.customers ADD FOREIGN KEY (name) REFERENCES public.n": (
        "foreign key customers_name_fkey of it points to public.n",
        "ALTER TABLE replica.customers DROP CONSTRAINT customers_name_fkey;",
    ),
    "CREATE MATERIALIZED VIEW public.m AS SELECT * FROM replica.customers": (
        "materialized view public.m reads it",
        "DROP MATERIALIZED VIEW public.m;",
    ),
    "CREATE FUNCTION public.f() RETURNS SETOF replica.customers LANGUAGE sql AS 'SELECT NULL::replica.customers'": (
        "function public.f() depends on it",
        "Drop it.",
    ),
    "CREATE POLICY p ON replica.customers USING (true)": (
        "it has row-level security",
        "ALTER TABLE replica.customers DISABLE ROW LEVEL SECURITY; drop its policies.",
    ),
    "CREATE RULE r AS ON DELETE TO replica.customers DO ALSO NOTHING": (
        "rule r stands on it",
        "DROP RULE r ON replica.customers;",
    ),
    "CREATE PUBLICATION p FOR TABLE replica.customers": (
        "publication p names it",
        "ALTER PUBLICATION p DROP TABLE replica.customers;",
    ),
    "ALTER TABLE replica.customers SET UNLOGGED": (
        "it is unlogged, so that a crash empties it",
        "ALTER TABLE replica.customers SET LOGGED;",
    ),
    "CREATE SEQUENCE replica.s OWNED BY replica.customers.id": (
        "sequence replica.s belongs to a column of it",
        "ALTER SEQUENCE replica.s OWNED BY NONE;",
    ),
    "CREATE TABLE public.child () INHERITS (replica.customers)": (
        "it is partitioned, a partition, or inherits",
        "Rebuild it by hand, or map the event to a table of its own.",
    ),
    "CREATE TABLE replica.customers_rebuild (id int)": (
        "replica.customers_rebuild exists already, and no rebuild made it",
        "Rename or drop it, then ask again.",
    ),
    "ALTER TABLE replica.customers DROP CONSTRAINT customers_pkey": (
        "it has no primary key",
        'ADD PRIMARY KEY ("id");',
    ),
}


@pytest.mark.parametrize("statement", OBSTACLES, ids=lambda statement: statement[:40])
def test_what_hangs_on_the_table_is_told_and_nothing_is_changed(pipeline: Pipeline, statement: str) -> None:
    pipeline.execute(statement)
    before = tables(pipeline)
    with pytest.raises(RebuildRefused) as caught:
        ask(pipeline)
    what, mend = OBSTACLES[statement]
    assert what in str(caught.value)
    assert mend in caught.value.remedy
    assert (tables(pipeline), pipeline.rows("SELECT FROM cdc.rebuild")) == (before, [])


def test_a_view_whose_columns_would_get_other_types_is_told(pipeline: Pipeline) -> None:
    pipeline.execute("CREATE VIEW public.names AS SELECT name FROM replica.customers")
    second = SchemaDocument("customer", 1, "customer", ("id",), (column("id", "bigint"), column("name", "text")))
    pipeline.describe(retyped(second))
    with pytest.raises(RebuildRefused, match=r"view public\.names reads it, and columns get other types") as caught:
        ask(pipeline)
    assert "DROP VIEW public.names;" in caught.value.remedy


def test_what_the_server_refuses_of_the_new_table_is_told_before_anything_is_begun(pipeline: Pipeline) -> None:
    pipeline.execute("ALTER TABLE replica.customers ADD loud text GENERATED ALWAYS AS (upper(id::text || name)) STORED")
    second = SchemaDocument("customer", 1, "customer", ("id",), (column("id", "bigint"), column("name", "text")))
    pipeline.describe(retyped(second))
    with pytest.raises(RebuildRefused, match="cannot alter type of a column used by a generated column"):
        ask(pipeline)
    assert (tables(pipeline), pipeline.rows("SELECT FROM cdc.rebuild")) == (["customers"], [])


def test_a_schema_in_which_the_role_may_not_create_is_told(pipeline: Pipeline, role: str) -> None:
    pipeline.execute(f"GRANT ALL ON SCHEMA cdc TO {role}; GRANT USAGE ON SCHEMA replica TO {role}")
    pipeline.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA cdc TO {role}; ALTER TABLE replica.customers OWNER TO {role}")
    pipeline.target_dsn = psycopg.conninfo.make_conninfo(pipeline.target_dsn, user=role)
    with pytest.raises(AccessDenied) as caught:
        ask(pipeline)
    assert f'GRANT CREATE ON SCHEMA "replica" TO "{role}";' in caught.value.remedy


def test_what_is_hung_on_the_table_during_the_filling_holds_the_swap_back_until_it_is_mended(
    pipeline: Pipeline,
) -> None:
    ask(pipeline)
    run = begin(pipeline)
    pipeline.execute("CREATE TABLE public.orders (customer int REFERENCES replica.customers)")
    fill(pipeline, run, ROWS)
    pipeline.transaction(customer(4, "live"))
    assert pipeline.apply() == 0
    assert pipeline.customers() == OLD | {4: "live"}
    found, reason = state(pipeline)
    assert found == "filled"
    assert reason is not None
    assert "foreign key orders_customer_fkey of public.orders points to it" in reason
    pipeline.execute("DROP TABLE public.orders")
    assert pipeline.apply() == 0
    assert pipeline.customers() == NEW | {4: "live"}


def test_a_role_that_does_not_own_the_table_is_told_what_to_grant(pipeline: Pipeline, role: str) -> None:
    pipeline.execute(
        f"GRANT ALL ON SCHEMA cdc, replica TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA cdc, replica TO {role}"
    )
    pipeline.target_dsn = psycopg.conninfo.make_conninfo(pipeline.target_dsn, user=role)
    with pytest.raises(RebuildRefused, match=f"role {role} does not own it") as caught:
        ask(pipeline)
    assert f"GRANT postgres TO {role};" in caught.value.remedy


# --- the swap waits, and the stream does not -------------------------------------------------------------------------


def test_a_lock_on_the_table_delays_the_swap_and_neither_the_stream_nor_readers(pipeline: Pipeline) -> None:
    ask(pipeline)
    run = begin(pipeline)
    with working(pipeline), psycopg.connect(pipeline.target_dsn) as reader:
        fill(pipeline, run, ROWS)
        reader.execute("SELECT FROM replica.customers")  # holds its lock, and may be what is waited for as older
        wait_until(lambda: state(pipeline)[1], "it tells whom it waits for")
        pipeline.transaction(customer(4, "live"))
        wait_until(lambda: 4 in pipeline.customers(), "changes and readers pass by")
        assert state(pipeline)[0] == "filled"
        reader.commit()
        wait_until(lambda: state(pipeline) == ("done", None), "the swap")
    assert pipeline.customers() == NEW | {4: "live"}


@pytest.mark.any_version
def test_readers_wait_for_a_try_of_the_swap_and_not_for_who_holds_the_lock(pipeline: Pipeline) -> None:
    ask(pipeline)
    run = begin(pipeline)
    with working(pipeline), psycopg.connect(pipeline.target_dsn) as holder:
        pipeline.execute("CREATE PUBLICATION p FOR TABLE replica.customers")
        fill(pipeline, run, ROWS)
        wait_until(lambda: "publication p" in str(state(pipeline)[1]), "it is filled, and nobody is waited for")
        holder.execute("SELECT FROM replica.customers")
        pipeline.execute("DROP PUBLICATION p")
        wait_until(lambda: state(pipeline)[1] == "waits for who holds a lock on replica.customers", "it tries")
        waits: list[float] = []
        while len(waits) < 2:
            before = time.monotonic()
            pipeline.customers()
            if (waited := time.monotonic() - before) > 0.1:
                waits.append(waited)
        assert max(waits) < 2.0, "of 0.5 s at most"
        holder.commit()
        wait_until(lambda: state(pipeline) == ("done", None), "the swap")


def test_a_transaction_that_keeps_an_older_snapshot_reads_the_old_table_to_its_end(pipeline: Pipeline) -> None:
    ask(pipeline)
    run = begin(pipeline)
    with psycopg.connect(pipeline.target_dsn) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT 1")
        fill(pipeline, run, ROWS)
        assert pipeline.apply() == 0
        pid = reader.info.backend_pid
        assert state(pipeline) == ("filled", f"waits for transactions that began before it was filled (PID {pid})")
        assert reader.execute("SELECT count(*) FROM replica.customers").fetchone() == (3,)
    assert pipeline.apply() == 0
    assert pipeline.customers() == NEW


# --- asked twice, called off, failed ---------------------------------------------------------------------------------


def call_off(pipeline: Pipeline) -> tuple[int, list[str]]:
    said: list[str] = []
    with closing(RebuildCommand(pipeline.config(), "customer")) as rebuild:
        return rebuild.call_off(said.append), said


def test_asked_again_it_is_joined_and_asked_otherwise_it_is_refused(pipeline: Pipeline) -> None:
    assert ask(pipeline) == [
        "asked for: replica.customers is filled anew as replica.customers_rebuild, which then takes its place",
        "no worker of sink billing is at work: start `cdc-sink run billing`",
    ]
    assert ask(pipeline) == ["replica.customers is being rebuilt already: asked for"]
    with pytest.raises(RebuildRefused, match="is being rebuilt already, as it was asked for before") as caught:
        ask(pipeline, "old")
    assert "`cdc-sink rebuild billing customer.v1 --call-off`" in caught.value.remedy
    assert len(pipeline.rows("SELECT FROM cdc.rebuild")) == 1


@pytest.mark.parametrize("when", ["asked", "filling", "filled"])
def test_called_off_it_leaves_the_table_as_it_is(pipeline: Pipeline, when: str) -> None:
    ask(pipeline)
    run = "" if when == "asked" else begin(pipeline)
    if when == "filling":
        pipeline.transaction(own_mark("run-begin", run), *ROWS[:2])
        assert pipeline.apply() == 0
    if when == "filled":
        with psycopg.connect(pipeline.target_dsn) as reader:
            reader.execute("SELECT 1")
            fill(pipeline, run, ROWS)
            assert pipeline.apply() == 0
    assert state(pipeline)[0] == when
    assert call_off(pipeline)[0] == 0
    assert (state(pipeline), tables(pipeline)) == (("called off", None), ["customers"])
    assert pipeline.rows("SELECT table_name FROM cdc.replica") == [("replica.customers",)]
    if run:
        fill(pipeline, run, ROWS)
        pipeline.transaction(*ROWS)
    pipeline.transaction(customer(4, "live"))
    assert pipeline.apply() == 0
    assert pipeline.customers() == OLD | {4: "live"}, "the rows of the snapshot that is on its way are of no use"
    assert call_off(pipeline) == (1, ["replica.customers is not being rebuilt"])


@pytest.mark.any_version
def test_a_worker_at_work_notices_what_is_asked_for_and_called_off(pipeline: Pipeline) -> None:
    with working(pipeline):
        wait_until(lambda: pipeline.status()["state"] == "streaming", "it works")
        assert len(ask(pipeline)) == 1, "nobody needs to start a worker"
        wait_until(lambda: len(pipeline.requests()) == 1, "it asks the reader")
        run = noted_run(pipeline)
        pipeline.transaction(own_mark("run-begin", run), *ROWS[:2])
        wait_until(lambda: pipeline.rows("SELECT rows FROM cdc.rebuild") == [(2,)], "it fills")
        told = {"event": "customer.v1", "table": "replica.customers", "state": "filling", "rows": 2, "reason": None}
        wait_until(lambda: pipeline.status()["rebuilds"] == [told], "it tells so")
        assert pipeline.status()["state"] == "snapshotting"
        call_off(pipeline)
        pipeline.transaction(customer(4, "live"))
        wait_until(lambda: 4 in pipeline.customers(), "it goes on")
        ask(pipeline)
        wait_until(lambda: len(pipeline.requests()) == 2, "it asks again")
        run = noted_run(pipeline)
        fill(pipeline, run, ROWS)
        wait_until(lambda: state(pipeline) == ("done", None), "the swap")
    assert pipeline.customers() == NEW


def test_a_table_that_is_not_mapped_any_more_is_not_rebuilt(pipeline: Pipeline) -> None:
    ask(pipeline)
    begin(pipeline)
    pipeline.tables = {"customer.v1": "replica.others"}
    assert pipeline.apply() == 0
    assert tables(pipeline) == ["customers", "others"]
    assert state(pipeline)[0] == "failed"


def test_rows_that_the_new_table_refuses_are_parked_and_stay_so_after_the_swap(pipeline: Pipeline) -> None:
    pipeline.execute("CREATE UNIQUE INDEX by_name ON replica.customers (name) WHERE id > 3")
    ask(pipeline)
    run = begin(pipeline)
    pipeline.transaction(own_mark("run-begin", run), *(customer(id_, "same", *OWN) for id_ in (1, 4, 5)))
    assert pipeline.apply() == 1
    assert pipeline.rows("SELECT type FROM cdc.dead_event") == [("customer.v1 (rebuild)",)]
    with closing(DeadCommands(pipeline.config())) as dead, pytest.raises(EventUnknown, match="that a rebuild fills"):
        dead.retry([event.id for event in dead.all()])
    pipeline.transaction(own_mark("run-end", run))
    assert pipeline.apply() == 0
    assert pipeline.rows("SELECT type, convert_from(key, 'UTF8') FROM cdc.dead_event") == [("customer.v1", '{"id":5}')]
    assert pipeline.customers() == {1: "same", 4: "same"}


def test_what_was_parked_of_the_old_table_is_healed_by_the_new_one(pipeline: Pipeline) -> None:
    pipeline.execute("ALTER TABLE replica.customers ADD CHECK (name <> 'bad')")
    pipeline.transaction(customer(4, "bad"))
    assert pipeline.apply() == 1
    pipeline.execute("ALTER TABLE replica.customers DROP CONSTRAINT customers_name_check")
    rebuild(pipeline, [*ROWS, customer(4, "bad", *OWN)])
    assert pipeline.rows("SELECT FROM cdc.dead_event") == []
    assert pipeline.customers() == NEW | {4: "bad"}


def test_a_rebuild_whose_rows_are_refused_one_after_another_fails_and_the_table_goes_on(pipeline: Pipeline) -> None:
    pipeline.execute("CREATE UNIQUE INDEX by_name ON replica.customers (name) WHERE id > 3")
    ask(pipeline)
    run = begin(pipeline)
    fill(pipeline, run, [customer(id_, "same", *OWN) for id_ in range(4, 200)])
    pipeline.transaction(customer(2, "live"))
    assert pipeline.apply() == 0
    assert pipeline.customers() == OLD | {2: "live"}
    assert tables(pipeline) == ["customers"]
    found, reason = state(pipeline)
    assert found == "failed"
    assert "in a row are refused" in str(reason)


# --- what happens to the stream meanwhile ----------------------------------------------------------------------------


def test_a_snapshot_for_all_sinks_fills_and_sweeps_both_tables(pipeline: Pipeline) -> None:
    ask(pipeline)
    begin(pipeline)
    pipeline.transaction(mark("run-begin", "all"), customer(1, "all", *SNAPSHOT), customer(2, "all", *SNAPSHOT))
    pipeline.transaction(delete({"id": 2}), customer(5, "live"), mark("run-end", "all"))
    assert pipeline.apply() == 0
    assert state(pipeline) == ("done", None)
    assert pipeline.customers() == {1: "all", 5: "live"}


def test_a_snapshot_for_this_sink_that_is_not_the_rebuilds_heals_the_old_table_too(pipeline: Pipeline) -> None:
    ask(pipeline)
    begin(pipeline)
    with psycopg.connect(pipeline.target_dsn) as reader:
        reader.execute("SELECT 1")
        pipeline.transaction(own_mark("run-begin", "mine"), *ROWS[:2], own_mark("run-end", "mine"))
        assert pipeline.apply() == 0
        assert pipeline.customers() == {1: "new", 2: "new"}
        assert state(pipeline)[0] == "filled"


def test_a_run_that_begins_again_empties_what_was_filled_before(pipeline: Pipeline) -> None:
    ask(pipeline)
    run = begin(pipeline)
    pipeline.transaction(own_mark("run-begin", run), customer(9, "gone since", *OWN))
    assert pipeline.apply() == 0
    fill(pipeline, run, ROWS)
    assert pipeline.apply() == 0
    assert pipeline.customers() == NEW


def test_truncates_and_partial_events_reach_both_tables(pipeline: Pipeline) -> None:
    ask(pipeline)
    run = begin(pipeline)
    partial = upsert({"id": 3}, {"id": 3}, b"partial", b'["name"]')
    pipeline.transaction(own_mark("run-begin", run), *ROWS[:2])
    pipeline.transaction(truncate(), customer(3, "live"), partial)
    pipeline.transaction(partial, own_mark("run-end", run))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {3: "live"}
    assert state(pipeline) == ("done", None)


def test_a_field_that_is_added_meanwhile_is_in_the_new_table(pipeline: Pipeline) -> None:
    ask(pipeline)
    run = begin(pipeline)
    fields = (*CUSTOMER.columns, column("email", "text"))
    pipeline.describe(retyped(SchemaDocument("customer", 1, "customer", ("id",), fields)))
    pipeline.transaction(own_mark("run-begin", run), *ROWS)
    pipeline.transaction(
        upsert({"id": 2}, {"id": 2, "name": "b", "email": "e"}, b"rev", b"2"), own_mark("run-end", run)
    )
    assert pipeline.apply() == 0
    assert pipeline.rows("SELECT * FROM replica.customers ORDER BY id") == [
        (1, "new", None),
        (2, "b", "e"),
        (3, "new", None),
    ]


def test_streams_that_begin_anew_begin_the_filling_anew(pipeline: Pipeline) -> None:
    ask(pipeline)
    run = begin(pipeline)
    pipeline.transaction(own_mark("run-begin", run), customer(9, "another life", *OWN))
    assert pipeline.apply() == 0
    pipeline.begin("two", CUSTOMER)
    run = begin(pipeline)
    fill(pipeline, run, ROWS)
    assert pipeline.apply() == 0
    assert pipeline.customers() == NEW


def test_a_shadow_that_was_dropped_by_hand_is_made_again(pipeline: Pipeline) -> None:
    ask(pipeline)
    begin(pipeline)
    pipeline.execute("DROP TABLE replica.customers_rebuild")
    fill(pipeline, begin(pipeline), ROWS)
    assert pipeline.apply() == 0
    assert pipeline.customers() == NEW


def test_a_worker_at_work_makes_a_request_that_redis_lost_again(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sinks.worker.ASK_AGAIN_SECONDS", 0.2)
    ask(pipeline)
    with working(pipeline):
        lost = noted_run(pipeline)
        pipeline.redis.delete(pipeline.keys.requests)
        wait_until(lambda: noted_run(pipeline) != lost, "it is asked for again")
        begun = noted_run(pipeline)
        pipeline.redis.delete(pipeline.keys.requests)  # the reader takes it
        pipeline.transaction(own_mark("run-begin", begun))
        wait_until(lambda: pipeline.rows("SELECT FROM cdc.replica WHERE run = %s", begun), "the run has begun")
        pipeline.redis.delete(pipeline.keys.runs)
        wait_until(lambda: noted_run(pipeline) != begun, "the run that was lost is asked for again")
    fill(pipeline, noted_run(pipeline), [customer(1, "read", *OWN)])
    assert pipeline.apply() == 0
    assert (state(pipeline), pipeline.customers()) == (("done", None), {1: "read"})


def test_a_request_that_redis_lost_is_made_again_and_one_on_its_way_is_not(pipeline: Pipeline) -> None:
    ask(pipeline)
    run = begin(pipeline)
    assert begin(pipeline) == run
    pipeline.redis.delete(pipeline.keys.requests)
    pipeline.redis.hset(pipeline.keys.runs, run, "{}")
    assert begin(pipeline) == run
    pipeline.redis.delete(pipeline.keys.runs)
    assert begin(pipeline) != run


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_follows_a_rebuild_to_its_end(pipeline: Pipeline, tmp_path: Path) -> None:
    config = pipeline.config_file(tmp_path)
    with working(pipeline), ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(command, config, "rebuild", "customer", "--wait")
        wait_until(lambda: pipeline.requests(), "it asks the reader")
        assert "-- replica.customers is being rebuilt: filling" in command(config, "tables")[1]
        assert "table replica.customers: is being rebuilt: filling" in command(config, "check")[1]
        ((run,),) = pipeline.rows("SELECT run FROM cdc.rebuild WHERE ended_at IS NULL")
        fill(pipeline, run, ROWS)
        code, out, err = waiting.result()
    assert (code, err) == (0, "")
    first, *_, last = out.splitlines()
    assert first.startswith("asked for: replica.customers is filled anew")
    assert last == "done: replica.customers is rebuilt, 3 rows were written"


def test_the_command_tells_how_a_rebuild_failed(pipeline: Pipeline) -> None:
    with closing(RebuildCommand(pipeline.config(), "customer.v1")) as waiting:
        id_ = waiting.ask(Wishes(), lambda _: None)
        pipeline.execute("CREATE POLICY p ON replica.customers USING (true)")
        assert pipeline.apply() == 0
        with pytest.raises(RebuildFailed, match="it has row-level security"):
            waiting.follow(id_, threading.Event(), lambda _: None)


def test_an_event_that_is_not_mapped_is_a_mistake(pipeline: Pipeline, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"maps no event order \(it maps customer\.v1\)"):
        RebuildCommand(pipeline.config(), "order")
    with closing(RebuildCommand(pipeline.config(), "customer")) as asking:
        with pytest.raises(ConfigurationError, match="--keep-old: an empty name"):
            asking.ask(Wishes(keep_as=""), print)
        with pytest.raises(RebuildRefused, match=r"replica\.customers exists already"):
            asking.ask(Wishes(keep_as="customers"), print)
    pipeline.tables = {"customer.v1": "replica.elsewhere"}
    with pytest.raises(RebuildRefused, match=r"replica\.elsewhere is not a replica of customer\.v1"):
        ask(pipeline)
