"""`cdc snapshot --where`: the rows that meet a condition are published again, and nothing else happens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing as closed
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

from cdc.catalog import Table
from cdc.control import Control
from cdc.snapshot.run import Run
from cdc.snapshot.runs import REFUSED_KEPT
from cdc.source.chunk import ChunkQuery, check_condition, read_chunk
from cdc.source.connection import Source
from cdc.source.tables import describe_tables
from tests.processes import Pipeline, closing, wait_until
from transforms import copy_text
from transforms.address import Address
from transforms.names import TableName
from transforms.secret import Secret

ROWS = 30_000
EVENTS = """
[events.customer]
table = "customers"
columns = ["id", "name", "region", "active"]
[events.order]
table = "orders"
columns = ["region", "number", "total"]
[sinks.billing]
type = "postgres"
dsn = "${TARGET_DSN}"
[sinks.billing.tables]
customer = "replica.customers"
"""
SCHEMA = f"""
CREATE TABLE customers (id int PRIMARY KEY, name text, region text, active boolean, secret text DEFAULT 'PLANTED');
INSERT INTO customers
    SELECT n, 'name ' || n, (ARRAY['eu', 'us', 'ap'])[n % 3 + 1], n % 2 = 0 FROM generate_series(1, {ROWS}) AS n;
