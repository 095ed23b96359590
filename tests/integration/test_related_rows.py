"""Events with related rows, against real servers: every kind of change publishes the whole state."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.processes import Pipeline, closing, wait_until

SCHEMA = """
CREATE TABLE customers (id bigint PRIMARY KEY, name text NOT NULL, secret text DEFAULT 'PLANTED');
CREATE TABLE products (sku text PRIMARY KEY, title text NOT NULL, maker int);
CREATE TABLE makers (id int PRIMARY KEY, name text);
CREATE TABLE orders (id bigint PRIMARY KEY, customer_id bigint, status text);
CREATE TABLE order_lines (id bigint PRIMARY KEY, order_id bigint NOT NULL, sku text, quantity int);
CREATE UNIQUE INDEX order_lines_identity ON order_lines (order_id, id);
ALTER TABLE order_lines REPLICA IDENTITY USING INDEX order_lines_identity;
INSERT INTO makers VALUES (1, 'Acme');
INSERT INTO products VALUES ('a', 'Apple', 1), ('b', 'Bread', NULL);
INSERT INTO customers VALUES (1, 'Ada'), (2, 'Bo');
INSERT INTO orders VALUES (10, 1, 'new'), (11, 1, 'new'), (12, NULL, 'new');
INSERT INTO order_lines VALUES (100, 10, 'a', 1), (101, 10, 'b', 2), (102, 11, 'a', 3);
"""
EVENTS = """
[events.order]
table = "orders"
columns = ["id", "status"]
[events.order.embed.lines]
table = "order_lines"
on = { order_id = "id" }
columns = ["id", "quantity"]
[events.order.embed.lines.embed.product]
table = "products"
on = { sku = "sku" }
columns = ["sku", "title"]
many = false
[events.order.embed.lines.embed.product.embed.maker]
table = "makers"
on = { id = "maker" }
columns = ["name"]
many = false
[events.order.embed.customer]
table = "customers"
on = { id = "customer_id" }
columns = ["name"]
many = false
"""
DOCUMENT = """
    SELECT json_build_object('id', o.id, 'status', o.status,
        'lines', (SELECT coalesce(json_agg(json_build_object('id', l.id, 'quantity', l.quantity, 'product',
            (SELECT json_build_object('sku', p.sku, 'title', p.title, 'maker',
                (SELECT json_build_object('name', m.name) FROM makers m WHERE m.id = p.maker))
             FROM products p WHERE p.sku = l.sku)) ORDER BY l.id), '[]') FROM order_lines l WHERE l.order_id = o.id),
        'customer', (SELECT json_build_object('name', c.name) FROM customers c WHERE c.id = o.customer_id))
    FROM orders o ORDER BY o.id
