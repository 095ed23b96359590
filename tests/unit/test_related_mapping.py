"""Embeds against the catalog: what fits, what does not and what mends it, and what consumers are told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cdc.catalog import Column, ColumnUnfit, IdentityMissing, KeyUnfit, Table, TableUnfit
from cdc.config import EventConfig
from cdc.related.configuration import EmbedConfig
from cdc.related.mapping import RelationUntold, map_whole
from tests.builders import BIGINT, TEXT, column
from transforms.names import TableName
from transforms.schema import EmbedSchema

CUSTOMERS, ORDERS, LINES = (TableName("public", name) for name in ("customers", "orders", "order_lines"))


def table(oid: int, name: TableName, key: tuple[str, ...], /, **columns: int) -> Table:
    """One whose key's columns are NOT NULL, and which has the default identity."""
    made = tuple(
        Column(each, column(each, type_).type, not_null=each in key, generated=False, number=number)
        for number, (each, type_) in enumerate(columns.items(), 1)
    )
    return Table(oid, name, "r", "p", made, key, (frozenset(key),), "d", frozenset(key), (), 0)


TABLES = {
    each.name: each
    for each in (
        table(1, ORDERS, ("id",), id=BIGINT, customer_id=BIGINT, status=TEXT),
        table(2, CUSTOMERS, ("id",), id=BIGINT, name=TEXT, email=TEXT),
        table(3, LINES, ("order_id", "line"), order_id=BIGINT, line=BIGINT, sku=TEXT),
    )
}


def embed(name: str, table: TableName, on: dict[str, str], *columns: str, **more: Any) -> EmbedConfig:
    return EmbedConfig(name=name, table=table, on=on, columns=columns, **more)


def event(*embeds: EmbedConfig) -> EventConfig:
    return EventConfig(name="order", table=ORDERS, columns=("id", "status"), embeds=embeds)


CUSTOMER = embed("customer", CUSTOMERS, {"id": "customer_id"}, "name", "email", many=False, mask={"email": "redact"})
LINE = embed("lines", LINES, {"order_id": "id"}, "line", "sku", rename={"line": "number"})


def with_lines(**changes: Any) -> dict[TableName, Table]:
    return TABLES | {LINES: replace(TABLES[LINES], **changes)}


def with_column(name: str, /, **changes: Any) -> tuple[Column, ...]:
    return tuple(replace(each, **changes) if each.name == name else each for each in TABLES[LINES].columns)


def test_consumers_are_told_what_an_embed_is_made_of() -> None:
    customer, lines = (each.schema for each in map_whole(event(CUSTOMER, LINE), TABLES).embeds)
    assert (customer.name, customer.pg_type, customer.nullable) == ("customer", "jsonb", True)
    assert (lines.name, lines.pg_type, lines.nullable) == ("lines", "jsonb", False)
    assert isinstance(customer.embed, EmbedSchema)
    assert [(each.name, each.masked, each.pg_type) for each in customer.embed.columns] == [
        ("name", None, "type 25"),
        ("email", "redact", "text"),
    ]
    assert lines.embed is not None
    assert (lines.embed.many, lines.embed.key) == (True, ("number",))
    assert customer.embed.key == ()


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        (embed("lines", LINES, {"order_id": "id"}, "line", "sku"), ("line",)),
        (embed("lines", LINES, {"order_id": "id"}, "order_id", "line"), ("order_id", "line")),
        (embed("lines", LINES, {"order_id": "id"}, "line", mask={"line": "hash"}), ("line",)),
        (embed("lines", LINES, {"order_id": "id"}, "order_id", "sku"), ()),  # all lines of an order have that order
        (embed("lines", LINES, {"order_id": "id"}, "line", "sku", mask={"line": "redact"}), ()),
        (embed("lines", LINES, {"order_id": "id"}, "line", "sku", mask={"line": "null"}), ()),
        (embed("lines", LINES, {"order_id": "id", "line": "customer_id"}, "line", "sku"), ()),  # there is but one
    ],
)
def test_the_key_that_consumers_are_told_tells_the_rows_of_a_parent_apart(
    lines: EmbedConfig, key: tuple[str, ...]
) -> None:
    [mapped] = map_whole(event(lines), TABLES).embeds
    assert mapped.schema.embed is not None
    assert mapped.schema.embed.key == key