CREATE TABLE orders (region text, number int, total numeric(10,2), PRIMARY KEY (region, number));
INSERT INTO orders VALUES ('eu', 1, 99.99), ('eu', 2, 100.00), ('us', 1, 'NaN'), ('us', 2, NULL);
CREATE INDEX ON customers (region);
"""


@pytest.fixture
def shop(source_dsn: str, target_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path) -> Iterator[Pipeline]:
    with psycopg.connect(source_dsn) as connection:
        connection.execute(SCHEMA.encode())
    made = Pipeline(pipeline_name, source_dsn, redis_url, tmp_path, EVENTS, {"TARGET_DSN": target_dsn})
    with closing(made):
        yield made


@pytest.fixture
def filled(shop: Pipeline) -> Pipeline:
    """The first snapshots are made, and nothing runs."""
    shop.run("cdc.cli", "run", "--once")
    return shop


def entries(shop: Pipeline, event: str = "customer", after: int = 0) -> list[dict[str, str]]:
    found = shop.redis.xrange(shop.keys.stream(event, 1))
    decoded = [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in found]  # type: ignore[union-attr]
    return decoded[after:]


def runs(shop: Pipeline) -> dict[str, Run]:
    """By condition."""
    stored = map(Run.parse, shop.redis.hgetall(shop.keys.runs).values())
    return {run.where or "": run for run in stored}


def status(shop: Pipeline) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shop.run("cdc.cli", "status", "--json"))
    return found


def test_rows_that_match_arrive_others_are_left_alone_and_nothing_is_deleted(filled: Pipeline) -> None:
    shop, target = filled, filled.environment["TARGET_DSN"]
    shop.run("sinks.cli", "run", "billing", "--once")
    with psycopg.connect(target) as connection:
        connection.execute("UPDATE replica.customers SET name = 'damaged'")
        connection.execute("DELETE FROM replica.customers WHERE id IN (2, 3)")
        connection.execute("INSERT INTO replica.customers VALUES (-1, 'of nobody', 'eu', true)")
    published = len(entries(shop))
    where = "id <= 100 AND (region IN ('eu', 'us') OR NOT active)"
    expected = [n for n in range(1, 101) if n % 3 in (0, 1) or n % 2]
    reader = shop.reader()
    told = shop.run("cdc.cli", "snapshot", "customer", "--where", where, "--wait")
    assert f"asked for customer.v1 where {where}" in told
    assert f"published customer.v1: {len(expected)} rows" in told
    assert f"snapshot of customer.v1 where {where} is complete: {len(expected)} rows" in reader.output
    found = entries(shop, after=published)
    assert [(entry["op"], entry["origin"]) for entry in found] == [("upsert", "snapshot")] * len(expected)
    assert [json.loads(entry["key"])["id"] for entry in found] == expected
    [run] = status(shop)["snapshots"][-1:]
    assert (run["where"], run["state"], run["rows"], run["share"]) == (where, "done", len(expected), 1.0)
    assert f"customer.v1 where {where}: done" in " ".join(shop.run("cdc.cli", "status").split())
    assert reader.terminate() == 0
    shop.run("sinks.cli", "run", "billing", "--once")
    with psycopg.connect(target) as connection:
        rows = set(connection.execute("SELECT id, name FROM replica.customers").fetchall())
    healed = {n: f"name {n}" for n in expected}
    damaged = {n: "damaged" for n in range(1, ROWS + 1) if n not in healed and n not in (2, 3)}
    assert rows == {*damaged.items(), *healed.items(), (-1, "of nobody")}


def test_a_snapshot_of_a_part_for_one_sink(filled: Pipeline) -> None:
    published = len(entries(filled, "order"))
    filled.run("cdc.cli", "snapshot", "order", "--sink", "billing", "--where", "total >= 100")
    filled.run("cdc.cli", "run", "--once")
    found = entries(filled, "order", after=published)
    assert [(entry["key"], entry["to"]) for entry in found] == [
        ('{"region":"eu","number":2}', "billing"),
        ('{"region":"us","number":1}', "billing"),  # NaN is greater than all numbers
    ]


def test_several_events_are_asked_for_where_each_has_the_columns(filled: Pipeline) -> None:
    told = filled.run("cdc.cli", "snapshot", "--all", "--where", "region = 'eu' AND active", expect=2)
    assert "--where, for event order.v1: the event has no such column (it has region, number, total)" in told
    assert "at character 19: active" in told
    assert filled.redis.xlen(filled.keys.requests) == 0
    filled.run("cdc.cli", "snapshot", "--all", "--where", "region = 'eu'")
    filled.run("cdc.cli", "run", "--once")
    stored = [Run.parse(text) for text in filled.redis.hgetall(filled.keys.runs).values()]
    assert {(run.event, run.rows) for run in stored} == {("customer.v1", ROWS // 3), ("order.v1", 2)}


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("", "it is empty"),
        ("secret = 'x'", "the event has no such column (it has id, name, region, active) (at character 1: secret)"),
        ("lower(name) = 'x'", "conditions compare a column with a literal"),
        ("id = 'x'", "a column of type integer is compared with a number, without quotes (at character 6: 'x')"),
        ("id = 1; DROP TABLE customers", "conditions have nothing like this (at character 7: ;)"),
    ],
)
def test_a_condition_that_is_not_accepted_ends_the_command_and_asks_for_nothing(
    shop: Pipeline, where: str, says: str
) -> None:
    told = shop.run("cdc.cli", "snapshot", "customer", "--where", where, expect=2)
    assert f"error: --where, for event customer.v1: {says}" in told
    assert "remedy: Compare columns of the event with literals" in told
    assert shop.redis.keys(f"{shop.name}:*") == []


def test_a_run_goes_on_behind_its_last_chunk_with_its_condition(filled: Pipeline) -> None:
    published, where = len(entries(filled)), "region = 'eu' AND id < 20000"
    run = Run("1-0:customer.v1", "customer.v1", "running", where=where, after=("10000",), rows=5, scanned=10_000)
    filled.redis.hset(filled.keys.runs, run.id, run.to_json())
    filled.run("cdc.cli", "run", "--once")
    keys = [json.loads(entry["key"])["id"] for entry in entries(filled, after=published)]
    assert keys == [n for n in range(10_001, 20_000) if n % 3 == 0]
    done = runs(filled)[where]
    assert (done.state, done.rows) == ("done", 5 + len(keys))


@pytest.mark.any_version
def test_a_run_that_is_killed_again_and_again_publishes_every_row_that_matches(shop: Pipeline) -> None:
    with psycopg.connect(shop.source_dsn) as connection:
        connection.execute(
            "INSERT INTO customers SELECT n, repeat('x', 2000), 'eu', true FROM generate_series(40000, 80000) AS n"
        )
    shop.run("cdc.cli", "run", "--once")
    published, where = len(entries(shop)), "region = 'eu'"
    shop.run("cdc.cli", "snapshot", "customer", "--where", where)
    reader, seen = shop.reader(), [0]
    for _ in range(4):
        wait_until("more rows", lambda: scanned(shop, where) > seen[-1])
        seen.append(scanned(shop, where))
        reader.kill()
        assert not is_done(shop, where), "there is nothing left to go on with"
        reader.start()
    wait_until("the end", lambda: is_done(shop, where))
    assert reader.terminate() == 0
    keys = [json.loads(entry["key"])["id"] for entry in entries(shop, after=published)]
    assert sorted(set(keys)) == [n for n in range(1, ROWS + 1) if n % 3 == 0] + list(range(40_000, 80_001))


def is_done(shop: Pipeline, where: str) -> bool:
    return where in runs(shop) and runs(shop)[where].state == "done"


def scanned(shop: Pipeline, where: str) -> int:
    return runs(shop)[where].scanned if where in runs(shop) else 0


HOSTILE = (
    "", "1=1", "id = 1; DROP TABLE customers", "id = 1) OR pg_sleep(60) IS NULL OR (id = 1",
    "id IN (SELECT pg_terminate_backend(pid) FROM pg_stat_activity)", "EXISTS (SELECT FROM pg_authid)",
    "secret = 'PLANTED'", "name = (SELECT secret FROM customers LIMIT 1)", "CAST(name AS int) = 1", "name::int = 1",
    "name = $$x$$", "name = $q$x$q$", "name = E'\\047 OR true --'", "name = U&'\\0027'", 'U&"\\0069d" = 1',
    "id = 1 -- comment", "id /* */ = 1", "lo_import('/etc/passwd') = 1", "name COLLATE \"C\" < 'x'", "id = $1",
    "id = %s", "\uff49d = 1", "id = 1\u2028OR true",
    "(" * 10_000 + "id = 1" + ")" * 10_000, "NOT " * 10_000 + "active",
    "(" * 4_990 + ")" * 4_990, "id IN (" * 1_400, "name = '" + "x" * 1_000_000 + "'", "-" * 9_000, "case " * 1_900,
    "name = 'it''s", '"id = 1', "name LIKE 'x\\'", "id = 1e999999999", "name = '\0'",
)  # fmt: skip


def test_whatever_is_written_to_the_requests_stream_is_refused_by_name_and_stops_nothing(filled: Pipeline) -> None:
    shop, published = filled, len(entries(filled))

    def ask(**fields: str | bytes) -> None:
        shop.redis.xadd(shop.keys.requests, {"events": '["customer.v1"]'} | fields)  # type: ignore[arg-type]

    ask(where="id = 7")
    for text in HOSTILE:
        ask(where=text)
    ask(where=b"name = '\xff'")
    ask(where="id = 8", sink=b"\xff")
    ask(events="[" * 100_000)
    ask(where="id = 9", events="{}")
    reader = shop.reader()
    wait_until("all to be judged", lambda: shop.redis.xlen(shop.keys.requests) == 0)
    wait_until("the right one", lambda: is_done(shop, "id = 7"))
    assert reader.output.count("is refused: ") == len(HOSTILE) + 1
    assert "what is not UTF-8 (at character 9: \\udcff)" in reader.output
    assert "Traceback" not in reader.output
    assert max(map(len, reader.output.splitlines())) < 500
    wait_until(
        "only some to be kept",
        lambda: sum(b"refused" in run for run in shop.redis.hvals(shop.keys.runs)) == REFUSED_KEPT,
    )
    found = status(shop)
    refused = [run for run in found["snapshots"] if run["state"] == "refused"]
    assert len(refused) == REFUSED_KEPT
    assert all(run["reason"] and len(run["where"]) < 500 for run in refused)
    told = {problem["what"] for problem in found["problems"]}
    assert told >= {f"refused a snapshot of customer.v1 where {run['where']}: {run['reason']}" for run in refused}
    assert found["reader"]["state"] == "streaming"
    ask(where="id = 11")
    wait_until("the next one", lambda: is_done(shop, "id = 11"))
    assert set(runs(shop)) == {"", "id = 11"}
    assert [json.loads(entry["key"])["id"] for entry in entries(shop, after=published)] == [7, 11]
    with psycopg.connect(shop.source_dsn, autocommit=True) as connection:
        connection.execute("UPDATE customers SET name = 'Ada' WHERE id = 5")
    wait_until("the change", lambda: '"name":"Ada"' in entries(shop)[-1]["state"])
    assert reader.terminate() == 0


def test_who_waits_for_a_run_that_is_refused_in_the_end_is_told(filled: Pipeline) -> None:
    """What is stored of a run is not trusted more than a request."""
    waiting = filled.command("cdc.cli", "snapshot", "order", "--where", "total > 1", "--wait", log="waiting")
    waiting.start()
    wait_until("the request", lambda: filled.redis.xlen(filled.keys.requests) == 1)
    [(entry_id, _)] = cast(list[tuple[bytes, object]], filled.redis.xrange(filled.keys.requests))
    run = Run(f"{entry_id.decode()}:order.v1", "order.v1", where="total > 1; SELECT 1")
    filled.redis.hset(filled.keys.runs, run.id, run.to_json())
    filled.reader()
    assert waiting.wait() == 3
    assert "the reader refuses a snapshot of order.v1: conditions have nothing like this" in waiting.output


def test_a_part_is_no_snapshot_of_everything(filled: Pipeline) -> None:
    """A new epoch begins with a snapshot of everything: a part is not that."""
    control = Control(filled.redis, filled.keys)
    control.request_snapshot(["customer.v1", "order.v1"], None, "region = 'eu'")
    assert not control.is_asked_for(["customer.v1", "order.v1"])
    control.request_snapshot(["customer.v1", "order.v1"], None)
    assert control.is_asked_for(["customer.v1", "order.v1"])


# --- chunks -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def source(shop: Pipeline) -> Iterator[Source]:
    with psycopg.connect(shop.source_dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO orders SELECT 'r' || n / 1000, n, n FROM generate_series(1, 100000) AS n")
        connection.execute("CREATE INDEX ON orders (total)")
        connection.execute("VACUUM ANALYZE customers, orders")
    with closed(Source(Address("source", Secret(shop.source_dsn)), "test")) as made:
        yield made


def query(source: Source, table: str, key: tuple[str, ...], **parts: Any) -> ChunkQuery:
    name = TableName("public", table)
    described: Table = describe_tables(source, [name])[name]
    columns = {column.name: column for column in described.columns}
    return ChunkQuery(name, described.columns, tuple(columns[each] for each in key), key, only=True, **parts)


@pytest.mark.parametrize("after", [None, ("r50", "50123")])
def test_chunks_are_found_by_the_keys_index_however_rare_the_rows_are(
    source: Source, after: tuple[str, ...] | None
) -> None:
    rare = query(source, "orders", ("region", "number"), after=after, limit=2000, condition="(\"total\" = '3')")
    plans: list[str] = []
    execute = source.connection.execute

    def explain(statement: Any) -> Any:
        plans.extend(row[0] for row in execute(statement).fetchall())

    source.connection.execute = explain  # type: ignore[method-assign, assignment]
    check_condition(source, rare)
    plan = "\n".join(plans)
    assert "Index Scan using orders_pkey" in plan or "Index Only Scan using orders_pkey" in plan
    assert "Seq Scan" not in plan
    assert "orders_total_idx" not in plan
    assert "Sort" not in plan


def each_line(lines: list[bytes]) -> list[list[bytes | None]]:
    return [copy_text.values(line) for line in lines]


def test_a_chunk_ends_after_so_many_rows_whether_they_are_chosen_or_not(source: Source) -> None:
    seen, after = [], None
    for _ in range(4):
        rows = read_chunk(
            source,
            query(source, "customers", ("id",), after=after, limit=10_000, condition="(\"region\" = 'eu')"),
            1 << 30,
            each_line,
        )
        seen.append((rows.last_key, rows.scanned, len(rows.rows), rows.exhausted))
        after = rows.last_key
    assert seen == [
        (("10000",), 10_000, 3333, False),
        (("20000",), 10_000, 3333, False),
        (("30000",), 10_000, 3334, False),
        (None, 0, 0, True),
    ]


def test_a_chunk_without_any_chosen_row_goes_on(source: Source) -> None:
    none = query(source, "customers", ("id",), limit=10, condition='("id" > 20)')
    rows = read_chunk(source, none, 1 << 30, each_line)
    assert (rows.rows, rows.last_key, rows.scanned, rows.exhausted) == ([], ("10",), 10, False)


def test_a_chunk_that_is_cut_ends_at_its_last_row(source: Source) -> None:
    cut = query(source, "customers", ("id",), limit=10_000, condition="(\"region\" = 'eu')")
    rows = read_chunk(source, cut, 100, each_line)
    assert not rows.exhausted
    assert rows.last_key == ((rows.rows[-1][0] or b"").decode(),)
    assert rows.scanned == len(rows.rows) < 10


@pytest.mark.parametrize("budget_bytes", [1, 30, 1 << 30])
def test_a_chunk_that_is_cut_when_all_rows_are_here_already_leaves_the_connection_usable(
    shop: Pipeline, source: Source, budget_bytes: int
) -> None:
    """Also when its last row is the one that fills it: the server has then nothing more to say."""
    with psycopg.connect(shop.source_dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE few (id int PRIMARY KEY, name text)")
        connection.execute("INSERT INTO few SELECT n, 'row ' || n FROM generate_series(1, 5) AS n")
    read: list[bytes | None] = []
    after, exhausted = None, False
    while not exhausted:
        chunk = query(source, "few", ("id",), after=after, limit=100)
        rows = read_chunk(source, chunk, budget_bytes, each_line)
        read += [row[0] for row in rows.rows]
        after, exhausted = rows.last_key, rows.exhausted
    assert read == [b"1", b"2", b"3", b"4", b"5"]
