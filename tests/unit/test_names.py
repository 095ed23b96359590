"""Names are read as SQL reads them, and written so that SQL reads them back."""

from __future__ import annotations

import dataclasses

import pytest

from transforms.names import (
    EVENT_LABEL,
    EVENT_NAME,
    PIPELINE_NAME,
    SLOT_NAME,
    TableName,
    event_label,
    identifier_problem,
    quote_identifier,
)


@pytest.mark.parametrize(
    ("text", "schema", "name"),
    [
        ("public.customers", "public", "customers"),
        ("customers", "public", "customers"),
        ("Shop.Customers", "shop", "customers"),
        ('public."Order Lines"', "public", "Order Lines"),
        ('"Order Lines"', "public", "Order Lines"),
        ('"a.b"."c""d"', "a.b", 'c"d'),
        ('"Shop".lines', "Shop", "lines"),
        ("_a$1.größe", "_a$1", "größe"),
        ("GRÖSSE", "public", "grÖsse"),
        ("public.order", "public", "order"),
        ("x" * 63, "public", "x" * 63),
    ],
)
def test_a_table_is_named_as_in_sql(text: str, schema: str, name: str) -> None:
    assert TableName.parse(text) == TableName(schema, name)


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "a.", ".a", "a.b.c", "a b", " a", "a ", "a. b", "1a", "$a", "a-b", "a\n", 'a"b', '"a', '"a"b', '""'),
        *('public.""', '"a\0"', "a\0", "x" * 64, '"' + "é" * 32 + '"', "a." + "x" * 64, "postgres://me:secret@host/db"),
    ],
)
def test_anything_else_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not a table's name: ") as refusal:
        TableName.parse(text)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("part", ["", "a\0b", "é" * 32])
def test_a_table_name_that_postgres_cannot_hold_cannot_be_made(part: str) -> None:
    for schema, name in ((part, "a"), ("a", part)):
        with pytest.raises(ValueError, match="not a table's name"):
            TableName(schema, name)


@pytest.mark.parametrize(
    ("table", "sql"),
    [
        (TableName("public", "customers"), "public.customers"),
        (TableName("public", "Order Lines"), 'public."Order Lines"'),
        (TableName("Shop", 'a"b'), '"Shop"."a""b"'),
        (TableName("public", "order"), 'public."order"'),
        (TableName("values", "1a"), '"values"."1a"'),
        (TableName("public", "größe"), 'public."größe"'),
        (TableName("public", "status"), "public.status"),
    ],
)
def test_a_table_prints_as_sql_with_quotes_only_where_needed(table: TableName, sql: str) -> None:
    assert str(table) == sql
    assert TableName.parse(sql) == table


def test_an_identifier_cannot_break_out_of_its_quotes() -> None:
    assert quote_identifier('a"; DROP TABLE b; --') == '"a""; DROP TABLE b; --"'


def test_a_table_name_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TableName("a", "b").name = "c"  # type: ignore[misc]


def test_a_problem_of_an_identifier_is_told_without_the_identifier() -> None:
    assert identifier_problem("email") is None
    assert identifier_problem("é" * 32) == "a name of 64 bytes (Postgres holds at most 63)"


def test_names_have_their_lengths_and_letters() -> None:
    assert PIPELINE_NAME.fullmatch("a" * 31)
    assert not PIPELINE_NAME.fullmatch("a" * 32)
    assert EVENT_NAME.fullmatch("a" * 63)
    assert not EVENT_NAME.fullmatch("a" * 64)
    assert not EVENT_NAME.fullmatch("1a")
    assert SLOT_NAME.fullmatch("1_slot")
    assert not SLOT_NAME.fullmatch("Slot")


def test_a_label_names_a_type_and_perhaps_a_version() -> None:
    found = EVENT_LABEL.fullmatch(event_label("customer", 12))
    assert found is not None
    assert (found["type"], found["version"]) == ("customer", "12")
    assert EVENT_LABEL.fullmatch("customer")
    assert not EVENT_LABEL.fullmatch("customer.v0")
    assert not EVENT_LABEL.fullmatch("customer.v1000000")