def test_an_event_is_made_of_all_its_tables_and_columns() -> None:
    mapping = map_whole(event(CUSTOMER, LINE), TABLES)
    assert {title: table.oid for title, table in mapping.tables.items()} == {"": 1, "customer": 2, "lines": 3}
    assert mapping.numbers == {
        "id": 1, "status": 3, "customer.id": 1, "customer.name": 2, "customer.email": 3, "lines.order_id": 1,
        "lines.line": 2, "lines.sku": 3,
    }  # fmt: skip
    assert mapping.replaced_columns({"lines.sku": 9}) == ["lines.sku"]
    assert mapping.relations == {"customer": [2, False, [[1, 2]], [1]], "lines": [3, True, [[1, 1]], [1, 2]]}
    before = {"lines": [3, True, [[1, 1]], [2, 1]], "customer": [7, False, [[1, 2]], [1]]}
    assert mapping.other_relations(before) == ["customer", "lines"]
    assert mapping.other_relations(before | {"lines": mapping.relations["lines"]}) == ["customer"]
    assert [each.name for each in mapping.read_by_table[ORDERS]] == ["id", "status", "customer_id", "id"]


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"kind": "v"}, TableUnfit, "is not a table"),
        ({"persistence": "u"}, TableUnfit, "is unlogged or temporary"),
        ({"identity_columns": frozenset()}, IdentityMissing, "has no replica identity"),
        ({"columns": with_column("sku", name="code")}, ColumnUnfit, "lines.columns: public.order_lines has no"),
        ({"columns": with_column("order_id", name="order")}, ColumnUnfit, "lines.on: public.order_lines has no"),
        ({"columns": with_column("order_id", generated=True)}, ColumnUnfit, "order_id is generated"),
        ({"columns": with_column("order_id", type=column("x", TEXT).type)}, ColumnUnfit, "which cannot be compared"),
        ({"primary_key": (), "unique_keys": ()}, KeyUnfit, "has no primary key, so its rows have no order"),
        ({"identity_columns": frozenset({"line"})}, RelationUntold, "does not hold (order_id)"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit_is_refused_with_the_path(changes: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error) as refusal:
        map_whole(event(LINE), with_lines(**changes))
    assert "events.order.embed.lines" in str(refusal.value) or error is IdentityMissing
    assert told in str(refusal.value)


def test_rows_are_in_the_order_of_another_key_where_there_is_no_primary_one() -> None:
    keys = (frozenset({"sku"}), frozenset({"order_id", "line"}))
    [lines] = map_whole(event(LINE), with_lines(primary_key=(), unique_keys=keys)).embeds
    assert [each.name for each in lines.order] == ["line", "order_id"]  # a sku may be missing


INDEXED = (
    "CREATE UNIQUE INDEX CONCURRENTLY order_lines_order_id_line_identity ON public.order_lines (order_id, line);\n"
    "ALTER TABLE public.order_lines REPLICA IDENTITY USING INDEX order_lines_order_id_line_identity;"
)


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"primary_key": ("line",), "identity_columns": frozenset({"line"})}, INDEXED),
        (
            {"primary_key": ("line",), "identity": "i", "identity_columns": frozenset({"line", "sku"}),
             "columns": tuple(replace(each, not_null=True) for each in TABLES[LINES].columns)},
            INDEXED.replace("order_id_line", "order_id_line_sku").replace("(order_id, line)", "(order_id, line, sku)"),
        ),
        (
            {"primary_key": ("line",), "identity_columns": frozenset({"line"}),
             "columns": with_column("order_id", not_null=False)},
            "ALTER TABLE public.order_lines REPLICA IDENTITY FULL;",
        ),
        (
            {"primary_key": (), "identity": "i", "identity_columns": frozenset({"line"})},
            "ALTER TABLE public.order_lines REPLICA IDENTITY FULL;",
        ),
    ],
    ids=["index", "index that keeps what is told now", "a column that may be NULL", "no primary key"],
)  # fmt: skip
def test_the_remedy_for_an_identity_is_an_index_or_else_all_columns(changes: Any, remedy: str) -> None:
    with pytest.raises(RelationUntold) as refusal:
        map_whole(event(LINE), with_lines(**changes))
    assert refusal.value.remedy == remedy


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({}, "ALTER TABLE public.order_lines REPLICA IDENTITY DEFAULT;"),
        ({"primary_key": ("line",)}, INDEXED),
        ({"primary_key": ()}, "ALTER TABLE public.order_lines REPLICA IDENTITY FULL;"),
    ],
)
def test_the_remedy_for_no_identity_is_one_that_tells_the_relation(changes: Any, remedy: str) -> None:
    with pytest.raises(IdentityMissing) as refusal:
        map_whole(event(LINE), with_lines(identity="n", identity_columns=frozenset(), **changes))
    assert refusal.value.remedy == remedy


def test_each_partition_has_an_identity_of_its_own() -> None:
    leaf = TableName("public", "order_lines_1")
    unfit = {"kind": "p", "leaf_identities": {leaf: frozenset({"line"})}, "primary_key": ("line",)}
    with pytest.raises(RelationUntold) as refusal:
        map_whole(event(LINE), with_lines(**unfit))
    assert "public.order_lines_1 does not hold (order_id)" in str(refusal.value)
    assert "ON public.order_lines_1 (order_id, line)" in refusal.value.remedy


def test_a_field_of_the_event_has_one_meaning() -> None:
    every = EventConfig(
        name="order", table=ORDERS, columns=("*",), embeds=(embed("status", LINES, {"order_id": "id"}, "sku"),)
    )
    with pytest.raises(ColumnUnfit, match=r"events\.order\.embed\.status: the event has a column of this name"):
        map_whole(every, TABLES)
