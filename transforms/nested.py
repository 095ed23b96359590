"""Values of related rows: from the JSON that Postgres nests them in to the JSON of a state.

Postgres writes each row as an array: first the texts of its columns' values, as its own text form has them (an array of
strings and nulls), then the rows that are nested in it, one place for each embed: an array of rows, or a row or null.
Each text is written by the encoder of its type, as if it came out of the log.

A json value that jsonb cannot hold (U+0000, an unpaired surrogate) becomes a JSON string with its text, or Postgres
could read nothing of the state. A JSON null is null, as SQL's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from transforms.column_type import ColumnType, Form
from transforms.errors import ValueNotEncodable
from transforms.values import JSON_SPACE, encode_text, has_odd_escape, json_name, value_encoder

Encoder = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class NestedField:
    """A column of related rows."""

    name: str
    """As it is published."""
    type: ColumnType
    mask: bytes | Encoder | None = None
    """JSON text that stands for every value but NULL, or what makes JSON text of a value's text."""


@dataclass(frozen=True, slots=True)
class Nesting:
    """What related rows are made of."""

    name: str
    """The field that they are the value of."""
    many: bool
    fields: tuple[NestedField, ...]
    nested: tuple[Nesting, ...] = ()


def nested_encoder(nesting: Nesting) -> Encoder:
    """The function that writes the value of an embed. It raises ValueNotEncodable."""
    write = _value_writer(nesting)

    def encode(text: bytes) -> bytes:
        try:
            return write(orjson.loads(text))
        except ValueError:  # it carries the text
            raise ValueNotEncodable(f"a value of the related rows {nesting.name} is not UTF-8") from None

    return encode


def _value_writer(nesting: Nesting) -> Callable[[Any], bytes]:
    row = _row_writer(nesting)
    if nesting.many:
        return lambda rows: b"[" + b",".join(map(row, rows)) + b"]"
    return lambda found: b"null" if found is None else row(found)


def _row_writer(nesting: Nesting) -> Callable[[Sequence[Any]], bytes]:
    fields = [(_label(field.name), _encoder(field)) for field in nesting.fields]
    inner = [(_label(each.name), _value_writer(each)) for each in nesting.nested]

    def write(row: Sequence[Any]) -> bytes:
        texts, *nested = row
        parts = [
            label + (b"null" if text is None else encode(text.encode()))
            for (label, encode), text in zip(fields, texts, strict=True)
        ]
        parts += [label + value(found) for (label, value), found in zip(inner, nested, strict=True)]
        return b"{" + b",".join(parts) + b"}"

    return write


def _label(name: str) -> bytes:
    return json_name(name) + b":"


def _encoder(field: NestedField) -> Encoder:
    if isinstance(field.mask, bytes):
        constant = field.mask
        return lambda _: constant
    if field.mask is not None:
        return field.mask
    if not field.type.element_oid and field.type.form in (Form.JSON, Form.JSONB):
        return _spliced
    return value_encoder(field.type)


def _spliced(value: bytes) -> bytes:
    return encode_text(value) if has_odd_escape(value) else value.strip(JSON_SPACE)
