"""Values of related rows, from Postgres' nested arrays of texts to the JSON of a state."""

from __future__ import annotations

import json

import pytest

from transforms.column_type import ColumnType
from transforms.errors import ValueNotEncodable
from transforms.nested import NestedField, Nesting, nested_encoder

BIGINT, NUMERIC, TEXT, JSON, JSONB, BOOLEAN = (
    ColumnType(name, name, oid)
    for name, oid in (
        ("bigint", 20), ("numeric", 1700), ("text", 25), ("json", 114), ("jsonb", 3802), ("boolean", 16)
    )
)  # fmt: skip
STAMP, TEXTS = ColumnType("timestamptz", "timestamptz", 1184), ColumnType("text[]", "text[]", 1009, 25)


def one(type_: ColumnType, text: str | None, mask: bytes | None = None) -> str:
    """What a value becomes as the only field of the only row."""
    nesting = Nesting("lines", True, (NestedField("v", type_, mask),))
    return nested_encoder(nesting)(json.dumps([[[text]]]).encode()).decode()


def test_rows_nest_and_keep_the_order_of_fields() -> None:
    product = Nesting("product", False, (NestedField("title", TEXT),))
    parts = Nesting("parts", True, (NestedField("n", BIGINT),))
    lines = Nesting("lines", True, (NestedField("id", BIGINT), NestedField("price", NUMERIC)), (product, parts))
    rows = [[["12345678901234567890", "1.50"], [['Äpfel "x"']], [[["1"]], [["2"]]]], [[None, None], None, []]]
    assert nested_encoder(lines)(json.dumps(rows).encode()).decode() == (
        '[{"id":12345678901234567890,"price":"1.50","product":{"title":"Äpfel \\"x\\""},"parts":[{"n":1},{"n":2}]},'
        '{"id":null,"price":null,"product":null,"parts":[]}]'
    )


def test_no_rows_are_an_empty_array_and_no_row_is_null() -> None:
    assert nested_encoder(Nesting("lines", True, (NestedField("n", BIGINT),)))(b"[]") == b"[]"
    assert nested_encoder(Nesting("customer", False, (NestedField("n", BIGINT),)))(b"null") == b"null"


@pytest.mark.parametrize(
    ("type_", "text", "written"),
    [
        (BOOLEAN, "t", "true"),
        (STAMP, "2024-02-29 12:34:56+00", '"2024-02-29T12:34:56Z"'),
        (TEXTS, '{a,NULL,"b c"}', '["a",null,"b c"]'),
        (JSONB, '{"a": [1, null]}', '{"a": [1, null]}'),
        (JSONB, "null", "null"),
        (JSON, ' {"b":1,"b":2}\n', '{"b":1,"b":2}'),
        (JSON, '{"a":"\\u0000"}', '"{\\"a\\":\\"\\\\u0000\\"}"'),
        (JSON, '"\\ud800"', '"\\"\\\\ud800\\""'),
        (JSON, '"\\ud83e\\udd86"', '"\\ud83e\\udd86"'),
    ],
)
def test_each_value_has_the_form_of_its_type(type_: ColumnType, text: str, written: str) -> None:
    assert one(type_, text) == f'[{{"v":{written}}}]'


def test_a_mask_takes_every_value_but_null() -> None:
    assert one(TEXT, "secret", b'"[redacted]"') == '[{"v":"[redacted]"}]'
    assert one(TEXT, None, b'"[redacted]"') == '[{"v":null}]'


def test_bytes_that_are_no_text_are_named_without_a_value() -> None:
    with pytest.raises(ValueNotEncodable) as refusal:
        nested_encoder(Nesting("lines", True, (NestedField("v", TEXT),)))(b'[[["sec\xffret"]]]')
    assert "lines" in str(refusal.value)
    assert refusal.value.__cause__ is None
    assert "ret" not in str(refusal.value)
