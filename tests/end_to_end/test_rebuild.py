"""A replica is rebuilt under load: nobody ever reads half of it, it ends equal, and other sinks notice nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextlib import closing as closed
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests import checker, servers, workload
from tests.end_to_end.test_under_load import start
from tests.processes import Pipeline, closing, wait_until
from tests.workload import Record, Workload

ROWS = 15_000
EACH, MOVING = ROWS // 5, ROWS // 50
"""Rows of a table; those with an id up to `MOVING` change under load, the others never do."""
OTHER = """
[sinks.other]
type = "postgres"
dsn = "${OTHER_DSN}"
[sinks.other.tables]
account = "replica.accounts"
"""
STILL = "SELECT count(*), sum(hashtext(t::text)) FROM {} t WHERE id BETWEEN %s AND %s"
STILL_IDS = (MOVING + 1, EACH)
COUNT_WRITES = """
CREATE TABLE public.writes (id bigint, op text);
CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO public.writes VALUES (coalesce(NEW.id, OLD.id), TG_OP); RETURN NULL; END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON replica.accounts
    FOR EACH ROW EXECUTE FUNCTION public.note();
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
    """The workload's tables in the sink `copy`, and the accounts in another one too; both are filled and at work."""
    with servers.database(postgres_server, "other") as other_dsn:
        environment = {"TARGET_DSN": target_dsn, "OTHER_DSN": other_dsn}
        configuration = workload.EVENTS + workload.SINK + OTHER
        made = Pipeline(pipeline_name, source_dsn, redis_url, tmp_path, configuration, environment)
        with closing(made):
            start(made, ROWS)
            made.sink("other")
            made.wait_published()
            made.wait_applied(target_dsn, "copy")
            made.wait_applied(other_dsn, "other")
            yield made


def value(dsn: str, query: str) -> Any:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


