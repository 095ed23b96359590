"""The section [sinks.NAME.tables]: events, embeds, and the tables that they go to."""

from __future__ import annotations

import tomllib

import pytest

from sinks.children.shape import keep_apart, shapes
from sinks.config import SinkConfig
from sinks.table_map import EmbedTables, TableMap, read_table_map
from transforms.address import Address
from transforms.config import ConfigurationError, Document, PipelineConfig, TransportConfig
from transforms.names import TableName
from transforms.schema import EmbedSchema, SchemaColumn, SchemaDocument
from transforms.secret import Secret

PATH = ("sinks", "billing", "tables")


def read(lines: str) -> tuple[TableMap, list[str]]:
    document = Document(tomllib.loads(f"[sinks.billing.tables]\n{lines}"), {})
    return read_table_map(document, *PATH), document.problems


def table(name: str) -> TableName:
    return TableName.parse(name)


def test_an_event_has_a_table_and_its_embeds_may_have_some_too() -> None:
    read_map, problems = read(
        'customer = "replica.customers"\ncustomer.v2 = "replica.customers_2"\n'.replace("customer.v2", '"customer.v2"')
        + 'order = { table = "replica.orders", embeds = { lines = "replica.lines" } }\n'
    )
    assert problems == []
    assert read_map.tables == {
        "customer.v1": table("replica.customers"),
        "customer.v2": table("replica.customers_2"),
        "order.v1": table("replica.orders"),
    }
    assert read_map.embeds == {"order.v1": EmbedTables((*PATH, "order", "embeds"), {"lines": table("replica.lines")})}


@pytest.mark.parametrize(
    "lines",
    [
        'order.table = "a"\norder.embeds.lines = "b"\norder.v2.table = "c"\norder.v2.embeds.lines = "d"',
        'order = { table = "a", embeds = { lines = "b" }, v2 = { table = "c", embeds = { lines = "d" } } }',
        '[sinks.billing.tables.order]\ntable = "a"\n[sinks.billing.tables.order.embeds]\nlines = "b"\n'
        '[sinks.billing.tables."order.v2"]\ntable = "c"\nembeds = { lines = "d" }',
    ],
)
def test_versions_and_embeds_may_be_written_in_every_way_that_toml_has(lines: str) -> None:
    read_map, problems = read(lines)
    assert problems == []
    assert read_map.tables == {"order.v1": table("a"), "order.v2": table("c")}
    assert {event: dict(embeds.tables) for event, embeds in read_map.embeds.items()} == {
        "order.v1": {"lines": table("b")},
        "order.v2": {"lines": table("d")},
    }


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ('order = { embeds = { lines = "b" } }', "order.table: missing: expected a table's name as SQL writes it"),
        ('order = { table = "a", embed = {} }', 'order.embed: unknown key (did you mean "embeds"?)'),
        ('order = { table = 1, embeds = { lines = "b" } }', "order.table: expected a table's name as SQL writes it,"),
        ('order = { table = "a", embeds = "b" }', "order.embeds: expected a section of tables by embed, like"),
        (
            'order = { table = "a", embeds = { lines = 5 } }',
            "order.embeds.lines: expected a table's name as SQL writes",
        ),
        ('order = { table = "a", embeds = { lines = "a.b.c" } }', "order.embeds.lines: not a table's name: expected"),
        (
            'order = { table = "a", embeds = { lines = "public.a" } }',
            "order.embeds.lines: the same table as sinks.billing.tables.order.table",
        ),
        (
            'a = "x"\norder = { table = "b", embeds = { lines = "x" } }',
            "order.embeds.lines: the same table as sinks.billing.tables.a",
        ),
        (
            'order = { table = "a", embeds = { lines = "b", tags = "b" } }',
            "order.embeds.tags: the same table as sinks.billing.tables.order.embeds.lines",
        ),
        (
            'order = { table = "a", embeds = { lines = "b" } }\n"order.v1" = "c"',
            '"order.v1": the same event as sinks.billing.tables.order.table',
        ),
    ],
)
def test_a_mistake_is_told_with_its_whole_path(line: str, mistake: str) -> None:
    (problem,) = read(line)[1]
    assert problem.startswith(f"sinks.billing.tables.{mistake}")


def field(name: str, masked: str | None = None) -> SchemaColumn:
    return SchemaColumn(name, "integer", "integer", False, masked=masked)


def document(embed: EmbedSchema, type_: str = "order", key: str = "id") -> SchemaDocument:
    lines = SchemaColumn("lines", "jsonb", "jsonb", False, embed=embed)
    return SchemaDocument(type_, 1, type_, (key,), (field(key), lines))


def config(label: str) -> SinkConfig:
    return SinkConfig(
        PipelineConfig(name="shop"),
        TransportConfig(url=Secret("redis://localhost")),
        "billing",
        Address("sinks.billing", Secret("dbname=x")),
        {label: table("orders")},
        embeds={label: EmbedTables((*PATH, "order", "embeds"), {"lines": table("lines")})},
    )


@pytest.mark.parametrize(
    ("embed", "key"),
    [
        (EmbedSchema(True, ("id",), (field("id"), field("sku"))), ("order_id", "id")),
        (EmbedSchema(True, (), (field("sku"),)), ("order_id", "ordinal")),
        (EmbedSchema(True, ("id",), (field("id", "hash"),)), ("order_id", "id")),
        (EmbedSchema(True, ("id",), (field("id", "null"),)), ("order_id", "ordinal")),
        (EmbedSchema(True, ("id", "x"), (field("id"), field("x", "redact"))), ("order_id", "ordinal")),
        (EmbedSchema(False, ("id",), (field("id"),)), ("order_id",)),
        (EmbedSchema(True, ("ordinal",), (field("ordinal"),)), ("order_id", "ordinal")),
        (EmbedSchema(False, (), (field("ordinal"),)), ("order_id",)),
    ],
)
def test_rows_are_told_apart_by_the_embeds_key_or_by_their_place(embed: EmbedSchema, key: tuple[str, ...]) -> None:
    kept = keep_apart(config("order.v1"), {"order.v1": document(embed)})["order.v1"]
    assert kept.names == ("id",)
    (shape,) = shapes(config("order.v1"), "order.v1", kept)
    assert shape.document.key == key


@pytest.mark.parametrize(
    ("type_", "key", "columns", "mistake"),
    [
        ("order", "id", ["order_id"], "its table would have two columns order_id"),
        ("order", "id", ["ordinal"], "its table would have two columns ordinal"),
        ("order", "x" * 60, ["id"], "would have a name of 66 bytes"),
    ],
)
def test_two_columns_of_one_name_and_names_that_postgres_would_cut_are_refused(
    type_: str, key: str, columns: list[str], mistake: str
) -> None:
    label = f"{type_}.v1"
    embed = EmbedSchema(True, (), tuple(map(field, columns)))
    kept = keep_apart(config(label), {label: document(embed, type_, key)})[label]
    with pytest.raises(ConfigurationError) as caught:
        shapes(config(label), label, kept)
    assert str(caught.value).startswith("sinks.billing.tables.order.embeds.lines: ")
    assert mistake in str(caught.value)
    assert "jsonb column" in caught.value.remedy
