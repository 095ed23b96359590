"""Row encoders: from the bytes of a tuple to the JSON bytes of key and state.

Common rows are encoded by compiled C (`_rows.c`); where that is not there, rows of a shape that is met often by a
function made for it (`transforms.shapes`). All others (values that were not sent, values that cannot be written as
they are, errors) take the explicit way, column by column, which is slower and says what is wrong. Columns that are not
listed are stepped over: their values never leave these files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from transforms import accelerator, copy_text, shapes, tuple_data
from transforms.column_type import ColumnType, Form, RelationColumn
from transforms.explicit import ExplicitEncoder
from transforms.explicit import KeyNotSent as KeyNotSent
from transforms.explicit import UnchangedValues as UnchangedValues
from transforms.row import Absent as Absent
from transforms.row import EncodedRow, Failed, Field, LoggedRow, Mask, RowFilter, SourcedKey, Undecided, fields_of
from transforms.row import Row as Row
from transforms.shapes import Plan, ShapeMemory
from transforms.values import value_encoder

COMPILED: Final = accelerator.load("transforms._rows")
FOUND_ITEMS: Final[Callable[..., tuple[list[bytes], int]] | None] = COMPILED and COMPILED.found
"""Items of many encoded rows at once, where compiled code is there."""

_LETTERS = {
    Form.NUMBER: b"n",
    Form.FLOAT: b"f",
    Form.BOOLEAN: b"b",
    Form.JSON: b"j",
    Form.JSONB: b"J",
    Form.TIMESTAMP: b"t",
    Form.TIMESTAMPTZ: b"z",
    Form.BYTEA: b"x",
    Form.PLAIN: b"p",
    Form.TEXT: b"s",
}
"""What `_rows.c` calls the forms."""

AnyRow = TypeVar("AnyRow", EncodedRow, LoggedRow)


@dataclass(frozen=True, slots=True)
class RowEncoder:
    """The encoding functions for one relation and one event. All raise MalformedMessage and ValueNotEncodable."""

    row: Callable[[bytes, int, int], LoggedRow]
    """`row(data, at, old)`: the tuple at `at`, which must reach to the end of `data`. `old` is the offset of the old
    tuple, or 0; its values stand in for those not sent: all of a whole one (the byte before it is `O`), only the key's
    of a key (`K`), whose other columns are empty. A plain pair (key, state) is the common, full row."""
    key: Callable[[bytes, int], tuple[bytes, int]]
    """`key(data, at)`: the key of the tuple at `at`, and the offset behind the tuple."""
    lines: Callable[[list[bytes]], list[EncodedRow]]
    """`lines(texts)`: the same as `row` for rows in COPY's text format, each with its line's end."""
    held: Callable[[bytes, int], bool] | None = None
    """`held(data, at)`: whether the whole old tuple at `at` was, or may have been, of the event. None: every one is."""
    upserts: Callable[..., tuple[list[bytes], int]] | None = None
    """Items of many frames at once, where compiled code is there: `Plan.upserts` in `_items.c`."""
    transactions: Callable[..., tuple[list[bytes], int, list[int], int, int, int] | None] | None = None
    """The same of whole transactions: `Plan.transactions`."""


def compile_encoder(
    relation: Sequence[RelationColumn],
    fields: Sequence[Field | str],
    key: Sequence[Field | str],
    filter_: RowFilter | None = None,
) -> RowEncoder:
    """Make the encoder for rows of `relation`; `fields` and `key` give the fields of state and key in their order.

    A name alone is that of a column which is published under it. Raises KeyError with the name of a column that the
    relation does not have.
    """
    compile_ = compiled_encoder if COMPILED else shaped_encoder
    made = compile_(relation, fields, key, filter_)
    if all(field.mask is None for field in fields_of(key)):
        return made
    clear = [field._replace(mask=None) for field in fields_of(key)]
    return _with_sources(made, compile_(relation, (), clear))


def compiled_encoder(
    relation: Sequence[RelationColumn],
    fields: Sequence[Field | str],
    key: Sequence[Field | str],
    filter_: RowFilter | None = None,
) -> RowEncoder:
    """The encoder that runs in C where a row is common."""
    explicit = ExplicitEncoder(relation, fields_of(fields), fields_of(key), filter_)
    masks = {field.column: field.mask for field in (*fields_of(fields), *fields_of(key)) if field.mask is not None}
    made: Any = COMPILED.Plan(
        tuple(_way_of(column.type, masks.get(column.name)) for column in relation),
        explicit.labels(),
        explicit.key_labels(),
        explicit.judged,
        filter_ and filter_.judge,
        Absent,
    )
    encoded_row, encoded_key, encoded_lines, held = made.row, made.key, made.lines, made.held

    def encode_row(data: bytes, at: int, old: int) -> LoggedRow:
        return encoded_row(data, at) or explicit.row(data, at, old)

    def encode_key(data: bytes, at: int) -> tuple[bytes, int]:
        return encoded_key(data, at) or explicit.old_key(data, at)

    def encode_lines(texts: list[bytes]) -> list[EncodedRow]:
        rows: list[EncodedRow] = encoded_lines(texts, 0)
        while len(rows) < len(texts):
            rows.append(explicit.line(texts[len(rows)]))
            rows += encoded_lines(texts, len(rows))
        return rows

    def is_held(data: bytes, at: int) -> bool:
        verdict: bool | None = held(data, at)
        return explicit.held(data, at) if verdict is None else verdict

    return RowEncoder(
        encode_row, encode_key, encode_lines, is_held if filter_ else None, made.upserts, made.transactions
    )


def _way_of(type_: ColumnType, mask: Mask | None) -> object:
    """How `_rows.c` is told what becomes of a column's values."""
    if isinstance(mask, bytes):
        return (mask,)
    return mask or (value_encoder(type_) if type_.element_oid else _LETTERS[type_.form])