@contextmanager
def readers_see_whole_tables(dsn: str) -> Iterator[None]:
    """Poll the rows that do not change: the table, a view of it, and in transactions that keep their snapshot."""
    stop, failures, reads = threading.Event(), [], [0, 0, 0]
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE VIEW public.seen AS SELECT * FROM replica.accounts")
        expected = connection.execute(STILL.format("public.seen").encode(), STILL_IDS).fetchone()
    assert expected is not None
    assert expected[0] == EACH - MOVING

    def poll(number: int, name: str, isolation: psycopg.IsolationLevel | None) -> None:
        query = STILL.format(name).encode()
        try:
            with closed(psycopg.connect(dsn, autocommit=isolation is None)) as connection:
                connection.isolation_level = isolation
                while not stop.is_set():
                    if isolation is not None:
                        connection.execute("SELECT 1")  # takes the snapshot
                        stop.wait(0.2)
                    found = connection.execute(query, STILL_IDS).fetchone()
                    assert found == expected, (name, isolation, found)
                    reads[number] += 1
                    if isolation is not None:
                        connection.commit()
                    stop.wait(0.1)
        except BaseException as error:
            failures.append(error)

    kinds: list[tuple[str, psycopg.IsolationLevel | None]] = [
        ("replica.accounts", None),
        ("public.seen", None),
        ("replica.accounts", psycopg.IsolationLevel.REPEATABLE_READ),
    ]
    threads = [threading.Thread(target=poll, args=(number, *kind)) for number, kind in enumerate(kinds)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert min(reads) > 5, reads


def load(shop: Pipeline, *, seed: int) -> AbstractContextManager[Record]:
    return Workload(shop.source_dsn, seed=seed, keys=MOVING, transactions_per_second=200).running()


def assert_rebuilt(shop: Pipeline, before: int) -> None:
    """The table is another one, nothing is left of the rebuild, and everything is equal."""
    target = shop.environment["TARGET_DSN"]
    shop.wait_published()
    shop.wait_applied(target, "copy")
    shop.wait_applied(shop.environment["OTHER_DSN"], "other")
    assert value(target, "SELECT 'replica.accounts'::regclass::oid") != before
    assert (
        value(
            target,
            "SELECT count(*) FROM pg_class WHERE relname LIKE '%rebuild%' AND relnamespace = 'replica'::regnamespace",
        )
        == 0
    )
    assert value(target, "SELECT count(*) FROM cdc.replica") == len(workload.COLUMNS)
    checker.assert_replica_equals_source(shop.source_dsn, target)
    checker.assert_revs_never_fell(target)
    checker.assert_replica_equals_source(
        shop.source_dsn, shop.environment["OTHER_DSN"], {"accounts": workload.COLUMNS["accounts"]}
    )


@pytest.mark.timeout(300)
def test_a_rebuild_under_load_ends_equal_and_no_reader_and_no_other_sink_notices(shop: Pipeline) -> None:
    target, other = shop.environment["TARGET_DSN"], shop.environment["OTHER_DSN"]
    with psycopg.connect(other, autocommit=True) as connection:
        connection.execute(COUNT_WRITES.encode())
    before = value(target, "SELECT 'replica.accounts'::regclass::oid")
    with readers_see_whole_tables(target), load(shop, seed=41):
        told = shop.run("sinks.cli", "rebuild", "copy", "account", "--wait")
    assert "done: replica.accounts is rebuilt" in told
    assert_rebuilt(shop, before)
    moved = value(other, "SELECT count(*) FROM public.writes")
    assert moved > 100, "the load went on"
    still = f"SELECT count(*) FROM public.writes WHERE id BETWEEN {MOVING + 1} AND {EACH}"
    assert value(other, still) == 0, "no row was written again"
    (log,) = [command.output for command in shop.commands if command.log.name == "sink-other.log"]
    assert log.count("sink other of pipeline") == 1, "it went on without a stop"


@pytest.mark.timeout(300)
def test_a_worker_that_is_killed_at_each_step_of_a_rebuild_ends_equal(shop: Pipeline) -> None:
    target = shop.environment["TARGET_DSN"]
    (sink,) = [command for command in shop.commands if command.log.name == "sink-copy.log"]
    before = value(target, "SELECT 'replica.accounts'::regclass::oid")
    with psycopg.connect(target, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION public.dawdle() RETURNS event_trigger LANGUAGE plpgsql AS"
            " $$ BEGIN IF current_query() LIKE '%RENAME%' THEN PERFORM pg_sleep(1); END IF; END $$;"
            "CREATE EVENT TRIGGER dawdle ON ddl_command_end WHEN TAG IN ('ALTER TABLE')"
            " EXECUTE FUNCTION public.dawdle()"
        )
    filling = "SELECT count(*) FROM pg_locks WHERE relation = 'replica.accounts_rebuild'::regclass AND NOT granted"
    swapping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
    with readers_see_whole_tables(target), load(shop, seed=42):
        shop.run("sinks.cli", "rebuild", "copy", "account")
        wait_until("the new table", lambda: value(target, "SELECT to_regclass('replica.accounts_rebuild')"))
        with psycopg.connect(target) as connection:
            connection.execute("LOCK TABLE replica.accounts_rebuild IN SHARE MODE")  # nobody writes to it
            wait_until("a batch for it", lambda: value(target, filling))
            sink.kill()
        assert value(target, "SELECT state FROM cdc.rebuild") == "filling"
        sink.start()
        wait_until("the swap", lambda: value(target, swapping))
        sink.kill()
        assert value(target, "SELECT state FROM cdc.rebuild") == "filled"
        with psycopg.connect(target, autocommit=True) as connection:
            connection.execute("DROP EVENT TRIGGER dawdle")
        sink.start()
        wait_until("the end", lambda: value(target, "SELECT state FROM cdc.rebuild") == "done")
        sink.kill()
        sink.start()
        time.sleep(0.5)  # the load goes on for so long
    assert_rebuilt(shop, before)
