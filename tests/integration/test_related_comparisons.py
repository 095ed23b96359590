"""Related rows and ranges of keys are found by the operators of the columns' own types, as these are now."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

from cdc.config import EventConfig
from cdc.related.configuration import EmbedConfig
from cdc.related.mapping import map_whole
from cdc.snapshot.subject import Subject
from cdc.source.chunk import read_chunk
from cdc.source.connection import Source
from cdc.source.tables import describe_tables
from tests.processes import Pipeline, wait_until
from tests.processes import closing as closing_pipeline
from transforms.address import Address
from transforms.masking import Masks
from transforms.names import TableName
from transforms.row import Absent
from transforms.secret import Secret

FOLDED = (
    """
CREATE SCHEMA ext;
SET search_path = ext, public;
CREATE TYPE folded;
CREATE FUNCTION folded_in(cstring) RETURNS folded LANGUAGE internal IMMUTABLE STRICT AS 'textin';
CREATE FUNCTION folded_out(folded) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
CREATE TYPE folded (INPUT = folded_in, OUTPUT = folded_out, INTERNALLENGTH = VARIABLE, STORAGE = extended,
                    CATEGORY = 'S', COLLATABLE = true);
CREATE CAST (folded AS text) WITHOUT FUNCTION AS IMPLICIT;
CREATE FUNCTION folded_cmp(folded, folded) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
    $$BEGIN RETURN CASE WHEN lower($1::text) < lower($2::text) THEN -1 WHEN lower($1::text) = lower($2::text) THEN 0
                   ELSE 1 END; END$$;
"""
    + "".join(
        f"CREATE FUNCTION folded_{name}(folded, folded) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS"
        f" $$BEGIN RETURN ext.folded_cmp($1, $2) {operator} 0; END$$;"
        f"CREATE OPERATOR {operator} (LEFTARG = folded, RIGHTARG = folded, FUNCTION = folded_{name});\n"
        for name, operator in (("lt", "<"), ("le", "<="), ("eq", "="), ("ge", ">="), ("gt", ">"))
    )
    + """
CREATE OPERATOR CLASS folded_ops DEFAULT FOR TYPE folded USING btree AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 folded_cmp(folded, folded);
CREATE TABLE public.codes (code folded PRIMARY KEY, parent folded);
INSERT INTO public.codes SELECT chr(CASE i % 2 WHEN 0 THEN 65 ELSE 97 END + i)::folded, upper(chr(97 + i - 1))::folded
    FROM generate_series(0, 25) i;
CREATE TABLE public.pairs (number int, code folded, PRIMARY KEY (number, code));
INSERT INTO public.pairs SELECT i, code FROM public.codes, generate_series(0, 2) i;
"""
)
"""A type like citext: text in lower case is what is compared, and a cast to text is implicit."""


@pytest.fixture
def source(source_dsn: str) -> Iterator[Source]:
    with psycopg.connect(source_dsn) as connection:
        connection.execute(FOLDED.encode())
    with closing(Source(Address("source", Secret(source_dsn)), "test")) as made:
        yield made


@pytest.mark.parametrize(("table", "key", "rows"), [("codes", ("code",), 26), ("pairs", ("number", "code"), 78)])
def test_a_snapshot_goes_by_the_order_of_the_keys_own_type(
    source: Source, table: str, key: tuple[str, ...], rows: int
) -> None:
    name = TableName("public", table)
    event = EventConfig(name="code", table=name, columns=key)
    subject = Subject.of(map_whole(event, describe_tables(source, [name])), 1, str.encode, Masks())
    found, after = list[bytes](), None
    while True:
        chunk = read_chunk(source, subject.query(after=after, limit=5), 1 << 20, subject.route.encoder.lines)
        again = read_chunk(
            source, subject.query(after=after, until=chunk.last_key), 1 << 20, subject.route.encoder.lines
        )
        assert again.rows == chunk.rows
        found += [row[0] for row in chunk.rows]
        if chunk.exhausted:
            break
        after = chunk.last_key
    assert len(found) == len(set(found)) == rows


def test_related_rows_are_those_that_the_types_own_operator_says(source: Source) -> None:
    name = TableName("public", "codes")
    embed = EmbedConfig(name="parent", table=name, on={"code": "parent"}, columns=("code",), many=False)
    event = EventConfig(name="code", table=name, columns=("code",), embeds=(embed,))
    subject = Subject.of(map_whole(event, describe_tables(source, [name])), 1, str.encode, Masks())
    rows = read_chunk(source, subject.query(), 1 << 20, subject.route.encoder.lines).rows
    states = [json.loads(row[1]) for row in rows if not isinstance(row, Absent)]
    assert [state["code"] for state in states if state["parent"] is None] == ["A"]
    assert {"code": "C", "parent": {"code": "b"}} in states


EVENT = """
[masking]
hash_key = "an example of a key, long enough"
[events.order]
table = "orders"
columns = ["email", "status"]
mask = { email = "hash" }
[events.order.embed.lines]
table = "lines"
on = { code = "code" }
columns = ["quantity"]
"""


def pipeline(dsn: str, redis_url: str, name: str, directory: Path, line: str, order: str) -> Pipeline:
    with psycopg.connect(dsn) as connection:
        connection.execute(
            f"CREATE TABLE orders (email text PRIMARY KEY, code {order}, status text);"
            f"CREATE TABLE lines (code {line}, number int, quantity int, PRIMARY KEY (code, number));".encode()
        )
    return Pipeline(name, dsn, redis_url, directory, EVENT)


def execute(shop: Pipeline, *statements: str) -> None:
    with psycopg.connect(shop.source_dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def newest(shop: Pipeline) -> dict[str, list[int]]:
    """By an order's status, what its lines hold."""
    states = dict[bytes, Any]()
    for _, fields in cast(Any, shop.redis.xrange(shop.keys.stream("order", 1))):
        if fields[b"op"] == b"upsert":
            states[fields[b"key"]] = json.loads(fields[b"state"])
    return {state["status"]: [line["quantity"] for line in state["lines"]] for state in states.values()}


