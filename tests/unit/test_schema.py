"""Schema documents: what consumers hold on to survives being stored, and changes only in ways they can follow."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from transforms.column_type import ColumnType
from transforms.errors import MalformedEntry
from transforms.schema import EmbedSchema, FieldsRetyped, SchemaColumn, SchemaDocument, SchemaIncompatible


def field(name: str, pg_type: str = "text", oid: int = 25, *, nullable: bool = True, element: int = 0) -> SchemaColumn:
    return SchemaColumn.of(name, ColumnType(pg_type, pg_type, oid, element), nullable=nullable)


LINES = EmbedSchema(
    True,
    ("id",),
    (
        SchemaColumn("id", "bigint", "bigint", False),
        SchemaColumn(
            "product",
            "jsonb",
            "jsonb",
            True,
            embed=EmbedSchema(False, (), (SchemaColumn("name", "text", "text", True, masked="hash"),)),
        ),
    ),
)
ID, NAME = field("id", "bigint", 20, nullable=False), field("größe")
FIRST = SchemaDocument("customer", 1, "customers", ("id",), (ID, NAME), revisions=(("id", "größe"),))


def grown(*more: SchemaColumn) -> SchemaDocument:
    return replace(FIRST, columns=(*FIRST.columns, *more))


def test_a_document_has_the_fields_of_the_contract() -> None:
    document = json.loads(FIRST.to_json())
    assert list(document) == [
        *("format", "type", "version", "streams", "partitions", "key", "columns", "rev", "revisions"),
        *("fingerprint", "json_schema"),
    ]
    assert (document["format"], document["type"], document["streams"], document["rev"]) == (
        1,
        "customer",
        ["customers"],
        1,
    )
    assert document["columns"][0] == {
        **{"name": "id", "pg_type": "bigint", "base_type": "bigint", "nullable": False},
        **{"masked": False, "labels": []},
    }


def test_a_document_survives_being_stored() -> None:
    stored = SchemaDocument.parse(FIRST.to_json())
    assert (stored.label, stored.key, stored.names, stored.revisions) == (
        "customer.v1",
        ("id",),
        ("id", "größe"),
        FIRST.revisions,
    )
    assert stored.fingerprint == FIRST.fingerprint
    assert [column.pg_type for column in stored.columns] == ["bigint", "text"]


def test_a_stored_document_tells_the_same_as_the_one_it_was_made_from() -> None:
    assert FIRST.tells_the_same_as(SchemaDocument.parse(FIRST.to_json()))


def test_a_document_that_consumers_must_read_again_does_not_tell_the_same() -> None:
    nullable = replace(FIRST, columns=(replace(ID, nullable=True), NAME))
    assert [FIRST.tells_the_same_as(other) for other in (grown(field("email")), replace(FIRST, rev=2), nullable)] == [
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (field("v", "bigint", 20, nullable=False), {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}),
        (field("v", "boolean", 16, nullable=False), {"type": "boolean"}),
        (
            field("v", "numeric(9,2)", 1700, nullable=False),
            {"type": "string", "pattern": r"^(-?[0-9]+(\.[0-9]+)?|NaN|-?Infinity)$"},
        ),
        (field("v", "text"), {"type": ["string", "null"]}),
        (field("v", "character varying(40)", 1043), {"type": ["string", "null"], "maxLength": 40}),
        (field("v", "jsonb", 3802), {}),
        (field("v", "json[]", 199, element=114), {"type": ["string", "null"]}),
        (
            field("v", "boolean[]", 1000, element=16),
            {
                "anyOf": [
                    {"type": "array", "items": {"anyOf": [{"type": ["boolean", "null"]}, {"type": "array"}]}},
                    {"type": "string"},
                    {"type": "null"},
                ]
            },
        ),
    ],
)
def test_the_json_schema_tells_the_form_of_each_field(column: SchemaColumn, expected: dict[str, object]) -> None:
    schema = json.loads(grown(column).to_json())["json_schema"]
    assert schema["properties"]["v"] == {"description": column.pg_type} | expected


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"format":1}', '{"format":2}', b"\xff"])
def test_what_is_no_document_of_format_1_is_refused(text: str | bytes) -> None:
    with pytest.raises(MalformedEntry):
        SchemaDocument.parse(text)


# What may change


def test_the_same_shape_keeps_its_revision() -> None:
    old = replace(FIRST, rev=3, revisions=(("id",), ("id", "x"), ("id", "größe")))
    assert FIRST.succeed(old) == old


def test_a_nullable_field_that_is_added_makes_a_new_revision() -> None:
    grown_document = grown(field("email")).succeed(FIRST)
    assert (grown_document.rev, grown_document.label) == (2, "customer.v1")
    assert grown_document.revisions == (("id", "größe"), ("id", "größe", "email"))


def test_each_revision_adds_to_the_ones_before() -> None:
    second = grown(field("a")).succeed(FIRST)
    third = grown(field("a"), field("b")).succeed(second)
    assert (third.rev, third.revisions) == (3, (("id", "größe"), ("id", "größe", "a"), ("id", "größe", "a", "b")))


def test_a_type_that_has_changed_is_told_apart_for_the_source_has_changed_it() -> None:
    changed = replace(FIRST, columns=(ID, field("größe", "character varying(40)", 1043)))
    with pytest.raises(FieldsRetyped, match=r"the type of größe was text and is character varying\(40\)"):
        changed.succeed(FIRST)


def test_becoming_nullable_is_no_change_of_shape() -> None:
    assert replace(FIRST, columns=(replace(ID, nullable=True), NAME)).succeed(FIRST).rev == 1


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (replace(FIRST, columns=(ID,)), "größe is no longer among its columns"),
        (replace(FIRST, columns=(ID, field("height"))), "größe is no longer"),
        (grown(field("email", nullable=False)), "the new field email is NOT NULL"),
        (replace(FIRST, key=("größe",)), "its key or stream has changed"),
        (replace(FIRST, stream="people"), "its key or stream has changed"),
        (replace(FIRST, columns=(ID, replace(NAME, masked="hash"))), "größe is masked otherwise"),
        (replace(FIRST, columns=(ID, replace(NAME, masked="hash", pg_type="bytea"))), "größe is masked otherwise"),
        (replace(FIRST, columns=(ID, replace(NAME, embed=LINES))), "größe was a column and is related rows"),
    ],
)
def test_a_change_that_consumers_cannot_follow_needs_a_new_version(new: SchemaDocument, words: str) -> None:
    with pytest.raises(SchemaIncompatible, match=words):
        new.succeed(FIRST)


@pytest.mark.parametrize(
    "other",
    [
        replace(FIRST, version=2),
        replace(FIRST, key=("größe",)),
        replace(FIRST, columns=(NAME, ID)),
        replace(FIRST, columns=(ID, field("größe", "varchar", 1043))),
        grown(field("email")),
    ],
)
def test_the_fingerprint_changes_with_the_shape(other: SchemaDocument) -> None:
    assert other.fingerprint != FIRST.fingerprint


def test_masks_and_embeds_are_told_and_read_again() -> None:
    document = SchemaDocument(
        "order",
        1,
        "order",
        ("id",),
        (
            SchemaColumn("id", "integer", "integer", False),
            SchemaColumn("email", "text", "text", False, masked="redact"),
            SchemaColumn("lines", "jsonb", "jsonb", False, embed=LINES),
        ),
    )
    assert SchemaDocument.parse(document.to_json()).columns == document.columns


def test_a_mask_and_an_embed_are_among_what_a_fingerprint_tells() -> None:
    plain = SchemaColumn("email", "text", "text", False)
    columns = [plain, replace(plain, masked="hash"), replace(plain, embed=LINES)]
    columns.append(replace(plain, embed=replace(LINES, many=False)))
    columns.append(replace(plain, embed=replace(LINES, columns=LINES.columns[:1])))
    assert len({SchemaDocument("order", 1, "order", ("id",), (column,)).fingerprint for column in columns}) == 5


def test_the_fingerprint_of_plain_columns_is_that_of_earlier_versions() -> None:
    document = SchemaDocument("order", 1, "order", ("id",), (SchemaColumn("id", "integer", "integer", False),))
    assert document.fingerprint == "a71afa91ff50d61e"


def rows(**changes: object) -> SchemaDocument:
    embed = replace(LINES, **changes)  # type: ignore[arg-type]
    return grown(SchemaColumn("lines", "jsonb", "jsonb", False, embed=embed))


def test_related_rows_may_get_fields_that_may_be_null() -> None:
    added = (*LINES.columns, SchemaColumn("note", "text", "text", True))
    assert rows(columns=added).succeed(rows()).rev == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"many": False}, "in lines, `many` or the key of the related rows has changed"),
        ({"key": ()}, "in lines, `many` or the key"),
        ({"columns": LINES.columns[:1]}, "in lines, product is no longer among its columns"),
        ({"columns": (*LINES.columns, field("sku", nullable=False))}, "in lines, the new field sku is NOT NULL"),
        ({"columns": (replace(LINES.columns[0], masked="hash"), LINES.columns[1])}, "in lines, id is masked"),
        ({"columns": (replace(LINES.columns[0], pg_type="uuid"), LINES.columns[1])}, "the type of id was bigint"),
    ],
)
def test_what_consumers_rely_on_in_related_rows_stays(changes: dict[str, object], words: str) -> None:
    with pytest.raises(SchemaIncompatible, match=words):
        rows(**changes).succeed(rows())