"""


@pytest.fixture
def shop(source_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path) -> Iterator[Pipeline]:
    with psycopg.connect(source_dsn) as connection:
        connection.execute(SCHEMA.encode())
    with closing(Pipeline(pipeline_name, source_dsn, redis_url, tmp_path, EVENTS)) as made:
        yield made


def execute(shop: Pipeline, statement: str) -> None:
    with psycopg.connect(shop.source_dsn, autocommit=True) as connection:
        connection.execute(statement.encode())


def entries(shop: Pipeline, stream: str = "order") -> list[dict[str, str]]:
    """The entries that carry rows."""
    found = shop.redis.xrange(shop.keys.stream(stream, 1))
    decoded = [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in found]  # type: ignore[union-attr]
    return [fields for fields in decoded if fields["op"] != "mark"]


def replica(shop: Pipeline, stream: str = "order", key: str = "id") -> list[Any]:
    """What a consumer has, in the order of a number."""
    states: dict[str, Any] = {}
    for entry in entries(shop, stream):
        if entry["op"] == "truncate":
            states.clear()
        elif entry["op"] == "delete":
            states.pop(entry["key"], None)
        else:
            states[entry["key"]] = json.loads(entry["state"])
    return sorted(states.values(), key=lambda state: int(state[key]))


def documents(shop: Pipeline) -> list[Any]:
    """What SQL computes at the source."""
    with psycopg.connect(shop.source_dsn) as connection:
        return [row for (row,) in connection.execute(DOCUMENT.encode()).fetchall()]


CHANGES = {
    "an update of the row": "UPDATE orders SET status = 'paid' WHERE id = 10",
    "a child that is inserted": "INSERT INTO order_lines VALUES (103, 12, 'b', 9)",
    "a child that is updated": "UPDATE order_lines SET quantity = 7 WHERE id = 100",
    "a child that moves to another parent": "UPDATE order_lines SET order_id = 12 WHERE id = 100",
    "a child that is deleted": "DELETE FROM order_lines WHERE id = 101",
    "the last child that is deleted": "DELETE FROM order_lines WHERE order_id = 11",
    "a related row that is renamed": "UPDATE customers SET name = 'Zoë' WHERE id = 1",
    "a foreign key that is given": "UPDATE orders SET customer_id = 2 WHERE id = 12",
    "a foreign key that becomes NULL": "UPDATE orders SET customer_id = NULL WHERE id = 10",
    "a related row that is deleted": "DELETE FROM customers WHERE id = 1",
    "a related row that comes": "UPDATE orders SET customer_id = 9; INSERT INTO customers VALUES (9, 'Nine')",
    "a related row's key": "UPDATE customers SET id = 77 WHERE id = 9",
    "a nested row": "UPDATE products SET title = 'Pear' WHERE sku = 'a'",
    "a nested row's key": "UPDATE products SET sku = 'c' WHERE sku = 'a'",
    "a child's relation to a nested row": "UPDATE order_lines SET sku = 'c'",
    "a row of the third level": "UPDATE makers SET name = 'Emca'",
    "a parent's key": "UPDATE orders SET id = 20 WHERE id = 10",
    "a parent that comes after its children": "INSERT INTO orders VALUES (10, 2, 'late')",
    "a parent that is deleted and back": "DELETE FROM orders WHERE id = 11; INSERT INTO orders VALUES (11, 2, 'back')",
    "a parent that is deleted": "DELETE FROM orders WHERE id = 12",
    "children that are truncated": "TRUNCATE order_lines",
    "everything": "TRUNCATE orders, order_lines; INSERT INTO orders VALUES (1, 2, 'x');"
    " INSERT INTO order_lines VALUES (1, 1, 'c', 1)",
}


def test_every_kind_of_change_publishes_the_whole_state(shop: Pipeline) -> None:
    shop.reader()
    shop.wait_published()
    wait_until("the snapshot", lambda: len(entries(shop)) >= 3)
    assert replica(shop) == documents(shop)
    for what, statement in CHANGES.items():
        execute(shop, statement)
        shop.wait_published()
        wait_until(what, lambda: replica(shop) == documents(shop), 10)


def test_a_run_to_the_end_works_off_its_fan_outs(shop: Pipeline) -> None:
    execute(shop, "INSERT INTO orders SELECT i, 2, 'many' FROM generate_series(1000, 4000) i")
    shop.run("cdc.cli", "run", "--once")
    assert replica(shop) == documents(shop)
    execute(shop, "UPDATE customers SET name = 'Zoë' WHERE id = 2; UPDATE customers SET name = 'Ann' WHERE id = 1")
    shop.run("cdc.cli", "run", "--once")
    assert replica(shop) == documents(shop)
    runs = [json.loads(run) for run in cast(dict[bytes, bytes], shop.redis.hgetall(shop.keys.runs)).values()]
    [fan_out] = [run for run in runs if run["related"]]
    assert (fan_out["related"], fan_out["state"], fan_out["rows"], fan_out["values"]) == ("customer", "done", 3_001, [])
    told = shop.run("cdc.cli", "status")
    assert "order.v1 with changed customer: done, 3,001 rows" in told
    execute(shop, "UPDATE orders SET status = 'chosen' WHERE id = 11")
    before = len(entries(shop))
    shop.run("cdc.cli", "snapshot", "order", "--where", "status = 'chosen' or id = 10")
    shop.run("cdc.cli", "run", "--once")
    chosen = [json.loads(entry["state"]) for entry in entries(shop)[before:] if entry["origin"] == "snapshot"]
    assert chosen == documents(shop)[:2]
    marks = [fields for _, fields in cast(Any, shop.redis.xrange(shop.keys.stream("order", 1))) if b"mark" in fields]
    assert len(marks) == 2, "only the initial snapshot lets sinks delete what they do not see"


def test_an_embed_that_is_added_is_a_new_revision_with_a_snapshot(shop: Pipeline) -> None:
    whole = shop.path.read_text()
    shop.path.write_text(whole[: whole.index("[events.order.embed.customer]")])
    shop.run("cdc.cli", "run", "--once")
    execute(shop, "UPDATE customers SET name = 'before' WHERE id = 1")
    shop.path.write_text(whole)
    shop.run("cdc.cli", "run", "--once")
    assert replica(shop) == documents(shop)
    document = json.loads(cast(bytes, shop.redis.hget(shop.keys.schema, "order.v1")))
    assert (document["rev"], document["columns"][-1]["embed"]["many"]) == (2, False)
    shop.path.write_text(whole.replace('on = { id = "customer_id" }', 'on = { id = "id" }'))
    shop.run("cdc.cli", "run", "--once")
    assert [state["customer"] for state in replica(shop)] == [None, None, None], "other rows are related now"


def test_a_related_table_that_does_not_tell_its_relation_is_refused_with_sql_that_mends_it(shop: Pipeline) -> None:
    execute(shop, "ALTER TABLE order_lines REPLICA IDENTITY DEFAULT; DROP INDEX order_lines_identity")
    told = shop.run("cdc.cli", "run", expect=3)
    assert "events.order.embed.lines.on: the replica identity of public.order_lines does not hold (order_id)" in told
    [remedy] = re.findall(r"remedy: (CREATE [^;]+;\s*ALTER [^;]+;)", told)
    for statement in remedy.split(";")[:-1]:
        execute(shop, statement)
    shop.run("cdc.cli", "run", "--once")
    assert replica(shop) == documents(shop)


def test_check_tells_missing_indexes_and_rights_and_the_sql_that_mends_them(shop: Pipeline) -> None:
    role = f"reader_{shop.name}"
    execute(shop, f"CREATE ROLE {role} LOGIN REPLICATION; GRANT SELECT ON orders, order_lines, products TO {role}")
    owner, shop.environment["SOURCE_DSN"] = shop.source_dsn, make_conninfo(shop.source_dsn, user=role)
    try:
        told = shop.run("cdc.cli", "check", expect=1)
        assert "lines.product.maker: 1 column of public.makers, one row by (id)" in told
        missing = re.findall(r"CREATE INDEX CONCURRENTLY ON [^;]+;", told)
        assert missing == [
            "CREATE INDEX CONCURRENTLY ON public.order_lines (sku);",
            "CREATE INDEX CONCURRENTLY ON public.products (maker);",
            "CREATE INDEX CONCURRENTLY ON public.orders (customer_id);",
        ]
        grants = re.findall(r"GRANT SELECT [^;]+;", told)
        assert [grant.split(" TO ")[0] for grant in grants] == [
            "GRANT SELECT (name, id) ON public.makers", "GRANT SELECT (name, id) ON public.customers"
        ]  # fmt: skip
        for statement in (*missing, *grants):
            execute(shop, statement)
        told = shop.run("cdc.cli", "check", expect=1)  # the publication is to be made by the owner
        assert "CREATE INDEX" not in told
        assert "GRANT SELECT" not in told
    finally:
        shop.environment["SOURCE_DSN"] = owner
        execute(shop, f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_related_column_that_is_dropped_stops_the_event_alone_until_it_is_back(shop: Pipeline) -> None:
    shop.path.write_text(shop.path.read_text() + '[events.maker]\ntable = "makers"\ncolumns = ["id", "name"]\n')
    reader = shop.reader()
    shop.wait_published()
    execute(shop, "ALTER TABLE order_lines DROP COLUMN quantity; UPDATE makers SET name = name || '.'")
    reason = "public.order_lines has no column quantity"
    wait_until("the event to stop", lambda: reason in shop.run("cdc.cli", "status", "--json"))
    execute(shop, "UPDATE customers SET name = name || '.'; UPDATE makers SET name = name || '.'")
    wait_until("the other event", lambda: entries(shop, "maker")[-1]["state"].endswith('.."}'))
    assert reader.running
    execute(shop, "ALTER TABLE order_lines ADD COLUMN quantity int")
    wait_until("the event to go on", lambda: replica(shop) == documents(shop))


ODD = """
CREATE TABLE tree ("Number" int, "Place" text, "Above" int, "Above Place" text, "Title" char(6), "Odd" json,
                   "Flag" boolean, "Net" inet, "At" timestamptz, "Pair" pair, PRIMARY KEY ("Number", "Place"));