def settle(shop: Pipeline) -> None:
    shop.wait_published()
    wait_until("the fan-outs", shop.snapshots_done)


@pytest.mark.parametrize(
    ("line", "order", "value", "narrower"),
    [
        ("varchar(20)", "varchar(20)", "'PLANTED'", "varchar(3)"),
        ("bigint", "bigint", "7654321", "smallint"),
        ("numeric(10,2)", "bigint", "7654321.00", "numeric(4,2)"),
    ],
)
def test_values_in_the_log_that_the_columns_type_does_not_take_any_more(
    source_dsn: str,
    redis_url: str,
    pipeline_name: str,
    tmp_path: Path,
    line: str,
    order: str,
    value: str,
    narrower: str,
) -> None:
    with closing_pipeline(pipeline(source_dsn, redis_url, pipeline_name, tmp_path, line, order)) as shop:
        execute(
            shop,
            f"INSERT INTO orders VALUES ('a', {value}, 'a'), ('b', '2', 'b')",
            f"INSERT INTO lines VALUES ({value}, 1, 1), ({value}, 2, 2), ('2', 1, 1)",
        )
        reader = shop.reader()
        settle(shop)
        assert newest(shop) == {"a": [1, 2], "b": [1]}
        reader.terminate()
        execute(
            shop, f"DELETE FROM lines WHERE code = {value}", "UPDATE lines SET quantity = 9",
            f"ALTER TABLE lines ALTER code TYPE {narrower}",
        )  # fmt: skip
        reader.start()
        settle(shop)
        assert newest(shop) == {"a": [], "b": [9]}  # `a` still has the value
        reader.terminate()
        execute(shop, "UPDATE lines SET code = '3', number = 4 WHERE code = '2'", "UPDATE orders SET code = 3")
        if line == order:
            execute(shop, f"ALTER TABLE orders ALTER code TYPE {narrower}")
        reader.start()
        settle(shop)
        assert newest(shop) == {"a": [9], "b": [9]}
        assert value.strip("'") not in reader.output


def test_a_fan_out_does_not_keep_keys_that_are_masked(
    source_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path
) -> None:
    with closing_pipeline(pipeline(source_dsn, redis_url, pipeline_name, tmp_path, "int", "int")) as shop:
        execute(
            shop, "INSERT INTO orders SELECT 'PLANTED' || i, 1, i FROM generate_series(1, 1500) i",
            "INSERT INTO lines VALUES (1, 1, 1)",
        )  # fmt: skip
        reader = shop.reader()
        settle(shop)
        execute(shop, "UPDATE lines SET quantity = 2")
        settle(shop)
        assert set(map(tuple, newest(shop).values())) == {(2,)}
        assert b'"related": "lines"' in b"".join(cast(Any, shop.redis.hvals(shop.keys.runs)))
        for key in cast(Any, shop.redis.scan_iter(f"{shop.name}:*", _type="HASH")):
            assert b"PLANTED" not in b"".join(cast(Any, shop.redis.hvals(key)))
        assert "PLANTED" not in reader.output


def test_rows_that_come_in_another_order_are_published_again(
    source_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path
) -> None:
    with closing_pipeline(pipeline(source_dsn, redis_url, pipeline_name, tmp_path, "int", "int")) as shop:
        execute(
            shop, "INSERT INTO orders VALUES ('a', 1, 'a')", "INSERT INTO lines VALUES (1, 1, 2), (1, 2, 1)",
            "ALTER TABLE lines ALTER quantity SET NOT NULL, REPLICA IDENTITY FULL",
        )  # fmt: skip
        reader = shop.reader()
        settle(shop)
        assert newest(shop) == {"a": [2, 1]}
        execute(shop, "ALTER TABLE lines DROP CONSTRAINT lines_pkey, ADD PRIMARY KEY (quantity, number)")
        wait_until("the reader to see it", lambda: "in another order" in reader.output)
        wait_until("the rows", lambda: newest(shop) == {"a": [1, 2]} or not reader.running)
        assert reader.running, reader.output


@pytest.mark.parametrize(
    ("line", "order", "told"),
    [
        ("point", "point", "operator does not exist"),
        ("oid", "numeric", "operator does not exist"),
        ('text COLLATE "C"', 'text COLLATE "POSIX"', "their collations are C and POSIX"),
    ],
)
def test_columns_that_cannot_be_compared_are_refused(
    source_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path, line: str, order: str, told: str
) -> None:
    with closing_pipeline(pipeline(source_dsn, redis_url, pipeline_name, tmp_path, "int", "int")) as shop:
        execute(
            shop, "DROP TABLE lines", f"ALTER TABLE orders DROP code, ADD code {order}",
            f"CREATE TABLE lines (code {line}, number int PRIMARY KEY, quantity int)",
            "ALTER TABLE lines REPLICA IDENTITY FULL",
        )  # fmt: skip
        for command, code in (("check", 1), ("run", 3)):
            output = " ".join(shop.run("cdc.cli", command, expect=code).split())
            assert "event order.v1: in lines, public.lines.code and public.orders.code of `on` cannot be" in output
            assert told in output