def shaped_encoder(
    relation: Sequence[RelationColumn],
    fields: Sequence[Field | str],
    key: Sequence[Field | str],
    filter_: RowFilter | None = None,
    *,
    seen_before: int = shapes.SEEN_BEFORE,
) -> RowEncoder:
    """The encoder in Python: a function is made for each shape that has been met `seen_before` times."""
    explicit = ExplicitEncoder(relation, fields_of(fields), fields_of(key), filter_)
    plan = Plan(relation, fields_of(fields), fields_of(key))
    rows = ShapeMemory(plan, shapes.row_encoder, seen_before)
    keys = ShapeMemory(Plan(relation, (), fields_of(key)), shapes.key_encoder, seen_before)
    lines = ShapeMemory(plan, shapes.line_encoder, seen_before)

    def encode_row(data: bytes, at: int, old: int) -> LoggedRow:
        return rows.latest(data, at) or unusual_row(data, at, old)

    def unusual_row(data: bytes, at: int, old: int) -> LoggedRow:
        return rows.encode(tuple_data.kinds(data, at), data, at) or explicit.row(data, at, old)

    def encode_key(data: bytes, at: int) -> tuple[bytes, int]:
        return keys.latest(data, at) or keys.encode(tuple_data.kinds(data, at), data, at) or explicit.old_key(data, at)

    def encode_line(text: bytes) -> EncodedRow:
        return lines.latest(text, 0) or lines.encode(copy_text.kinds(text), text, 0) or explicit.line(text)

    def encode_lines(texts: list[bytes]) -> list[EncodedRow]:
        return [encode_line(text) for text in texts]

    made = RowEncoder(encode_row, encode_key, encode_lines)
    return made if filter_ is None else _filtered(made, explicit, relation, filter_, seen_before)


def _filtered(
    made: RowEncoder,
    explicit: ExplicitEncoder,
    relation: Sequence[RelationColumn],
    filter_: RowFilter,
    seen_before: int,
) -> RowEncoder:
    """The same, of those rows for which the filter holds."""
    plan, judge = Plan(relation, [shapes.raw(name) for name in filter_.columns], ()), filter_.judge
    texts = ShapeMemory(plan, shapes.texts_encoder, seen_before)
    line_texts = ShapeMemory(plan, shapes.line_texts_encoder, seen_before)

    def holds(judged: Sequence[bytes | None] | None) -> bool:
        try:
            return judged is not None and judge(judged) is True
        except UnicodeDecodeError:
            return False  # the explicit encoder tells of it

    def encode_row(data: bytes, at: int, old: int) -> LoggedRow:
        found = texts.latest(data, at) or texts.encode(tuple_data.kinds(data, at), data, at)
        return made.row(data, at, old) if holds(found) else explicit.row(data, at, old)

    def encode_line(text: bytes) -> EncodedRow:
        found = line_texts.latest(text, 0) or line_texts.encode(copy_text.kinds(text), text, 0)
        return made.lines([text])[0] if holds(found) else explicit.line(text)

    def encode_lines(texts: list[bytes]) -> list[EncodedRow]:
        return [encode_line(text) for text in texts]

    return replace(made, row=encode_row, lines=encode_lines, held=explicit.held)


def _with_sources(made: RowEncoder, clear: RowEncoder) -> RowEncoder:
    """The same, and each key knows the source's values: `clear` encodes just them."""

    def encode_row(data: bytes, at: int, old: int) -> LoggedRow:
        return _sourced(made.row(data, at, old), clear.row(data, at, old)[0])

    def encode_key(data: bytes, at: int) -> tuple[bytes, int]:
        key, end = made.key(data, at)
        return SourcedKey.of(key, clear.key(data, at)[0]), end

    def encode_lines(texts: list[bytes]) -> list[EncodedRow]:
        keys = (row[0] for row in clear.lines(texts))
        return [_sourced(row, key) for row, key in zip(made.lines(texts), keys, strict=True)]

    return replace(made, row=encode_row, key=encode_key, lines=encode_lines)


def _sourced(row: AnyRow, source: bytes) -> AnyRow:
    key = SourcedKey.of(row[0], source)
    return row._replace(key=key) if isinstance(row, Row | Absent | Undecided | Failed) else (key, row[1])