ALTER TABLE tree REPLICA IDENTITY FULL;
INSERT INTO tree VALUES
    (1, 'a:"\\x', NULL, NULL, 'root', '{"n": "\\u0000"}', true, '10.0.0.1', '2024-02-29 12:00+01', '(,)'),
    (2, 'b', 1, 'a:"\\x', 'one', 'null', false, '10.0.0.0/8', NULL, NULL),
    (3, 'b', 1, 'a:"\\x', NULL, NULL, NULL, NULL, 'infinity', '(1,"x y")');
"""
ODD_EVENTS = """
[masking]
hash_key = "0123456789abcdef"
[events.node]
table = "tree"
columns = ["Number", "Place"]
where = '"Number" < 3'
[events.node.embed.below]
table = "tree"
on = { Above = "Number", "Above Place" = "Place" }
columns = ["Number", "Title", "Odd", "Flag", "Net", "At", "Pair"]
rename = { Number = "n" }
mask = { Net = "hash" }
[events.node.embed.above]
table = "tree"
on = { Number = "Above", Place = "Above Place" }
columns = ["Title", "Odd", "Net", "Flag"]
many = false
mask = { Flag = "redact" }
[events.node.embed.above.embed.below]
table = "tree"
on = { Above = "Number", "Above Place" = "Place" }
columns = ["Number"]
"""


def test_a_table_related_to_itself_by_several_columns_with_values_of_any_kind(
    source_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path
) -> None:
    with psycopg.connect(source_dsn) as connection:
        connection.execute("CREATE TYPE pair AS (a int, b text)")
        connection.execute(ODD.encode())
    with closing(Pipeline(pipeline_name, source_dsn, redis_url, tmp_path, ODD_EVENTS)) as pipeline:
        pipeline.run("cdc.cli", "run", "--once")
        first, second = replica(pipeline, "node", "Number")
        below = {
            "n": 2, "Title": "one   ", "Odd": None, "Flag": False, "Net": first["below"][0]["Net"], "At": None,
            "Pair": None,
        }  # fmt: skip
        assert first["below"][0] == below
        assert first["below"][0]["Net"].startswith("k1:")
        assert first["below"][1] == {
            "n": 3, "Title": None, "Odd": None, "Flag": None, "Net": None, "At": "infinity", "Pair": '(1,"x y")'
        }  # fmt: skip
        assert first["above"] is None
        assert second["above"] == {
            "Title": "root  ", "Odd": '{"n": "\\u0000"}', "Net": "10.0.0.1", "Flag": "[redacted]",
            "below": [{"Number": 2}, {"Number": 3}],
        }  # fmt: skip
        execute(pipeline, 'UPDATE tree SET "Above" = 2, "Above Place" = \'b\' WHERE "Number" = 3')
        pipeline.run("cdc.cli", "run", "--once")
        first, second = replica(pipeline, "node", "Number")
        assert [[each["n"] for each in node["below"]] for node in (first, second)] == [[2], [3]]
        assert second["above"]["below"] == [{"Number": 2}]
        before = len(entries(pipeline, "node"))
        execute(pipeline, 'UPDATE tree SET "Pair" = "Pair", "Number" = 9 WHERE "Number" = 2')
        pipeline.run("cdc.cli", "run", "--once")
        assert [node["below"] for node in replica(pipeline, "node", "Number")] == [[{**below, "n": 9}]], (
            "9 is not of the event"
        )
        assert len(entries(pipeline, "node")) > before
