"""Embeds as child tables: their rows come and go with their parent's row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.sink_harness import (
    Pipeline,
    Words,
    column,
    delete,
    truncate,
    upsert,
    use_technique,
)
from transforms.schema import EmbedSchema, SchemaColumn, SchemaDocument


def embed(name: str, *columns: SchemaColumn, key: tuple[str, ...] = (), many: bool = True) -> SchemaColumn:
    return SchemaColumn(name, "jsonb", "jsonb", not many, embed=EmbedSchema(many, key, columns))


PRODUCT = embed("product", column("title", "text"), many=False)
LINES = embed(
    "lines", column("id", "integer"), column("sku", "text"), column("price", "numeric(10,2)"), PRODUCT, key=("id",)
)
TAGS = embed("tags", column("word", "text"))
CUSTOMER = embed("customer", column("id", "bigint"), column("name", "text"), key=("id",), many=False)
ORDER = SchemaDocument(
    "order",
    1,
    "order",
    ("id",),
    (column("id", "integer", nullable=False), column("status", "text"), LINES, TAGS, CUSTOMER),
)


@pytest.fixture
def pipeline(redis_url: str, target_dsn: str, pipeline_name: str) -> Iterator[Pipeline]:
    """A pipeline of orders, of which each embed has a table of its own."""
    with Pipeline(redis_url, target_dsn, pipeline_name) as made:
        made.describe(ORDER)
        made.tables = {"order.v1": "replica.orders"}
        made.embeds = {"order.v1": {name: f"replica.{name}" for name in ("lines", "tags", "customer")}}
        yield made


def line(id_: int, sku: str, price: str = "1.00", title: str | None = None) -> dict[str, object]:
    return {"id": id_, "sku": sku, "price": price, "product": title and {"title": title}}


def order(id_: int, status: str, *lines: dict[str, object], tags: str = "", customer: Any = None) -> Words:
    state = {"id": id_, "status": status, "lines": lines, "tags": [{"word": word} for word in tags.split()]}
    return upsert({"id": id_}, state | {"customer": customer}, type_="order.v1")


def remove(id_: int) -> Words:
    return delete({"id": id_}, "order.v1")


def lines_of(pipeline: Pipeline) -> list[tuple[Any, ...]]:
    return pipeline.rows("SELECT order_id, id, sku FROM replica.lines ORDER BY order_id, id")


def tags_of(pipeline: Pipeline) -> list[tuple[Any, ...]]:
    return pipeline.rows("SELECT order_id, ordinal, word FROM replica.tags ORDER BY order_id, ordinal")


def customers_of(pipeline: Pipeline) -> list[tuple[Any, ...]]:
    return pipeline.rows("SELECT order_id, id, name FROM replica.customer ORDER BY order_id")


KEYS = (
    "SELECT c.relname::text, string_agg(a.attname, ' ' ORDER BY k.place) FROM pg_index i"
    " JOIN pg_class c ON c.oid = i.indrelid CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (n, place)"
    " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.n"
    " WHERE i.indisprimary AND c.relnamespace = 'replica'::regnamespace GROUP BY c.relname"
)
TYPES = (
    "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
)


def test_a_child_table_has_the_parents_key_the_embeds_fields_and_the_sources_types(pipeline: Pipeline) -> None:
    assert pipeline.apply() == 0
    assert dict(pipeline.rows(KEYS)) == {
        "orders": "id",
        "lines": "order_id id",
        "tags": "order_id ordinal",
        "customer": "order_id",
    }
    assert dict(pipeline.rows(TYPES, "replica.lines")) == {
        "order_id": "integer",
        "id": "integer",
        "sku": "text",
        "price": "numeric(10,2)",
        "product": "jsonb",
    }
    assert dict(pipeline.rows(TYPES, "replica.orders")) == {"id": "integer", "status": "text"}
    owners = dict(pipeline.rows("SELECT table_name, event FROM cdc.replica"))
    assert owners == {"replica.orders": "order.v1"} | {
        f"replica.{name}": f"order.v1.{name}" for name in ("lines", "tags", "customer")
    }


@pytest.mark.parametrize("technique", ["json", "copy"])
def test_rows_of_children_are_those_of_the_last_state(
    pipeline: Pipeline, technique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_technique(technique, monkeypatch)
    pipeline.transaction(
        order(1, "new", line(11, "a", title="A"), line(12, "b"), tags="x y x", customer={"id": 7, "name": "Jo"}),
        order(2, "new", line(11, "c"), customer={"id": 7, "name": "Jo"}),
        order(3, "new"),
        stream="order",
    )
    assert pipeline.apply() == 0
    assert lines_of(pipeline) == [(1, 11, "a"), (1, 12, "b"), (2, 11, "c")]
    assert tags_of(pipeline) == [(1, 1, "x"), (1, 2, "y"), (1, 3, "x")]
    assert customers_of(pipeline) == [(1, 7, "Jo"), (2, 7, "Jo")]
    assert pipeline.rows("SELECT product FROM replica.lines ORDER BY 1") == [({"title": "A"},), (None,), (None,)]

    pipeline.transaction(
        order(1, "paid", line(12, "b2"), line(13, "d"), tags="z"),
        order(3, "paid", line(1, "e")),
        order(4, "x", line(1, "f")),
        remove(2),
        remove(4),
        stream="order",
    )
    assert pipeline.apply() == 0
    assert lines_of(pipeline) == [(1, 12, "b2"), (1, 13, "d"), (3, 1, "e")]
    assert (tags_of(pipeline), customers_of(pipeline)) == ([(1, 1, "z")], [])

    pipeline.transaction(truncate("order.v1"), order(5, "new", line(1, "g"), tags="t"), stream="order")
    assert pipeline.apply() == 0
    assert (lines_of(pipeline), tags_of(pipeline)) == ([(5, 1, "g")], [(5, 1, "t")])


def test_a_key_change_moves_the_rows_of_children(pipeline: Pipeline) -> None:
    pipeline.transaction(order(1, "new", line(11, "a")), order(2, "new", line(21, "b")), stream="order")
    pipeline.transaction(remove(1), order(3, "new", line(11, "a")), stream="order")
    pipeline.transaction(remove(2), order(1, "new", line(21, "b")), stream="order")
    assert pipeline.apply() == 0
    assert lines_of(pipeline) == [(1, 21, "b"), (3, 11, "a")]
